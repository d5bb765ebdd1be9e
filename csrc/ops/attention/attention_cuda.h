// attention on a GPU: what the wrapper hands to the kernels, and which kernels there are. attention.h says what is
// computed; this header, how it is called for.
//
//   mma      attention_mma_*        tensor cores of sm_80 and later: bf16 and f16, widths 64, 80, 96, 128
//   hopper   attention_hopper_*     tensor copies and wgmma of sm_90a: the same but dropout
//   general  attention_general_*    CUDA cores: f32, and every width that the others do not serve
//
// path_of() in attention_cuda_op.cpp chooses. Where to begin to read: each path has a launcher and a head that says its
// work, memory, numbers and limits in attention_<path>_forward_cuda.cu and attention_<path>_backward_cuda.cu; beside
// them stand the steps of a kernel (*_forward.cuh, *_backward*.cuh) and the layout of its tiles (*_tiles.cuh). Simplest
// first: general, mma, hopper. What all paths share:
//
//   attention_sequences.cuh       from a block's number to its tile of a sequence; who sees whom
//   attention_dropout.cuh         what dropout keeps (mma and general)
//   attention_backward_rows.cuh   before and after the backward pass of mma and hopper: delta, workspace, rounding of dq
//   attention_call.h              checks and views, of the CPU's execution too
//
// The CPU's loops are attention_{forward,backward,tiles}_cpu.cpp with attention_loops.h and attention_tiles.h.
//
// lse is [heads, query rows], and dropout's seed and the bounds of packed sequences are read on the device: a call
// never waits for it. Bounds outside of the rows, or that decrease, are cut to what there is; rows that no sequence
// covers are not written, those that two cover hold anything.
#pragma once

#include "device/context.h"
#include "ops/attention/attention.h"

namespace igf {

struct AttentionBatch {
  const int32_t* cu_seqlens;   // packed: [sequences + 1]; null for a dense batch
  int64_t sequences;
  int64_t q_rows, k_rows;      // of all sequences together
  int64_t q_length, k_length;  // of each sequence of a dense batch
};

struct AttentionForwardCall {
  AttentionShape shape;         // dropout_seed there is not used
  const int64_t* dropout_seed;  // null without dropout
  AttentionBatch batch;
  Element element;
  AttentionView<const void> q, k, v;  // strides in elements
  AttentionView<void> out;
  float* lse;
};

struct AttentionBackwardCall {
  AttentionShape shape;
  const int64_t* dropout_seed;
  AttentionBatch batch;
  Element element;
  bool deterministic;  // equal bits on repeat, whatever the order in which blocks run
  AttentionView<const void> q, k, v, out, dout;
  const float* lse;
  void* workspace;  // on 1024 bytes, anything in it
  AttentionView<void> dq, dk, dv;
};

void attention_mma_forward(const AttentionForwardCall& call, const DeviceContext& context);
void attention_mma_backward(const AttentionBackwardCall& call, const DeviceContext& context);
void attention_hopper_forward(const AttentionForwardCall& call, const DeviceContext& context);
void attention_hopper_backward(const AttentionBackwardCall& call, const DeviceContext& context);
void attention_general_forward(const AttentionForwardCall& call, const DeviceContext& context);
void attention_general_backward(const AttentionBackwardCall& call, const DeviceContext& context);

// Bytes of workspace that a backward call needs; its pointers are not looked at.
int64_t attention_mma_workspace(const AttentionBackwardCall& call, const DeviceContext& context);
int64_t attention_hopper_workspace(const AttentionBackwardCall& call, const DeviceContext& context);
int64_t attention_general_workspace(const AttentionBackwardCall& call, const DeviceContext& context);

}  // namespace igf

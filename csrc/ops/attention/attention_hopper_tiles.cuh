// Tiles of q, k, v, out and of their gradients as sm_90a moves and multiplies them: what both Hopper kernels share.
//
// A tile is kRows rows of one head, [rows, width] of 16-bit elements, in shared memory as panels of 64 columns: panel p
// holds columns 64 p to 64 p + 63 as kRows rows of 128 bytes, one panel behind the other. Widths 80 and 96 take two
// panels; what lies beyond the width is 0 after a load, and stays behind at a store. Pieces of 16 bytes are exchanged as
// Swizzle::k128 says, so that wgmma, ldmatrix and rows of threads meet no bank twice. A tile stands on 1024 bytes.
//
//   on the host      tile_map(): one tensor map a tensor and number of tile rows
//   one thread       mbarrier_arrive_expecting(full, Tile::kBytes); load_rows<Tile>(tile, map, owner, first, full)
//                    store_rows<Tile>(map, owner, first, tile); bulk_commit
//   as operands      k_major<Tile>(tile) + k_step<Tile>(s): the product sums over the width     (q k^T: both q and k)
//                    mn_major<Tile>(tile) + mn_step(s): the product sums over the tile's rows   (p v: v is B)
//   by threads       piece_offset<Tile>(row, column) of 16 bytes, zero_rows<Tile>
//   stages           arrive_as_warp(), meet_and_arrive(); Ring<kStages>: number and parity; the producer waits for `empty` with parity ^ 1
//
// Rows beyond a sequence. In a dense batch the sequence is a dimension of its own, so they arrive as 0 and are not
// stored. In a packed batch they are the next sequence's rows: wherever 0 * NaN could enter a sum, zero_rows() must
// overwrite them after they arrived; and they must not be stored by store_rows().
// Source: CUDA driver API, cuTensorMapEncodeTiled; PTX ISA 9.0, "Shared Memory Matrix Layout", "Strides".
#pragma once

#include "device/memory.cuh"
#include "device/ptx_barriers.cuh"
#include "device/ptx_bulk.cuh"
#include "device/ptx_wgmma.cuh"
#include "device/tensor_map.cuh"
#include "ops/attention/attention_cuda.h"

namespace igf::attention {

using device::Swizzle;
using device::TensorMap;

constexpr int kPanelColumns = 64;     // elements of 16 bits in the 128 bytes of a swizzled row
constexpr int kPanelRow = 128;        // bytes
constexpr int kSwizzleBlock = 1024;   // bytes of the 8 rows after which the swizzle repeats

template <int kTileRows, int kTileWidth>
struct Tile {
  static_assert(kTileRows % 8 == 0 && kTileRows <= 256 && kTileWidth % 16 == 0);
  static constexpr int kRows = kTileRows;
  static constexpr int kWidth = kTileWidth;
  static constexpr int kPanels = (kWidth + kPanelColumns - 1) / kPanelColumns;
  static constexpr int kPanelBytes = kRows * kPanelRow;
  static constexpr int kBytes = kPanels * kPanelBytes;  // what a load brings, zeros outside of the tensor too
};

// Whose rows a tile holds, as coordinates: row i of the sequence is (., head, begin + i, sequence) of the map.
struct TileOwner {
  int head;
  int begin;
  int sequence;
};

// Rows of a head of sequence number `sequence`, which begins at row `begin` of all.
IGF_DEVICE TileOwner tile_owner(const AttentionBatch& batch, int head, int64_t begin, int sequence) {
  if (batch.cu_seqlens != nullptr) return {head, static_cast<int>(begin), 0};
  return {head, 0, sequence};
}

// The map of a [rows, heads, width] tensor for tiles of `tile_rows` rows; `rows` and `length` are q's or k's of the
// batch and above 0. Strides of dimensions with one index are not used by anyone, so whatever they are they pass.
inline TensorMap tile_map(const char* name, const AttentionBatch& batch, Element element,
                          const AttentionView<const void>& view, int64_t heads, int64_t width, int64_t rows,
                          int64_t length, int tile_rows) {
  const int64_t bytes = static_cast<int64_t>(element_bytes(element));
  const auto stride = [&](int64_t count, int64_t elements) { return (count > 1 ? elements : width) * bytes; };
  const bool packed = batch.cu_seqlens != nullptr;  // one long sequence, as far as the map knows
  const int64_t sequences = packed ? 1 : batch.sequences, count = packed ? rows : length;
  return device::tensor_map(name, {element, view.data, 4, {width, heads, count, sequences},
                                   {0, stride(heads, view.head_stride), stride(count, view.row_stride),
                                    stride(sequences, length * view.row_stride)},
                                   {kPanelColumns, 1, tile_rows, 1}, Swizzle::k128});
}

// Brings rows [first, first + kRows) of the owner's sequence; Tile::kBytes arrive at `full`. By one thread.
template <typename Tile>
IGF_DEVICE void load_rows(unsigned char* tile, const TensorMap& map, const TileOwner& owner, int first,
                          uint64_t* full IGF_SITE_PARAMETER) {
#pragma unroll
  for (int panel = 0; panel < Tile::kPanels; ++panel) {
    unsigned char* const to = tile + panel * Tile::kPanelBytes;
    const int at[4] = {panel * kPanelColumns, owner.head, owner.begin + first, owner.sequence};
    device::ptx::load_tile<4>(to, map, at, full IGF_SITE);
  }
}

// Stores a tile to rows [first, first + kRows): in a packed batch only where all of them are the sequence's own. By one
// thread, after proxy_fence_shared of those who wrote the tile and a barrier; the caller commits and waits.
template <typename Tile>
IGF_DEVICE void store_rows(const TensorMap& map, const TileOwner& owner, int first,
                           const unsigned char* tile IGF_SITE_PARAMETER) {
#pragma unroll
  for (int panel = 0; panel < Tile::kPanels; ++panel) {
    const unsigned char* const from = tile + panel * Tile::kPanelBytes;
    const int at[4] = {panel * kPanelColumns, owner.head, owner.begin + first, owner.sequence};
    device::ptx::store_tile<4>(map, at, from IGF_SITE);
  }
}

// Where in a tile the 16 bytes lie that begin with element (row, column), column a multiple of 8.
template <typename Tile>
IGF_DEVICE int piece_offset(int row, int column) {
  const int piece = column % kPanelColumns / 8;  // [0, 8)
  return column / kPanelColumns * Tile::kPanelBytes + row * kPanelRow + ((piece ^ (row % 8)) << 4);
}

// Rows [first, kRows) become 0, by `threads` threads of which the caller is number `thread`. Whoever multiplies them
// must be told by a barrier that follows: the fence to the async proxy is made here.
template <typename Tile>
IGF_DEVICE void zero_rows(unsigned char* tile, int first, int thread, int threads IGF_SITE_PARAMETER) {
  using Piece = device::Vector<uint32_t, 4>;
#pragma unroll
  for (int panel = 0; panel < Tile::kPanels; ++panel) {
    Piece* const pieces = reinterpret_cast<Piece*>(tile + panel * Tile::kPanelBytes + first * kPanelRow);
    for (int i = thread; i < (Tile::kRows - first) * (kPanelRow / 16); i += threads) {  // whole rows: in any order
      device::store(pieces + i, Piece{{0, 0, 0, 0}} IGF_SITE);
    }
  }
  device::ptx::proxy_fence_shared(IGF_ONLY_SITE);
}

// The tile as an operand whose rows are M or N, the product summing over the width; from row `first`, a multiple of 8.
// Step s, [0, width / 16), stands k_step(s) bytes further on.
template <typename Tile>
IGF_DEVICE uint64_t k_major(const unsigned char* tile, int first = 0 IGF_SITE_PARAMETER) {
  return device::ptx::wgmma_tile(tile + first * kPanelRow, 0, kSwizzleBlock, Swizzle::k128 IGF_SITE);
}
template <typename Tile>
IGF_DEVICE int k_step(int s) {
  return s / 4 * Tile::kPanelBytes + s % 4 * 32;
}

// The tile as an operand whose columns are M or N, from column 64 `panel` on, the product summing over its rows.
// Step s, rows [16 s, 16 s + 16), stands mn_step(s) bytes further on. Say kTransposeA or kTransposeB to wgmma.
template <typename Tile>
IGF_DEVICE uint64_t mn_major(const unsigned char* tile, int panel = 0 IGF_SITE_PARAMETER) {
  return device::ptx::wgmma_tile(tile + panel * Tile::kPanelBytes, Tile::kPanelBytes, kSwizzleBlock,
                                 Swizzle::k128 IGF_SITE);
}
IGF_DEVICE int mn_step(int s) { return s * 2 * kSwizzleBlock; }

// A place in a ring of stages, and the parity of the phase that its barriers are in on this round.
template <int kStages>
struct Ring {
  int stage = 0;   // [0, kStages)
  int parity = 0;
  IGF_DEVICE void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// One arrival a warp: where its lanes have just met (as they do in wgmma_wait), and where they have not, so that what
// each of them did before comes first.
IGF_DEVICE void arrive_as_warp(uint64_t* barrier IGF_SITE_PARAMETER) {
  if (device::lane_index() == 0) device::ptx::mbarrier_arrive(barrier IGF_SITE);
}
IGF_DEVICE void meet_and_arrive(uint64_t* barrier IGF_SITE_PARAMETER) {
  device::warp_barrier(device::kAllLanes IGF_SITE);
  arrive_as_warp(barrier IGF_SITE);
}

}  // namespace igf::attention

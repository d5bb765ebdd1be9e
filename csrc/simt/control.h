// The emulator as Python drives it: plain C functions, called through ctypes by instructgpt_fast/simt/_library.py.
//
// Text that is returned stays valid until the next call of the same function.
#pragma once

#include <cstddef>
#include <cstdint>

#define IGF_SIMT_EXPORT extern "C" __attribute__((visibility("default")))

// Sets how kernels run: lines "name=value", for the names see control.cpp; what is not named has its default.
IGF_SIMT_EXPORT void igf_simt_begin(const char* lines);
// Observes and breaks nothing from here on.
IGF_SIMT_EXPORT void igf_simt_end();

IGF_SIMT_EXPORT void igf_simt_op_begins();
IGF_SIMT_EXPORT void igf_simt_name_buffer(const void* begin, size_t bytes, const char* name);
IGF_SIMT_EXPORT void igf_simt_op_ends();

// JSON: the accounts of the launches since the last call; the places that can be broken.
IGF_SIMT_EXPORT const char* igf_simt_take_launches();
IGF_SIMT_EXPORT const char* igf_simt_sites();
// Whether a launch has failed since igf_simt_op_begins.
IGF_SIMT_EXPORT int igf_simt_launch_failed();
// "csrc/ops/x/x_cuda.cu:57" of a raw access. Slow: it runs addr2line.
IGF_SIMT_EXPORT const char* igf_simt_describe(uint64_t program_counter);
IGF_SIMT_EXPORT uint64_t igf_simt_mutation_applied();

// ldmatrix, stmatrix, mma: the lanes bring their parts and meet; the first to go on computes for all, at once, as a GPU
// does, so that what a lane does next cannot change what another lane gets.
#include <cstring>

#include "simt/access.h"
#include "simt/fault.h"
#include "simt/ptx_words.h"
#include "simt/register_watch.h"
#include "simt/sync.h"

namespace igf::simt {
namespace {

constexpr uint32_t kRowBytes = 16;
constexpr int kRowsOfMatrix = 8;

MatrixWords& words_of_warp() {
  Warp& warp = turn.thread->block->warps[static_cast<size_t>(speaker().warp)];
  if (warp.matrices == nullptr) warp.matrices = std::make_shared<MatrixWords>();
  return *warp.matrices;
}

// The place where this visit's parts are put together.
struct Visit {
  uint64_t number;
  MatrixWord& word;
};

Visit next_visit() {
  MatrixWords& all = words_of_warp();
  const uint64_t number = ++all.visits[speaker().lane];
  return {number, all.words[number % 2]};
}

// Meets the lanes; each names the form of the instruction, which must be one for all. True in the lane that is to
// compute.
bool meet_for(Word word, uint64_t form, Visit& visit, Site site) {
  LaneValues forms;
  warp_exchange(word, form, forms, site);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (forms.of[lane] == form) continue;
    Fault fault;
    fault.rule = "the lanes of a warp say different forms of one matrix word";
    fault.steps.push_back({name_of(speaker()) + " says " + name_of(word) + " otherwise than lane " + std::to_string(lane),
                           where_of(site)});
    fault.advice = "all lanes must say the same number of matrices, transposition and type";
    fail(std::move(fault));
  }
  if (visit.word.done == visit.number) return false;
  visit.word.done = visit.number;
  return true;
}

// Checks a lane's row and returns its address, 0 where the word is dropped.
uintptr_t checked_row(uintptr_t row, Word word, Site site, bool writes) {
  const bool aligned = row % kRowBytes == 0;
  const bool shared = row - turn.shared_low < turn.shared_bytes;
  if (aligned && shared) return checked_access(row, kRowBytes, word, site, writes);
  Fault fault;
  fault.rule = aligned ? "a matrix row outside of shared memory"
                       : "misaligned matrix row: " + std::to_string(row % kRowBytes) + " bytes past a multiple of 16";
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  fault.advice = "each lane points to 16 aligned bytes of shared memory: row lane % 8 of matrix lane / 8";
  fail(std::move(fault));
}

uint64_t form_of(int matrices, bool transposed) { return static_cast<uint64_t>(matrices) * 2 + (transposed ? 1 : 0); }

}  // namespace

void load_matrix(uint32_t* registers, int matrices, bool transposed, const void* row, Site site) {
  const int lane = speaker().lane;
  Visit visit = next_visit();
  if (lane < kRowsOfMatrix * matrices) {
    visit.word.rows[lane] = checked_row(reinterpret_cast<uintptr_t>(row), Word::kLoadMatrix, site, false);
  }
  if (meet_for(Word::kLoadMatrix, form_of(matrices, transposed), visit, site)) {
    for (int m = 0; m < matrices; ++m) {
      uint16_t matrix[8][8] = {};
      for (int r = 0; r < kRowsOfMatrix; ++r) {
        const uintptr_t from = visit.word.rows[kRowsOfMatrix * m + r];
        if (from != 0) std::memcpy(matrix[r], reinterpret_cast<const void*>(from), kRowBytes);
      }
      matrix_to_registers(matrix, transposed, visit.word.registers[m]);
    }
  }
  for (int m = 0; m < matrices; ++m) registers[m] = visit.word.registers[m][lane];
  heard_word(registers, static_cast<size_t>(matrices) * sizeof *registers, site);
}

void store_matrix(void* row, const uint32_t* registers, int matrices, bool transposed, Site site) {
  const int lane = speaker().lane;
  Visit visit = next_visit();
  if (lane < kRowsOfMatrix * matrices) {
    visit.word.rows[lane] = checked_row(reinterpret_cast<uintptr_t>(row), Word::kStoreMatrix, site, true);
  }
  for (int m = 0; m < matrices; ++m) visit.word.registers[m][lane] = registers[m];
  if (!meet_for(Word::kStoreMatrix, form_of(matrices, transposed), visit, site)) return;
  for (int m = 0; m < matrices; ++m) {
    uint16_t matrix[8][8];
    registers_to_matrix(visit.word.registers[m], transposed, matrix);
    for (int r = 0; r < kRowsOfMatrix; ++r) {
      const uintptr_t to = visit.word.rows[kRowsOfMatrix * m + r];
      if (to != 0) std::memcpy(reinterpret_cast<void*>(to), matrix[r], kRowBytes);
    }
  }
}

void multiply_matrix(MmaInput input, float* sums, const uint32_t* a, const uint32_t* b, Site site) {
  if (say(Word::kMultiplyMatrix, site)) return;
  const int lane = speaker().lane;
  Visit visit = next_visit();
  MmaOperands& operands = visit.word.operands;
  std::memcpy(operands.a[lane], a, sizeof operands.a[lane]);
  std::memcpy(operands.b[lane], b, sizeof operands.b[lane]);
  std::memcpy(operands.sums[lane], sums, sizeof operands.sums[lane]);
  if (meet_for(Word::kMultiplyMatrix, static_cast<uint64_t>(input), visit, site)) mma_m16n8k16(input, operands);
  std::memcpy(sums, operands.sums[lane], sizeof operands.sums[lane]);
  heard_word(sums, sizeof operands.sums[lane], site);
}

void prefetch(Site site) { say(Word::kPrefetch, site); }

}  // namespace igf::simt

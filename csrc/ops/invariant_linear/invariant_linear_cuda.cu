// invariant_linear on CUDA devices: one launch, whose order of sums hangs on the number of inputs alone.
//
// Work     16-bit elements in whole vectors of 16 bytes: tensor cores (invariant_linear_mma.cuh), a block of eight
//          warps for a tile of rows and outputs. All others: CUDA cores (invariant_linear_general.cuh). Inputs are cut
//          among lanes and warps of a block, never among blocks: no scratch, no second launch, no count of arrivals,
//          and nothing that waits for the host, so a call can be captured.
// Memory   bytes: the weight once for each tile of rows, x once for each tile of outputs (on CUDA cores for each four
//          outputs), of which all but the first come from the second-level cache; the bias at most four times a tile
//          of rows; y once.
// Bound    memory. Weight at 4.8 TB/s (H200) that takes 0.8 us from asking to having wants 3.8 MB under way: 29 KB on
//          each of 132 multiprocessors, 38 KB on each of 100; the table at the tiles says what there is. The 1600
//          outputs of GPT-2 XL are 100 blocks of 16, which ask for 48 of their 51 KB of weight at once. Reads of x come
//          beside the weight's through the second-level cache, which gives not much more than memory does: from 32
//          rows on, where they are half as many or more, it is what bounds. f32 is bound by its products from about
//          16 rows on. Not measured.
// Numbers  products and sums in f32, one rounding to y's type. A tensor core rounds the sums of its 16 inputs in its
//          own way, the same at every place of a tile (python_tests/gpu/test_invariant_rows.py, on a GPU).
// Limits   16-bit rows that are whole vectors must stand on 16 bytes; invariant_linear_cuda_op.cpp sees to it. Other
//          16-bit rows are read element by element, 2 bytes a lane.
// Source   the equation in invariant_linear.h.
#include "device/launch.cuh"
#include "ops/invariant_linear/invariant_linear_general.cuh"
#include "ops/invariant_linear/invariant_linear_mma.cuh"

namespace igf {
namespace {

using namespace linear;

// Tiles that fit into what a block may have: 99 KB of shared memory on sm_86, sm_89 and sm_120 for all but the last.
// Once the ring turns, all stages but one are under way. Two blocks share a multiprocessor of sm_90 and sm_100, but for
// the last. Reads of x are rows / outputs of the weight's, as far as the rows are there. Smaller steps leave room for
// more stages, larger ones take fewer instructions for a byte: the first tile has the most bytes of weight to ask for.
//
//   rows  outputs  step  stages  shared   under way: weight  x
//     8       16     64     4     96 KB              48 KB  24 KB
//    16       32     32     4     96 KB              48 KB  24 KB
//    32       32     32     3     96 KB              32 KB  32 KB
//    32       64     32     2     96 KB              32 KB  16 KB
//    64       64     32     2    128 KB              32 KB  32 KB
using Rows8 = Tile<8, 16, 64, 4, 2>;
using Rows16 = Tile<16, 32, 32, 4, 2>;
using Rows32 = Tile<32, 32, 32, 3, 2>;
using Rows32Wide = Tile<32, 64, 32, 2, 2>;
using Rows64 = Tile<64, 64, 32, 2, 1>;

template <typename Shape>
int64_t row_tiles(const InvariantLinear& a) {
  return ceil_div(a.rows, Shape::kRows);
}

template <typename Shape>
int64_t blocks_of(const InvariantLinear& a) {
  return row_tiles<Shape>(a) * ceil_div(a.outputs, Shape::kOutputs);
}

template <typename T, typename Shape>
void start_mma(const InvariantLinear& a, const DeviceContext& context) {
  const LaunchShape shape{blocks_of<Shape>(a), 1, kMmaThreads, 1, Shape::kBytes};
  launch("invariant_linear_mma", &invariant_linear_mma<T, Shape>, shape, context, a,
         static_cast<uint32_t>(row_tiles<Shape>(a)));
}

// Shared memory of a block, less than what Rows64 takes.
constexpr int64_t kSmallShared = 99 << 10;
bool has_small_shared(int architecture) { return architecture == 86 || architecture == 89 || architecture == 120; }

// A tile is for calls with more rows than the next smaller one has, where it gives a third of the multiprocessors work:
// that many draw on memory about as fast as all of them.
template <typename Shape>
bool suits(const InvariantLinear& a, int64_t least_rows, const DeviceContext& context) {
  return a.rows >= least_rows && 3 * blocks_of<Shape>(a) >= context.multiprocessors &&
         (Shape::kBytes < kSmallShared || !has_small_shared(context.architecture));
}

template <typename T>
void choose_tile(const InvariantLinear& a, const DeviceContext& context) {
  if (suits<Rows64>(a, 33, context)) return start_mma<T, Rows64>(a, context);
  if (suits<Rows32Wide>(a, 17, context)) return start_mma<T, Rows32Wide>(a, context);
  if (suits<Rows32>(a, 17, context)) return start_mma<T, Rows32>(a, context);
  // Blocks of 32 outputs read half as much of x as blocks of 16: of three rows on it pays where all have work.
  const bool spreads = a.rows > 2 && blocks_of<Rows16>(a) >= context.multiprocessors;
  if (spreads || suits<Rows16>(a, 9, context)) return start_mma<T, Rows16>(a, context);
  start_mma<T, Rows8>(a, context);
}

template <typename T, int kRows, bool kVectors>
void start_general(const InvariantLinear& a, const DeviceContext& context) {
  const int64_t tiles = ceil_div(a.rows, kRows);
  const LaunchShape shape{tiles * ceil_div(a.outputs, kGeneralOutputs), 1, kGeneralThreads, 1};
  launch("invariant_linear_general", &invariant_linear_general<T, kRows, kVectors>, shape, context, a,
         static_cast<uint32_t>(tiles));
}

bool in_vectors(const InvariantLinear& a) {
  const int64_t lanes = 16 / static_cast<int64_t>(element_bytes(a.element));
  return a.inputs % lanes == 0 && stands_on(a.x, 16) && stands_on(a.weight, 16);
}

template <typename T>
void choose(const InvariantLinear& a, const DeviceContext& context) {
  if constexpr (sizeof(T) == 2) {
    if (in_vectors(a)) return choose_tile<T>(a, context);
  } else if (in_vectors(a)) {
    return a.rows == 1 ? start_general<T, 1, true>(a, context) : start_general<T, 8, true>(a, context);
  }
  start_general<T, 8, false>(a, context);
}

}  // namespace

void invariant_linear_cuda(const InvariantLinear& a, const DeviceContext& context) {
  if (a.rows == 0 || a.outputs == 0) return;
  switch (a.element) {
    case Element::kFloat: return choose<float>(a, context);
    case Element::kBfloat16: return choose<device::bfloat16>(a, context);
    case Element::kHalf: return choose<device::half>(a, context);
  }
}

}  // namespace igf

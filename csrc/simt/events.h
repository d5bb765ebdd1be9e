// What the emulator's core tells its observers, and what it asks them: the narrow interface between the core
// (fibers, scheduler, checks) and those who count traffic (accounting.*) or inject faults (mutation.*).
//
// The core calls Observer and Mutator; they never call the core but for the facts below. All calls come from the one OS
// thread that runs the launch, on a fiber's small stack: no recursion, no large locals, no exceptions, no call back
// into device words. A null observer or mutator costs one comparison.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt/site.h"

namespace igf::simt {

struct Buffer;  // buffers.h

// Everything a kernel can say that the emulator hears. Names as kernels write them: name_of(Word::kLoad) is "load".
enum class Word : uint8_t {
  kRawRead,   // a plain C++ access, heard through the compiler's instrumentation; its site is known only after a fault
  kRawWrite,
  kLoad,
  kLoadOnce,
  kLoadSharedByBlocks,
  kStore,
  kStoreOnce,
  kAtomicAdd,
  kAtomicMax,
  kAtomicMin,
  kAtomicExchange,
  kAtomicOr,
  kBlockBarrier,
  kBlockBarrierOr,
  kBlockBarrierCount,
  kWarpBarrier,
  kShuffle,
  kShuffleXor,
  kShuffleUp,
  kShuffleDown,
  kBallot,
  kAnyLane,
  kAllLanes,
  kMatchLanes,
  kBlockFence,
  kDeviceFence,
  kLetOthersRun,
  kTrap,
  kCopyAsync,
  kCopyCommit,
  kCopyWait,
  kLoadMatrix,
  kStoreMatrix,
  kMultiplyMatrix,
  kNamedBarrierSync,
  kNamedBarrierArrive,
  kLoadAcquire,
  kStoreRelease,
  kAddAcquireRelease,
  kAddRelease,
  kPrefetch,
  kWgmmaTile,
  kWgmmaFence,
  kWgmma,
  kWgmmaCommit,
  kWgmmaWait,
  kMbarrierInit,
  kMbarrierInitFence,
  kMbarrierArrive,
  kMbarrierArriveExpecting,
  kMbarrierWait,
  kProxyFenceShared,
  kProxyFenceGlobal,
  kReleaseRegisters,
  kClaimRegisters,
  kPrefetchTensorMap,
  kLoadTile,
  kStoreTile,
  kAddTile,
  kBulkLoad,
  kBulkAdd,
  kBulkCommit,
  kBulkWait,
  kBulkWaitRead,
  kAddFour,
  kCount
};

const char* name_of(Word word);

enum class Space : uint8_t { kGlobal, kShared };

// The CUDA thread that speaks. Reached anywhere in the emulator by `speaker()`, core.h.
struct Who {
  int64_t block_x;
  int64_t block_y;
  int64_t block;  // block_y * blocks_x + block_x
  int thread;     // in its block: thread_y * threads_x + thread_x
  int warp;       // thread / 32
  int lane;       // thread % 32
};

// One access of one thread, by a word or raw (raw ones to global and to shared memory, not those to a thread's own stack).
struct Access {
  Word word;
  Space space;
  uintptr_t address;
  uint32_t bytes;
  Site site;             // {nullptr, 0} for raw accesses
  const Buffer* buffer;  // null in shared memory
  uintptr_t pc = 0;      // of raw accesses: where the instrumentation was called from
};

struct LaunchFacts {
  const char* kernel;
  int thread_bound;  // threads of a block by the kernel's IGF_KERNEL; 0: it has none
  int64_t blocks_x;
  int64_t blocks_y;
  int threads_x;
  int threads_y;
  int64_t dynamic_shared_bytes;
  int64_t static_shared_bytes;  // known when the launch ends
};

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void launch_begins(const LaunchFacts& launch) = 0;
  // After the access has passed all checks, before the next instruction of that thread.
  virtual void accessed(const Who& who, const Access& access) = 0;
  // A run of bytes in global memory that a copy engine moves for the thread: no access of a warp.
  virtual void moved(const Who& who, const Access& access) = 0;
  // Every other word, as the thread says it (before it waits); not called for words that the mutator dropped.
  virtual void said(const Who& who, Word word, Site site) = 0;
  // `fault` is null after a clean run.
  virtual void launch_ends(const LaunchFacts& launch, const char* fault) = 0;
};

// Asked before a word takes effect. `dropped`: the word does nothing (a load reads nothing and gives zero bits, an atomic
// gives zero; a barrier, fence or wait does not wait). Shuffles are asked by source_lane instead.
class Mutator {
 public:
  virtual ~Mutator() = default;
  virtual bool dropped(const Who& who, Word word, Site site) = 0;
  // The address that a load or store is moved to (by one element, inside its buffer); `address` itself for none.
  virtual uintptr_t address(const Who& who, const Access& access) = 0;
  // A number that the word is given (an mbarrier's parity, announced bytes, a tile's first row, the stride of wgmma_tile);
  // `value` for none.
  virtual int operand(const Who& who, Word word, Site site, int value) = 0;
  // The lane a shuffle takes its value from; `source` itself for none. Only lanes of `lanes` may be named.
  virtual int source_lane(const Who& who, Word word, Site site, int source, uint32_t lanes) = 0;
};

// Set between launches; null for none. Not owned.
void set_observer(Observer* observer);
void set_mutator(Mutator* mutator);

}  // namespace igf::simt

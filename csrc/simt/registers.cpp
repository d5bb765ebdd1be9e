// setmaxnreg: how many registers a warp's threads have. The emulator has no registers; it keeps the count.
#include "simt/async_words.h"
#include "simt/fault.h"
#include "simt/sync.h"

namespace igf::simt {

void set_registers(int registers, Word word, Site site) {
  if (say(word, site)) return;
  LaneValues said;
  warp_exchange(word, static_cast<uint64_t>(registers), said, site);
}

}  // namespace igf::simt

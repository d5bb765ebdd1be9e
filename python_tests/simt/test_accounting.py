"""Bytes, sectors and wavefronts of warp accesses, counted by csrc/simt/accounting.cpp, against what the rules give."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from python_tests.simt.probe import compiled

PROBE = """
#include "simt/accounting.h"
#include "simt/buffers.h"
using namespace igf::simt;
extern "C" {
void begins(int blocks, int threads) {
  accounting().launch_begins({"probe", 1024, blocks, 1, threads, 1, 0, 0});
}
void add_buffer(uintptr_t begin, size_t bytes, const char* name) {
  buffers().name(begin, bytes, name);
  buffers().add(begin, bytes, 4, false);
}
// word: 0 load, 1 store, 2 atomic_add
void lane_access(int block, int thread, int word, int shared, uintptr_t address, unsigned bytes, int line) {
  const Word words[] = {Word::kLoad, Word::kStore, Word::kAtomicAdd};
  const Who who{block, 0, block, thread, thread / 32, thread % 32};
  const int index = buffers().find(address);
  const Buffer* buffer = shared != 0 ? nullptr : &buffers().all()[static_cast<size_t>(index)];
  accounting().accessed(who, {words[word], shared != 0 ? Space::kShared : Space::kGlobal, address, bytes,
                              {"here.cu", line}, buffer});
}
// Of one buffer and direction: bytes, unique bytes, sectors, ideal sectors; at the end wavefronts and ideal ones.
int ends(int fault, const char* name, int direction, uint64_t* out) {
  accounting().launch_ends({"probe", 1024, 1, 1, 32, 1, 0, 0}, fault != 0 ? "a fault" : nullptr);
  const auto launches = accounting().take();
  for (const LaunchAccount& launch : launches) {
    for (const BufferTraffic& buffer : launch.buffers) {
      if (buffer.name != name) continue;
      const Flow& flow = buffer.flows[static_cast<size_t>(direction)];
      out[0] = flow.bytes, out[1] = flow.unique_bytes, out[2] = flow.sectors, out[3] = flow.ideal_sectors;
    }
    out[4] = launch.wavefronts, out[5] = launch.ideal_wavefronts;
  }
  buffers().clear();
  return static_cast<int>(launches.size());
}
}
"""
LOAD, STORE, ATOMIC = 0, 1, 2
BASE = 1 << 20  # of the buffer "x"; a multiple of everything


@dataclass(frozen=True)
class Account:
    """What one launch moved from or to one buffer, and in shared memory."""

    bytes: int
    unique: int
    sectors: int
    ideal: int
    wavefronts: int
    ideal_wavefronts: int


class Probe:
    """A launch made of accesses, one by one."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.add_buffer.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_char_p]
        library.lane_access.argtypes = [*[ctypes.c_int] * 4, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int]

    def begin(self, blocks: int = 1, threads: int = 32) -> None:
        self.library.add_buffer(BASE, 1 << 16, b"x")
        self.library.add_buffer(BASE + (1 << 17), 1 << 16, b"y")
        self.library.begins(blocks, threads)

    def access(self, address: int, size: int, *, thread: int, block: int = 0, word: int = LOAD, shared: bool = False,
               line: int = 1) -> None:
        self.library.lane_access(block, thread, word, int(shared), address, size, line)

    def end(self, *, fault: bool = False, name: str = "x", direction: int = LOAD) -> Account | None:
        out = (ctypes.c_uint64 * 6)()
        launches = self.library.ends(int(fault), name.encode(), direction, out)
        return Account(*out) if launches else None

    def warp(self, addresses: Sequence[int], size: int, *, shared: bool = False) -> Account:
        """One access by the lanes of one warp, in an order that must not matter."""
        self.begin()
        for lane in random.Random(0).sample(range(len(addresses)), len(addresses)):
            self.access(addresses[lane], size, thread=lane, shared=shared)
        account = self.end()
        assert account is not None
        return account


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(compiled(tmp_path_factory.mktemp("accounting"), PROBE, "accounting", "buffers"))


@pytest.mark.parametrize("what, addresses, size, expected", [
    ("neighbours", [BASE + 4 * i for i in range(32)], 4, (128, 128, 4, 4)),
    ("neighbours, off by one", [BASE + 4 + 4 * i for i in range(32)], 4, (128, 128, 5, 4)),
    ("every second", [BASE + 8 * i for i in range(32)], 4, (128, 128, 8, 4)),
    ("a sector each", [BASE + 32 * i for i in range(32)], 4, (128, 128, 32, 4)),
    ("all the same", [BASE + 64] * 32, 4, (4, 4, 1, 1)),
    ("backwards", [BASE + 4 * (31 - i) for i in range(32)], 4, (128, 128, 4, 4)),
    ("16 bytes each", [BASE + 16 * i for i in range(32)], 16, (512, 512, 16, 16)),
    ("two bytes each", [BASE + 2 * i for i in range(32)], 2, (64, 64, 2, 2)),
    ("one lane", [BASE + 4], 4, (4, 4, 1, 1)),
    ("seven lanes", [BASE + 4 * i for i in range(7)], 4, (28, 28, 1, 1)),
    ("overlapping", [BASE + 8 * (i // 2) for i in range(32)], 16, (136, 136, 5, 5)),
])
def test_global_memory(probe: Probe, what: str, addresses: list[int], size: int, expected: tuple[int, ...]) -> None:
    account = probe.warp(addresses, size)
    assert (account.bytes, account.unique, account.sectors, account.ideal) == expected, what


@pytest.mark.parametrize("what, addresses, size, expected", [
    ("neighbours", [4 * i for i in range(32)], 4, (1, 1)),
    ("every second", [8 * i for i in range(32)], 4, (2, 1)),
    ("a column of 32", [128 * i for i in range(32)], 4, (32, 1)),
    ("a column of 33", [132 * i for i in range(32)], 4, (1, 1)),
    ("all the same", [64] * 32, 4, (1, 1)),
    ("two words of one bank", [0] * 16 + [128] * 16, 4, (2, 1)),
    ("halves of words", [2 * i for i in range(32)], 2, (1, 1)),
    ("8 bytes each", [8 * i for i in range(32)], 8, (2, 2)),
    ("8 bytes every 16", [16 * i for i in range(32)], 8, (4, 2)),
    ("16 bytes each", [16 * i for i in range(32)], 16, (4, 4)),
    ("16 bytes in a column of 128", [128 * i for i in range(32)], 16, (32, 4)),
    ("16 bytes in a column of 144", [144 * i for i in range(32)], 16, (4, 4)),
    ("a quarter warp", [16 * i for i in range(8)], 16, (1, 1)),
])
def test_shared_memory(probe: Probe, what: str, addresses: list[int], size: int, expected: tuple[int, ...]) -> None:
    account = probe.warp([4096 + a for a in addresses], size, shared=True)
    assert (account.wavefronts, account.ideal_wavefronts) == expected, what


def test_any_access_counts_what_sets_count(probe: Probe) -> None:
    """Random accesses against the rules written with sets."""
    generator = random.Random(1)
    for _ in range(200):
        size = generator.choice([1, 2, 4, 8, 16])
        addresses = [BASE + size * generator.randrange(64) for _ in range(generator.randint(1, 32))]
        touched = {a + i for a in addresses for i in range(size)}
        account = probe.warp(addresses, size)
        assert account.bytes == account.unique == len(touched)
        assert account.sectors == len({byte // 32 for byte in touched})
        assert account.ideal == -(-len(touched) // 32)
        shared = probe.warp(addresses, size, shared=True)
        together = max(1, min(32, 128 // size))
        waves = 0
        for first in range(0, len(addresses), together):
            words = {(a + i) // 4 for a in addresses[first:first + together] for i in range(size)}
            waves += max(sum(word % 32 == bank for word in words) for bank in range(32))
        assert shared.wavefronts == waves


def test_turns_of_a_loop_are_paired(probe: Probe) -> None:
    """Lanes that run ahead do not mix their turns with those of lanes that come later."""
    probe.begin()
    for lane in range(32):  # each lane goes through all turns before the next lane begins
        for turn in range(5):
            probe.access(BASE + 128 * turn + 4 * lane, 4, thread=lane)
    assert probe.end() == Account(640, 640, 20, 20, 0, 0)


def test_a_lane_that_stays_away(probe: Probe) -> None:
    """Turns that some lanes do not take are settled when the launch ends."""
    probe.begin()
    for lane in range(32):
        for turn in range(3 if lane < 8 else 2):
            probe.access(BASE + 128 * turn + 4 * lane, 4, thread=lane)
    assert probe.end() == Account(288, 288, 9, 9, 0, 0)


def test_warps_blocks_lines_and_buffers_are_kept_apart(probe: Probe) -> None:
    probe.begin(blocks=2, threads=40)  # the second warp has eight lanes
    for block in range(2):
        for thread in range(40):
            probe.access(BASE + 4 * thread, 4, thread=thread, block=block, line=1)
            probe.access(BASE + (1 << 17) * (thread % 2), 4, thread=thread, block=block, line=2)
    # line 1: 128 + 32 bytes a block; line 2: lanes of even number read 4 bytes of x, the others 4 of y, warp by warp.
    assert probe.end(name="x") == Account(2 * (160 + 8), 160, 2 * (5 + 2), 2 * (5 + 2), 0, 0)
    probe.begin()
    probe.access(BASE, 4, thread=0, word=STORE)
    probe.access(BASE, 4, thread=1, word=ATOMIC)
    assert probe.end(direction=STORE) == Account(4, 4, 1, 1, 0, 0)


def test_a_faulty_launch_leaves_no_account(probe: Probe) -> None:
    probe.begin()
    probe.access(BASE, 4, thread=0)
    assert probe.end(fault=True) is None

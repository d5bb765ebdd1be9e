"""The buffers a kernel may touch, and the places where it can be broken: csrc/simt/buffers.cpp and mutation.cpp."""

from __future__ import annotations

import ctypes

import pytest

from python_tests.simt.probe import compiled

PROBE = """
#include "simt/buffers.h"
#include "simt/mutation.h"
#include <cstring>
using namespace igf::simt;
extern "C" {
void clear() { buffers().clear(); }
void name(uintptr_t begin, size_t bytes, const char* text) { buffers().name(begin, bytes, text); }
void name_copy(uintptr_t copy, size_t bytes, uintptr_t original) { buffers().name_copy(copy, bytes, original); }
void allocated(void* begin, size_t bytes, int fill) {
  buffers().allocated(reinterpret_cast<uintptr_t>(begin), bytes, fill != 0);
}
void add(uintptr_t begin, size_t bytes, size_t item, int read_only) {
  buffers().add(begin, bytes, item, read_only != 0);
}
// "name begin end item read_only" of the buffer that holds the address; "" for none.
const char* find(uintptr_t address) {
  static std::string text;
  const int index = buffers().find(address);
  if (index < 0) return "";
  const Buffer& b = buffers()[index];
  text = b.name + " " + std::to_string(b.begin) + " " + std::to_string(b.end) + " " + std::to_string(b.item_bytes) +
         (b.read_only ? " read-only" : " mutable");
  return text.c_str();
}
const char* nearest(uintptr_t address) {
  static std::string text;
  text = buffers().nearest(address);
  return text.c_str();
}

void choose(const char* kind, const char* place) { site_mutator().choose(mutation_called(kind), place); }
void record() { site_mutator().record(true); }
int dropped(int word, const char* file, int line) {
  return site_mutator().dropped({}, static_cast<Word>(word), {file, line}) ? 1 : 0;
}
uintptr_t moved(int word, uintptr_t address, unsigned bytes, int shared, const char* file, int line) {
  const Space space = shared != 0 ? Space::kShared : Space::kGlobal;
  return site_mutator().address({}, {static_cast<Word>(word), space, address, bytes, {file, line}, nullptr});
}
int operand(int word, int value, const char* file, int line) {
  return site_mutator().operand({}, static_cast<Word>(word), {file, line}, value);
}
int source(int lane, unsigned lanes, const char* file, int line) {
  return site_mutator().source_lane({}, Word::kShuffle, {file, line}, lane, lanes);
}
uint64_t applied() { return site_mutator().applied(); }
const char* sites() {
  static std::string text;
  text.clear();
  for (const auto& seen : site_mutator().sites()) {
    text += std::string(name_of(seen.kind)) + "@" + seen.place + "x" + std::to_string(seen.visits) + " ";
  }
  return text.c_str();
}
int word_count() { return static_cast<int>(Word::kCount); }
const char* drop_of_word(int word) { return name_of(drop_of(static_cast<Word>(word))); }
const char* shift_of_word(int word) { return name_of(shift_of(static_cast<Word>(word))); }
int words(const char* which) {
  if (std::strcmp(which, "load") == 0) return static_cast<int>(Word::kLoad);
  if (std::strcmp(which, "store") == 0) return static_cast<int>(Word::kStore);
  if (std::strcmp(which, "atomic") == 0) return static_cast<int>(Word::kAtomicAdd);
  if (std::strcmp(which, "mbarrier_wait") == 0) return static_cast<int>(Word::kMbarrierWait);
  if (std::strcmp(which, "mbarrier_arrive_expecting") == 0) return static_cast<int>(Word::kMbarrierArriveExpecting);
  if (std::strcmp(which, "load_tile") == 0) return static_cast<int>(Word::kLoadTile);
  return static_cast<int>(Word::kBlockBarrier);
}
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    loaded = compiled(tmp_path_factory.mktemp("buffers"), PROBE, "buffers", "mutation")
    size, text, number = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int
    for name, arguments, result in (
        ("name", [size, size, text], None), ("name_copy", [size, size, size], None),
        ("allocated", [ctypes.c_void_p, size, number], None), ("add", [size, size, size, number], None),
        ("find", [size], text), ("nearest", [size], text), ("sites", [], text),
        ("drop_of_word", [number], text), ("shift_of_word", [number], text),
        ("moved", [number, size, ctypes.c_uint, number, text, number], size),
        ("operand", [number, number, text, number], number),
        ("source", [number, ctypes.c_uint, text, number], number), ("applied", [], ctypes.c_uint64),
    ):
        getattr(loaded, name).argtypes, getattr(loaded, name).restype = arguments, result
    return loaded


@pytest.fixture(autouse=True)
def _from_nothing(library: ctypes.CDLL) -> None:
    library.clear()
    library.choose(b"none", b"")


def test_bounds_are_exact(library: ctypes.CDLL) -> None:
    library.name(1000, 100, b"x")
    library.add(1000, 100, 4, 1)
    library.add(2000, 10, 2, 0)
    assert library.find(999) == library.find(1100) == library.find(1999) == library.find(2010) == b""
    assert library.find(1000) == library.find(1099) == b"x 1000 1100 4 read-only"
    assert library.find(2009) == b"unnamed 0 2000 2010 2 mutable"
    assert library.nearest(1107) == b"element 26, 7 bytes past the end, after the last of x [25 x 4 bytes]"
    assert library.nearest(1998) == b"2 bytes before the first of unnamed 0 [5 x 2 bytes]"
    library.clear()
    assert library.find(1000) == b""
    assert library.nearest(1000) == b"no buffer was given to the kernel"


def test_memory_handed_out_twice_is_writable_when_one_of_them_is(library: ctypes.CDLL) -> None:
    library.name(1000, 100, b"param")
    library.add(1000, 100, 4, 1)
    library.add(1000, 100, 4, 0)
    assert library.find(1050) == b"param 1000 1100 4 mutable"
    for _ in range(2):
        library.add(3000, 100, 4, 1)
    assert library.find(3050) == b"unnamed 0 3000 3100 4 read-only"


def test_columns_of_one_matrix_are_one_buffer(library: ctypes.CDLL) -> None:
    for name, begin in ((b"q", 1000), (b"k", 1016), (b"v", 1032)):
        library.name(begin, 200, name)
        library.add(begin, 200, 4, 1)
    assert library.find(1000).endswith(b"1000 1232 4 read-only")
    assert library.find(1231) == library.find(1000)


def test_allocations_are_filled_and_forget_what_was_freed(library: ctypes.CDLL) -> None:
    memory = ctypes.create_string_buffer(b"a" * 63, 64)
    address = ctypes.addressof(memory)
    library.allocated(address, 64, 1)
    assert memory.raw == b"\xff" * 64
    library.add(address, 64, 4, 0)
    assert library.find(address).startswith(b"new 0 ")
    library.allocated(address + 32, 16, 0)  # the allocator gave a part of the freed memory again
    assert library.find(address) == b""
    library.add(address + 32, 16, 4, 0)
    assert library.find(address + 32).startswith(b"new 1 ")


def test_a_dense_copy_takes_the_name_of_what_it_copies(library: ctypes.CDLL) -> None:
    library.name(1000, 200, b"x")
    library.name_copy(5000, 100, 1000)
    library.add(5000, 100, 4, 1)
    assert library.find(5000) == b"x 5000 5100 4 read-only"
    library.allocated(ctypes.addressof(ctypes.create_string_buffer(8)), 0, 1)  # nothing


def test_every_word_has_its_mutations_or_none(library: ctypes.CDLL) -> None:
    drops = [library.drop_of_word(word) for word in range(library.word_count())]
    shifts = [library.shift_of_word(word) for word in range(library.word_count())]
    counted = (b"drop_barrier", b"drop_fence", b"drop_atomic", b"drop_store", b"drop_arrive")
    assert [drops.count(kind) for kind in counted] == [5, 6, 10, 8, 2]
    assert [drops.count(kind) for kind in (b"drop_commit", b"drop_product")] == [1, 1]
    assert [shifts.count(kind) for kind in (b"shift_load", b"shift_store", b"shift_tile")] == [7, 7, 1]


def test_only_the_chosen_place_is_broken(library: ctypes.CDLL) -> None:
    barrier = library.words(b"barrier")
    library.choose(b"drop_barrier", b"reductions.cuh:57")
    assert library.dropped(barrier, b"csrc/device/reductions.cuh", 57) == 1
    assert library.dropped(barrier, b"csrc/device/reductions.cuh", 58) == 0
    assert library.dropped(barrier, b"csrc/device/other_reductions.cuh", 57) == 0
    assert library.dropped(library.words(b"store"), b"csrc/device/reductions.cuh", 57) == 0
    assert library.applied() == 1
    library.choose(b"none", b"")
    assert library.dropped(barrier, b"csrc/device/reductions.cuh", 57) == 0


def test_accesses_move_inside_their_buffer(library: ctypes.CDLL) -> None:
    load = library.words(b"load")
    library.add(1000, 64, 4, 1)
    library.choose(b"shift_load", b"a.cu:1")
    assert [library.moved(load, 1000 + at, 16, 0, b"a.cu", 1) for at in (0, 32, 48)] == [1016, 1048, 1032]
    assert library.moved(load, 1000, 4, 0, b"a.cu", 2) == 1000
    assert [library.moved(load, at, 4, 1, b"a.cu", 1) for at in (64, 68)] == [68, 64]
    assert library.applied() == 5
    library.clear()
    library.add(1000, 16, 4, 1)
    assert library.moved(load, 1000, 16, 0, b"a.cu", 1) == 1000, "a buffer of one element has no other"
    assert library.applied() == 5
    library.choose(b"shift_store", b"a.cu:1")
    assert library.moved(load, 1000, 4, 0, b"a.cu", 1) == 1000
    assert library.moved(library.words(b"store"), 1000, 4, 0, b"a.cu", 1) == 1004


def test_a_shuffle_goes_to_a_lane_that_takes_part(library: ctypes.CDLL) -> None:
    library.choose(b"shuffle_wrong_lane", b"a.cu:1")
    assert library.source(6, 0xFFFFFFFF, b"a.cu", 1) == 7
    assert library.source(6, 0b1001000000, b"a.cu", 1) == 9
    assert library.source(6, 0b1000000, b"a.cu", 1) == 6
    assert library.source(6, 0xFFFFFFFF, b"a.cu", 2) == 6
    assert library.applied() == 2


def test_a_word_is_given_another_number(library: ctypes.CDLL) -> None:
    words = (b"mbarrier_wait", b"mbarrier_arrive_expecting", b"load_tile")
    wait, expecting, tile = (library.words(word) for word in words)
    library.choose(b"wrong_parity", b"a.cu:1")
    assert [library.operand(wait, parity, b"a.cu", 1) for parity in (0, 1)] == [1, 0]
    assert library.operand(wait, 0, b"a.cu", 2) == library.operand(expecting, 0, b"a.cu", 1) == 0
    library.choose(b"wrong_bytes", b"a.cu:1")
    assert [library.operand(expecting, bytes_, b"a.cu", 1) for bytes_ in (1024, 0)] == [1008, 16]
    library.choose(b"shift_load", b"a.cu:1")
    assert library.operand(tile, -3, b"a.cu", 1) == -2
    assert library.operand(library.words(b"barrier"), 5, b"a.cu", 1) == 5
    assert library.applied() == 1


def test_places_are_collected(library: ctypes.CDLL) -> None:
    library.record()
    library.add(1000, 64, 4, 0)
    for _ in range(3):
        library.moved(library.words(b"store"), 1000, 4, 0, b"a.cu", 7)
    library.dropped(library.words(b"store"), b"a.cu", 7)
    library.dropped(library.words(b"atomic"), b"a.cu", 9)
    library.dropped(library.words(b"load"), b"a.cu", 3)  # loads are not dropped, they move
    assert set(library.sites().split()) == {b"shift_store@a.cu:7x3", b"drop_store@a.cu:7x1", b"drop_atomic@a.cu:9x1"}

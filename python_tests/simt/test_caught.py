"""Every rule of the emulator: kernels that break one are stopped under every schedule, their sound versions never are.

The kernels are in csrc/simt/selftest, built into libigf_simt.so beside those of the ops.
"""

from __future__ import annotations

import ctypes

import pytest

from instructgpt_fast import simt
from instructgpt_fast.simt import _library

SCHEDULES = [("forward", 0), ("reverse", 0), ("random", 1), ("random", 2), ("preempting", 1), ("preempting", 2)]
SCHEDULE_NUMBERS = {"forward": 0, "reverse": 1, "random": 2, "preempting": 3}

RACE = ["race between threads on ", "at csrc/simt/selftest/"]
BLOCK_RACE = ["race between blocks on ", "device_fence and an atomic on both sides"]
WARP_RACE = [*RACE, "warp_barrier between them (shuffles do not order memory)"]
MISALIGNED = ["misaligned access: 16 bytes at an address that is "]

# What the message of each broken kernel says, under every schedule.
CAUGHT = {
    "atomics_then_a_plain_read": [*RACE, "on bins[", "by an atomic"],
    "barrier_at_loop_end": [*RACE, "line[", "a block_barrier is missing"],
    "barrier_in_reduction": [*RACE, "parts[", "reads it at", "writes it at", "thread 0 (warp 0, lane 0) of block 0"],
    "block_fence_between_blocks": BLOCK_RACE,
    "blocks_read_what_others_write": [*BLOCK_RACE, "on out["],
    "blocks_write_the_same": [*BLOCK_RACE, "on out["],
    "count_with_acquire": BLOCK_RACE,
    "deadlock": ["deadlock", "threads 0-31 of block 0 wait for block_barrier at csrc/simt/selftest/block_cuda.cu:",
                 "threads 32-63 of block 0 wait for named_barrier_sync at"],
    "different_masks_meet": ["deadlock", "threads 0-7 of block 0 wait for ballot of lanes 0-15 at",
                             "threads 8-31 of block 0 wait for ballot of lanes 0-31 at", "with the same mask"],
    "different_words_meet": ["different words meet in one warp", "ballot", "shuffle"],
    "divergent_barrier": ["divergent barrier", "comes to block_barrier at"],
    "double_buffering": [*RACE, "lines["],
    "dynamic_shared_beyond_any_gpu": ["asks for 166912 bytes of dynamic shared memory", "the limit is 166912"],
    "dynamic_shared_forgotten": ["out of bounds of shared memory", "past the end of the dynamic block, of 0 bytes"],
    "dynamic_shared_too_small": ["4 bytes past the end of the dynamic block, of 252 bytes", "thread 63 "],
    "early_return": ["early return", "block_barrier at csrc/simt/selftest/block_cuda.cu:"],
    "fence_after_the_count": BLOCK_RACE,
    "fence_before_the_count": BLOCK_RACE,
    "flag_between_blocks": BLOCK_RACE,
    "flag_that_nobody_raises": ["no end in sight", "let_others_run at csrc/simt/selftest/blocks_cuda.cu:"],
    "function_that_is_no_kernel": ["no_kernel: not declared by IGF_KERNEL"],
    "global_variable": ["a global or static variable", "at csrc/simt/selftest/memory_cuda.cu:"],
    "lane_outside_its_own_mask": ["a lane is not among the lanes it names", "any_lane for lanes 0-15"],
    "lanes_that_do_not_exist": ["lanes that the block does not have", "(warp 1, lane "],
    "load_before_the_first": ["out of bounds of global memory", "before the first of in [1026 x 4 bytes]", "thread 0 "],
    "load_past_the_end": ["out of bounds of global memory", "element 1026, 0 bytes past the end",
                          "after the last of in [1026 x 4 bytes]", "thread 63 "],
    "local_variable_of_another_thread": ["a local variable of another thread"],
    "lock_in_shared_memory": [*RACE, "sum[0]"],
    "memcpy_past_the_end": ["1 bytes past the end of in", "reads 4105 bytes at csrc/simt/selftest/memory_cuda.cu:"],
    "misaligned_plain_read": ["misaligned access: 8 bytes at an address that is 4 past a multiple of 8"],
    "misaligned_vector": [*MISALIGNED, "4 past a multiple of 16", "says load at"],
    "misaligned_vector_in_shared": [*MISALIGNED, "8 past a multiple of 16"],
    "more_threads_than_declared": ["128 threads in a block", "IGF_KERNEL allows 96"],
    "named_barrier_mismatch": ["named barrier 1: ", "96", "64"],
    "named_barrier_orders": [*RACE, "values["],
    "no_blocks": ["the launch of 0 x 1 blocks", "not possible on any GPU"],
    "no_blocks_in_y": ["the launch of 1 x 0 blocks", "not possible on any GPU"],
    "no_threads": ["0 x 1 threads", "not possible on any GPU"],
    "object_past_the_end": ["past the end of out", "writes 64 bytes"],
    "plain_read_past_the_end": ["after the last of in", "thread 63 (warp 1, lane 31) of block 0 reads 4 bytes at"],
    "plain_write_past_the_end": ["after the last of out", "thread 63 (warp 1, lane 31) of block 0 writes 4 bytes at"],
    "release_and_acquire": BLOCK_RACE,
    "rows_by_a_counter": [*RACE, "taken[0]"],
    "shuffle_by_too_many_lanes": ["a shuffle by more lanes than a warp has", "by 32"],
    "shuffle_from_outside_the_mask": ["a shuffle takes a value from a lane outside its mask", "reads lane 20"],
    "shuffle_with_missing_lanes": ["missing lanes", "shuffle_xor for lanes 0-31"],
    "shuffles_do_not_order_memory": WARP_RACE,
    "static_and_dynamic_shared_together": ["184320 bytes of static arrays and dynamic block, the limit is 166912"],
    "static_shared_beyond_any_gpu": ["too much shared memory: 49168 bytes of static arrays, the limit is 49152"],
    "static_shared_past_the_end": ["4 bytes past the end of line, of 256 bytes", "thread 63 "],
    "the_word_for_the_last_block": BLOCK_RACE,
    "too_many_blocks_in_y": ["the launch of 1 x 65536 blocks", "not possible on any GPU"],
    "too_many_threads": ["1025 x 1 threads", "not possible on any GPU"],
    "too_many_threads_in_two_dimensions": ["32 x 33 threads", "not possible on any GPU"],
    "trap_ends_the_launch": ["the kernel ended itself by trap()", "thread 33 "],
    "vector_half_past_the_end": ["8 bytes past the end of in", "reads 16 bytes"],
    "warp_barrier_between_lanes": WARP_RACE,
    "warp_barrier_of_half_a_warp": WARP_RACE,
    "warp_word_without_a_lane": ["deadlock", "threads 0-8, 10-31 of block 0 wait for warp_barrier of lanes 0-31 at",
                                 "threads 9 of block 0 wait for block_barrier at"],
    "write_to_an_input": ["a write to in[0], which is read-only"],
}

SOUND_ONLY = [
    "answers_of_warp_words", "arrays_of_template_instances", "barriers_with_predicates", "blocks_take_turns",
    "masks_in_sequence", "results_of_atomics", "shared_memory_begins_as_nan", "two_dimensions",
]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    if not simt.available():
        pytest.skip("the emulator is not in this build: INSTRUCTGPT_FAST_SIMT=OFF")
    _library.emulator()
    loaded = ctypes.CDLL(str(_library.LIBRARY))
    loaded.igf_simt_selftest.argtypes = [ctypes.c_char_p, ctypes.c_int]
    loaded.igf_simt_selftest.restype = loaded.igf_simt_selftests.restype = ctypes.c_char_p
    return loaded


def run(library: ctypes.CDLL, name: str, broken: bool, schedule: str, seed: int, architecture: int = 80) -> str:
    """Runs one kernel and returns what was complained of, empty for nothing."""
    _library.emulator().begin({"schedule": SCHEDULE_NUMBERS[schedule], "seed": seed, "architecture": architecture})
    try:
        return str(library.igf_simt_selftest(name.encode(), int(broken)).decode())
    finally:
        _library.emulator().end()


def test_every_kernel_is_listed_here(library: ctypes.CDLL) -> None:
    lines = [line.split() for line in library.igf_simt_selftests().decode().splitlines()]
    assert [line[0] for line in lines if len(line) == 2] == sorted(CAUGHT)
    assert [line[0] for line in lines if len(line) == 1] == SOUND_ONLY


@pytest.mark.parametrize("name", CAUGHT)
def test_a_broken_rule_is_caught_under_every_schedule(library: ctypes.CDLL, name: str) -> None:
    for schedule, seed in SCHEDULES:
        message = run(library, name, True, schedule, seed)
        missing = [part for part in CAUGHT[name] if part not in message]
        assert not missing, f"{schedule} {seed} says {message!r} without {missing}"


@pytest.mark.parametrize("name", [*CAUGHT, *SOUND_ONLY])
def test_a_sound_kernel_runs_clean_under_every_schedule(library: ctypes.CDLL, name: str) -> None:
    for schedule, seed in SCHEDULES:
        assert run(library, name, False, schedule, seed) == "", f"{schedule} {seed}"


@pytest.mark.parametrize("architecture, most", [(80, 163), (86, 99), (89, 99), (90, 227), (100, 227), (120, 99)])
def test_shared_memory_ends_where_the_architecture_has_no_more(
    library: ctypes.CDLL, architecture: int, most: int
) -> None:
    for broken, wanted in ((False, 160), (True, 180)):
        message = run(library, "static_and_dynamic_shared_together", broken, "forward", 0, architecture)
        assert (message == "") == (wanted <= most)
        assert message == "" or f"the limit is {most << 10}" in message


@pytest.mark.parametrize("schedule", SCHEDULE_NUMBERS)
def test_a_seed_replays_a_fault_exactly(library: ctypes.CDLL, schedule: str) -> None:
    for name in ("barrier_at_loop_end", "blocks_read_what_others_write", "lock_in_shared_memory"):
        assert run(library, name, True, schedule, 7) == run(library, name, True, schedule, 7)


def test_seeds_give_different_orders(library: ctypes.CDLL) -> None:
    """The same race is met between other threads: the first one to be told of depends on the order."""
    messages = {run(library, "blocks_read_what_others_write", True, "preempting", seed) for seed in range(8)}
    assert len(messages) > 3


def test_a_fault_leaves_nothing_behind(library: ctypes.CDLL) -> None:
    """Threads that were abandoned in the middle of a kernel do not disturb the launches that follow."""
    for _ in range(50):
        for name in ("early_return", "deadlock", "barrier_at_loop_end"):
            assert run(library, name, True, "random", 3) != ""
            assert run(library, name, False, "random", 3) == ""

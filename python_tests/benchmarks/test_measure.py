"""What the benchmarks report is what was measured: order of runs, medians, ratios, peak memory, files."""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import measure
from benchmarks.op_benchmark import Case, Inputs, check, parse, poisoned_memory, run
from benchmarks.run import names

MEBIBYTE = 1 << 20


def test_contenders_take_turns_on_the_same_inputs() -> None:
    seen: list[tuple[str, int]] = []
    contenders = {name: (lambda i, name=name: seen.append((name, i))) for name in ("a", "b")}
    timings = measure.interleaved(contenders, [0, 1, 2], rounds=4, warmup=0)
    assert seen == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2), ("b", 0), ("a", 0)]
    assert [len(t.rounds_ms) for t in timings.values()] == [4, 4]


def test_statistics() -> None:
    fast, slow = measure.Timing((1.0, 2.0, 30.0)), measure.Timing((3.0, 8.0, 60.0))
    assert (fast.median_ms, fast.p10_ms, fast.p90_ms) == (2.0, 1.0, 30.0)
    # Round by round 3, 4 and 2: a disturbed last round does not decide.
    assert measure.ratio({"fast": fast, "slow": slow}, "slow", "fast") == 3.0


def test_peak_memory_sees_what_a_call_allocates_and_frees() -> None:
    def call() -> None:
        torch.ones(64 * MEBIBYTE, dtype=torch.uint8)

    peak = measure.peak_memory(call)
    if peak is None:
        pytest.skip("this system does not let a process reset its peak memory")
    # Whole pages are counted, and the allocator needs some of its own.
    assert 60 * MEBIBYTE < peak < 80 * MEBIBYTE
    nothing = measure.peak_memory(lambda: None)
    assert nothing is not None and nothing < 8 * MEBIBYTE


def test_results_are_readable_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    path = measure.write_results("some_op", "cpu", {"rows": [1, 2]})
    written = json.loads(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "cpu" / "some_op.json"
    assert written["rows"] == [1, 2] and written["torch"] == torch.__version__ and written["cores"] >= 1


def test_a_commit_is_dirty_by_code_and_not_by_what_was_recorded(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    code, recorded = tmp_path / "code.py", tmp_path / "benchmarks" / "results" / "cpu" / "some_op.json"
    recorded.parent.mkdir(parents=True)
    for path in (code, recorded):
        path.write_text("1", encoding="utf-8")
    git("init", "-q")
    assert measure._commit(tmp_path) is None
    git("add", ".")
    git("commit", "-q", "-m", "first")
    clean = measure._commit(tmp_path)
    assert clean is not None and len(clean) >= 7 and "dirty" not in clean
    recorded.write_text("2", encoding="utf-8")
    assert measure._commit(tmp_path) == clean
    code.write_text("2", encoding="utf-8")
    assert measure._commit(tmp_path) == f"{clean}-dirty"


def doubling(factor: float) -> Case:
    def ours(inputs: Inputs) -> Sequence[torch.Tensor]:
        return [inputs["x"] * factor]

    return Case(
        name="doubling",
        draw=lambda seed: {"x": torch.randn(100, generator=torch.Generator().manual_seed(seed))},
        ours=ours,
        rivals={"plain": lambda inputs: [inputs["x"] + inputs["x"]]},
        oracle=lambda inputs: [inputs["x"] * 2],
        moved_bytes=800.0,
    )


def test_a_wrong_op_is_not_timed() -> None:
    check(doubling(2.0))
    with pytest.raises(AssertionError, match="doubling: result 0"):
        check(doubling(2.001))


def test_what_an_op_leaves_unwritten_is_found() -> None:
    """Memory without a value is NaN while ours is checked, and only then."""
    forgetful = replace(doubling(2.0), ours=lambda inputs: [torch.empty(100)])
    with pytest.raises(AssertionError, match="NaN"):
        check(forgetful)
    with poisoned_memory():
        assert bool(torch.empty(1000).isnan().all())
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_budget_names_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.op_benchmark.ceilings", lambda device: {"copy_gb_s": 10.0, "float32_gflop_s": 1.0})
    run("doubling", lambda device: [doubling(2.0)], ["--budget", "-1"])
    written = json.loads((tmp_path / "cpu" / "doubling.json").read_text(encoding="utf-8"))
    assert written["rows"] == [] and written["left_out"] == ["doubling"]
    assert "not measured, because -1 s were over: doubling" in capsys.readouterr().out


def test_a_rival_that_does_not_run_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The compiled one here: the others are timed."""
    def refuse(inputs: Inputs) -> Sequence[torch.Tensor]:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.op_benchmark.ceilings", lambda device: {"copy_gb_s": 10.0, "float32_gflop_s": 1.0})
    compilers = (lambda function: function, {"plain", "plain, compiled"}), (lambda _: refuse, {"plain"})
    for compiler, expected in compilers:
        monkeypatch.setattr(torch, "compile", compiler)
        run("doubling", lambda device: [doubling(2.0)], ["--compile", "--rounds", "5"])
        (row,) = json.loads((tmp_path / "cpu" / "doubling.json").read_text(encoding="utf-8"))["rows"]
        assert row["speedup"].keys() == expected
    assert "doubling: plain, compiled is left out: RuntimeError: no compiler here" in capsys.readouterr().err


def test_compiled_rivals_of_a_case_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are compiled for longer than a short run has; by default they stay."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.op_benchmark.ceilings", lambda device: {"copy_gb_s": 10.0, "float32_gflop_s": 1.0})
    plain = doubling(2.0).rivals["plain"]
    case = replace(doubling(2.0), rivals={"plain": plain, "torch.compile": plain, "compiled twice": plain})
    for arguments, expected in (["--no-compile"], {"plain"}), ([], case.rivals.keys()):
        run("doubling", lambda device: [case], [*arguments, "--rounds", "5"])
        (row,) = json.loads((tmp_path / "cpu" / "doubling.json").read_text(encoding="utf-8"))["rows"]
        assert row["speedup"].keys() == expected


def test_a_run_that_is_stopped_leaves_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And names the rest; a case is let go of before the next begins."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.op_benchmark.ceilings", lambda device: {"copy_gb_s": 10.0, "float32_gflop_s": 1.0})
    held: list[weakref.ref[Case]] = []

    def stop(seed: int) -> Inputs:
        gc.collect()
        assert held[0]() is None, "the first case is still held"
        raise KeyboardInterrupt

    def cases(device: str) -> Sequence[Case]:
        first = doubling(2.0)
        held.append(weakref.ref(first))
        return [first, replace(doubling(2.0), name="stopped", draw=stop), replace(doubling(2.0), name="later")]

    with pytest.raises(KeyboardInterrupt):
        run("doubling", cases, ["--rounds", "5"])
    written = json.loads((tmp_path / "cpu" / "doubling.json").read_text(encoding="utf-8"))
    assert [row["case"] for row in written["rows"]] == ["doubling"] and written["left_out"] == ["stopped", "later"]


def test_a_machine_without_git_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert measure.device_description()["commit"] is None


def test_a_gpu_compiles_rivals_and_draws_other_numbers_each_time() -> None:
    on_cpu, on_gpu = parse("some_op", []), parse("some_op", ["--device", "cuda"])
    assert (on_cpu.compile, on_cpu.seed) == (False, 1234)
    assert on_gpu.compile and on_gpu.seed != parse("some_op", ["--device", "cuda"]).seed


@pytest.mark.parametrize("op", names())
def test_every_benchmark_can_be_asked_for_a_gpu(op: str) -> None:
    """Its cases for one can be listed without one; nothing is drawn before a case is run."""
    module = importlib.import_module(f"benchmarks.ops.bench_{op}")
    cases = module.cases("cuda")
    assert cases and len({case.name for case in cases}) == len(cases)
    assert all(case.rivals for case in cases)
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match=rf"run.py {op}: --device cuda"):
            module.main(["--device", "cuda"])


def test_a_gpu_that_is_not_there_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match=r"--device cuda: this torch .* sees no GPU"):
        run("doubling", lambda device: [doubling(2.0)], ["--device", "cuda"])


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(
        "benchmarks.op_benchmark.ceilings", lambda device: {"copy_gb_s": 10.0, "float32_gflop_s": 100.0}
    )
    run("doubling", lambda device: [doubling(2.0)], ["--rounds", "5"])
    (row,) = json.loads((tmp_path / "cpu" / "doubling.json").read_text(encoding="utf-8"))["rows"]
    assert row["case"] == "doubling" and row["contenders"]["ours"]["rounds"] == 5
    assert row["speedup"]["plain"] > 0 and row["share_of_ceiling"] > 0
    assert "doubling" in capsys.readouterr().out

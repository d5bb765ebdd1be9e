"""Every generation benchmark runs, on work too small to measure, and its file becomes the tables of the documents."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks import measure
from benchmarks.generation import (
    bench_batches,
    bench_floor,
    bench_joining,
    bench_rollouts,
    bench_samplers,
    bench_server,
    bench_sharing,
    clients,
)
from benchmarks.generation.load import Load
from benchmarks.stages.work import Size
from instructgpt_fast.quickstart import assets
from instructgpt_fast.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
TINY = Size(320, layers=1, width=32, heads=2, positions=64)
NAME = "1 x 32, vocabulary 320"
EQUAL, MIXED = Load(8, 8, (4, 4), (3, 3)), Load(4, 2, (4, 12), (2, 6))
MAINS: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "batches": (bench_batches, {"LOADS": {TINY: (EQUAL, MIXED)}, "CONTENDERS": ("ours",)}),
    "rollouts": (bench_rollouts, {
        "SIZES": (TINY,), "CONTENDERS": ("ours",), "LOAD": Load(4, 2, (4, 8), (20, 20), True), "MEAN_TOKENS": 5.0,
    }),
    "floor": (bench_floor, {
        "SIZES": (TINY,), "BATCHES": (1, 2), "PROMPT": 8, "BEYOND_CACHES": 1 << 14,
        "ceilings": lambda: {"copy_gb_s": 1.0, "float32_gflop_s": 2.0},
    }),
    "joining": (bench_joining, {"CASES": ((TINY, MIXED),)}),
    "sharing": (bench_sharing, {
        "SIZES": (TINY,), "ANSWERS": 3, "PROMPT": 33, "NEW": 3, "QUESTIONS": 3, "EXAMPLES": 32, "QUESTION": 4,
        "SHORT_ANSWER": 2, "RUNNING": 2, "ARRIVING": 2, "ARRIVING_TOKENS": 40,
    }),
    "samplers": (bench_samplers, {"SIZES": (TINY,), "BATCHES": (2,), "PROMPT": 4, "NEW": 3}),
    "server": (bench_server, {"SIZE": TINY, "CLIENTS": {2: 3}, "PROMPT": 4, "NEW": 5}),
}


def small_tokenizer(vocab: int, folder: Path) -> Tokenizer:
    return Tokenizer.train([assets.corpus(("austen",))[0].text], vocab)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for results instead of the recorded ones."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "RESULTS", folder)
        for module, constants in MAINS.values():
            for name, value in constants.items():
                patch.setattr(module, name, value)
        for module in (bench_samplers, bench_server):
            patch.setattr(module, "tokenizer_for", small_tokenizer)
        yield folder


@pytest.fixture(scope="module")
def recorded(results: Path) -> Callable[[str], dict[str, Any]]:
    """The result file of a benchmark, which runs when first asked for."""

    def read(name: str) -> dict[str, Any]:
        path = results / "cpu" / f"generation_{name}.json"
        if not path.exists():
            options = ["--rounds", "1", "--threads", str(torch.get_num_threads()), "--folder", str(results / "work")]
            MAINS[name][0].main(options)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    return read


@pytest.fixture
def writer(results: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_measured", ROOT / "tools" / "write_measured.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", results)
    return module


def cells(lines: Sequence[str], case: str) -> list[str]:
    """The cells of a table's line."""
    line = next(line for line in lines if line.startswith(f"| {case}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name", [name for name in MAINS if name != "server"])
def test_a_benchmark_says_what_was_measured_and_how(name: str, recorded: Callable[[str], dict[str, Any]]) -> None:
    found = recorded(name)
    assert found["benchmark"] == f"generation_{name}"
    assert found["settings"]["rounds"] == 1 and found["settings"]["priority"] in ("normal", "real time")
    assert {"commit", "threads", "load_average", "processor", "torch", "date"} <= found.keys()
    assert found["rows"] and all(row["case"].startswith(NAME) for row in found["rows"])


@pytest.mark.parametrize("name", ["joining", "sharing", "samplers"])
def test_contenders_of_one_process_are_compared_with_the_first(
    name: str, recorded: Callable[[str], dict[str, Any]]
) -> None:
    for row in recorded(name)["rows"]:
        first, *others = row["contenders"].values()
        assert first["relative"] == 1.0 and others
        for figures in row["contenders"].values():
            assert figures["tokens_per_second"] == pytest.approx(figures["tokens"] / figures["median_ms"] * 1e3)
            assert figures["peak_bytes"] is None or figures["peak_bytes"] >= 0


def test_shared_prefixes_are_counted(recorded: Callable[[str], dict[str, Any]]) -> None:
    one_prompt = recorded("sharing")["rows"][0]
    # Three answers to 33 tokens: two of them find both full pages of 16 that the first has run, if not its last token.
    assert one_prompt["prompt_tokens"] == 99 and one_prompt["shared_prompt_tokens"] in (64, 66)
    assert len(recorded("sharing")["pauses"][0]["contenders"]) == 3


def test_the_floor_is_bytes_or_products_over_the_step(recorded: Callable[[str], dict[str, Any]]) -> None:
    for row in recorded("floor")["rows"]:
        # Of the 1 x 32 model: all weights but those of the positions, four bytes each.
        weights = 320 * 32 + 2 * 32 + (32 * 96 + 96 + 32 * 32 + 32 + 32 * 128 + 128 + 128 * 32 + 32 + 4 * 32)
        assert row["weight_bytes"] == 4 * weights
        assert row["products_floor_ms"] == pytest.approx(2 * weights * row["batch"] / 2.0 / 1e6)
        assert row["bytes_floor_ms"] == pytest.approx((4 * weights + row["cache_bytes"]) / row["read_gb_s"] / 1e6)
        larger = max(row["bytes_floor_ms"], row["products_floor_ms"])
        assert row["share_of_floor"] == pytest.approx(larger / row["step_ms"])


def test_the_server_gives_the_engines_answers(recorded: Callable[[str], dict[str, Any]]) -> None:
    pytest.importorskip("fastapi")
    row = recorded("server")["rows"][0]
    assert row["clients"] == 2 and row["requests"] == 3
    for figures in row["contenders"].values():
        assert figures["requests_per_second"] == pytest.approx(3 / figures["median_ms"] * 1e3)
        assert 0 < figures["first_token_ms"]["median"] <= figures["first_token_ms"]["p90"]
    assert recorded("server")["server_peak_bytes"] > 2**20


def test_a_server_that_answers_otherwise_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = clients.Streamed("text", 5, 1.0, 2.0)
    monkeypatch.setattr(bench_server, "alone", lambda engine, prompts, under_way: [answer])
    monkeypatch.setattr(bench_server, "ask", lambda url, bodies, count: [clients.Streamed("other", 5, 1.0, 2.0)])
    with pytest.raises(SystemExit, match="answer 0 must be the engine's 'text', got 'other'"):
        bench_server.case("http://nowhere", None, 1, 1, 1)  # type: ignore[arg-type]


def test_ways_that_draw_otherwise_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_samplers, "NEW", 2)
    drawn = {"greedy": [[5, 6]], "greedy, 5 top_logprobs": [[5, 7]]}
    with pytest.raises(SystemExit, match="must draw greedy's tokens"):
        bench_samplers.check("case", {name: lambda _, n=name: drawn[n] for name in drawn}, 1)
    with pytest.raises(SystemExit, match=r"beam 4 must draw 1 x 2 tokens, got \[1\]"):
        bench_samplers.check("case", {"greedy": lambda _: [[5, 6]], "beam 4": lambda _: [[5]]}, 1)


def test_files_become_tables(recorded: Callable[[str], dict[str, Any]], writer: ModuleType) -> None:
    pytest.importorskip("fastapi")
    for name in MAINS:
        recorded(name)
    lines = writer.generation()
    rate = recorded("batches")["rows"][0]["contenders"]["ours"]["tokens_per_second"]["median"]
    assert cells(lines, f"{NAME}, batch 8, 4 + 3 tokens, greedy")[1:3] == [f"{rate:,.0f}", "not measured"]
    assert cells(lines, f"{NAME}, batch 2, 4 + 3 tokens")[2].endswith("x")
    assert cells(lines, f"{NAME}, 2 clients")[3].endswith("%")
    for title in ("Rollouts of PPO", "Each way to draw a token", "The server", "The floor of a decoding step"):
        assert any(line.startswith(title) and "not measured" not in line for line in lines)


def test_a_table_says_which_aims_were_reached(writer: ModuleType, results: Path, recorded: Any) -> None:
    """The figures here are made up, in a folder of the test."""
    recorded("batches")
    path = results / "cpu" / "generation_batches.json"
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    figures = {"speedup": 3.2, "speedup_min": 3.0, "speedup_max": 3.5, "memory_share_above_import": 0.25}
    for row, goal in zip(found["rows"], (3.0, 5.0), strict=True):
        row["rivals"] = {"transformers": {**figures, "goal": goal}, "continuous": figures}
    found["rows"].append({**found["rows"][0], "case": "without an aim", "rivals": {"transformers": figures}})
    path.write_text(json.dumps(found), encoding="utf-8")
    try:
        short, whole = writer.batches(aims_only=True), writer.batches(aims_only=False)
    finally:
        path.write_text(text, encoding="utf-8")
    spread = "3.20x (3.00..3.50)"
    assert cells(short, f"{NAME}, batch 8")[2:] == [spread, spread, "0.25x", "3x, reached"]
    assert cells(short, f"{NAME}, batch 2")[2:] == [spread, spread, "0.25x", "5x, missed"]
    assert cells(whole, "without an aim")[2:] == [spread, "not measured", "0.25x", ""]
    assert not any(line.startswith("| without an aim") for line in short)


def test_nothing_recorded_is_said_so(writer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RESULTS", tmp_path)
    told = [line for line in writer.generation() if line]
    assert len(told) == len(MAINS) + 1 and all(line.endswith("not measured.") for line in told)

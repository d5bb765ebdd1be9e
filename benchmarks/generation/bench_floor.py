"""How near a decoding step comes to the least it could take: every weight read once, every product computed once.

    python benchmarks/generation/bench_floor.py

Bytes: the weights of all layers and the output layer, and the keys and values of the rows, each read once a step at the
rate of a loop that only reads, over a buffer as large as the weights (what fits a cache there fits it here), timed in
turns with the steps. Products: two operations for each weight and row at the rate of a large float32 matmul of the same
process. A step is `Engine.step`: everything between two tokens is in it.
Not covered: attention's own products, which are few beside the layers' at these lengths.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.generation.command import model_of, parse, record
from benchmarks.generation.compare import priority
from benchmarks.generation.load import GPT2, SMALL, WIDE_VOCABULARY, size_name
from benchmarks.generation.ours import NEVER
from benchmarks.measure import Timing, ceilings, interleaved, peak_memory
from benchmarks.stages.work import Size
from instructgpt_fast.generate import Engine, SamplingConfig
from instructgpt_fast.generate.requests import Request
from instructgpt_fast.model import GPT

SIZES = (SMALL, WIDE_VOCABULARY, GPT2)
BATCHES = (1, 8, 32)
PROMPT = 64
LINE = 4096  # numbers in a line of what is read
BEYOND_CACHES = 1 << 28  # numbers: 1 GiB


def steps_a_call(size: Size) -> int:
    """Enough that caches are as a run of steps leaves them."""
    return 2 if size == GPT2 else 8


def decoding(model: GPT, rows: int, calls: int) -> Engine:
    """An engine in which `rows` completions are under way and stay so for `calls` steps."""
    engine = Engine(
        model, eos_id=NEVER, max_rows=rows, cache_tokens=rows * (PROMPT + calls + 32), prefill_tokens=rows * PROMPT
    )
    sampling = SamplingConfig(max_new_tokens=calls + 16, temperature=0.0)
    generator = torch.Generator().manual_seed(rows)
    for _ in range(rows):
        prompt = torch.randint(model.config.vocab_size, (PROMPT,), generator=generator).tolist()
        engine.submit(Request(prompt, sampling))
    while engine.stats().active < rows:
        engine.step()
    return engine


def reading(numbers: int) -> Callable[[Any], Any]:
    """A loop that reads `numbers` float32 and does nothing else that takes time, with all of torch's threads."""
    buffer, with_ = torch.randn(-(-numbers // LINE), LINE), torch.randn(LINE)
    out = torch.empty(buffer.shape[0])
    return lambda _: torch.mv(buffer, with_, out=out)


def repeated(call: Callable[[Any], Any], times: int) -> Callable[[Any], None]:
    def several(argument: Any) -> None:
        for _ in range(times):
            call(argument)

    return several


def measured(size: Size, model: GPT, rounds: int, matmul: float) -> list[dict[str, Any]]:
    """The cases of one size, all in turns with the reading loop. matmul: float32 GFLOP/s."""
    config = model.config
    # Of wpe, as of wte where it is the input, a step reads few rows.
    weights = config.num_parameters - config.n_positions * config.d_model
    times = steps_a_call(size)
    calls = times * (rounds + 3)
    engines = {rows: decoding(model, rows, calls) for rows in BATCHES}
    work: dict[str, Callable[[Any], Any]] = {"read": repeated(reading(weights), times)}
    work |= {f"batch {rows}": repeated(lambda _, e=engine: e.step(), times) for rows, engine in engines.items()}
    timings = interleaved(work, [None], rounds=rounds, seconds=60.0, warmup=1)
    read = 4 * weights * times / timings["read"].median_ms / 1e6
    memory = {rows: peak_memory(lambda e=engine: e.step()) for rows, engine in engines.items()}
    for rows, engine in engines.items():
        if engine.stats().active != rows:
            raise SystemExit(f"floor: {rows} completions must be under way to the end, got {engine.stats().active}")
    return [
        row(size, rows, weights, read, matmul, timings[f"batch {rows}"], times, memory[rows]) for rows in BATCHES
    ]


def row(
    size: Size, rows: int, weights: int, read: float, matmul: float, timing: Timing, times: int, memory: int | None
) -> dict[str, Any]:
    """One case: what a step took, and what it would take at the least."""
    context = PROMPT + times * (len(timing.rounds_ms) + 1) / 2
    cached = int(2 * 4 * size.layers * size.width * rows * context)
    step = timing.median_ms / times
    bytes_ms, products_ms = (4 * weights + cached) / read / 1e6, 2 * weights * rows / matmul / 1e6
    return {
        "case": f"{size_name(size)}, batch {rows}", "batch": rows, "steps_a_round": times, **timing.as_dict(),
        "step_ms": step, "tokens_per_second": rows / step * 1e3, "weight_bytes": 4 * weights, "cache_bytes": cached,
        "read_gb_s": read, "bytes_floor_ms": bytes_ms, "products_floor_ms": products_ms,
        "share_of_bytes_floor": bytes_ms / step, "share_of_floor": max(bytes_ms, products_ms) / step,
        "peak_bytes": memory,
    }


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run all cases, print them and write the result file; returns the rows."""
    options = parse("floor", arguments, rounds=12)
    best = ceilings()
    far = interleaved({"read": reading(BEYOND_CACHES)}, [None], rounds=6, warmup=1)["read"]
    best["read_gb_s_beyond_caches"] = 4 * BEYOND_CACHES / far.median_ms / 1e6
    print(", ".join(f"{name} {value:.0f}" for name, value in best.items()), f"({priority()})")
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        if options.only in size_name(size):
            for found in measured(size, model_of(size, options), options.rounds, best["float32_gflop_s"]):
                rows.append(found)
                print(
                    f"{found['case']:<38}{found['step_ms']:8.2f} ms; bytes {found['bytes_floor_ms']:.2f} ms at "
                    f"{found['read_gb_s']:.0f} GB/s, products {found['products_floor_ms']:.2f} ms; "
                    f"{found['share_of_floor']:.0%} of the floor", flush=True,
                )
    record("floor", options, rows, ceilings=best)
    return rows


if __name__ == "__main__":
    main()

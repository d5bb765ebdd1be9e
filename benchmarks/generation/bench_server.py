"""Requests per second and time to the first token over HTTP on 127.0.0.1, against the engine alone.

    python benchmarks/generation/bench_server.py          # needs the packages of the extra [serve]

1, 8 or 32 clients, each of which asks for a stream, reads it and asks again. The engine alone has as many requests
under way and decodes their text, in the process that asks otherwise. Server and clients share the cores: what the
clients need is part of the difference. Prompts differ from round to round, so none is found in the cache; answers are
greedy and must be the engine's.
"""

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.generation.bench_samplers import tokenizer_for
from benchmarks.generation.clients import Streamed, ask
from benchmarks.generation.command import model_of, parse, record
from benchmarks.generation.load import SMALL, Load, size_name
from benchmarks.measure import Timing, interleaved, ratio
from benchmarks.stages.compare import ROOT, SPIN
from instructgpt_fast.checkpoint import save_checkpoint
from instructgpt_fast.generate import Engine, SamplingConfig
from instructgpt_fast.generate.requests import Request
from instructgpt_fast.model import GPT
from instructgpt_fast.tokenizer import Tokenizer

SIZE = SMALL
CLIENTS = {1: 8, 8: 32, 32: 96}
"""Clients -> requests of a round."""
PROMPT, NEW, ROWS = 32, 64, 32
START_SECONDS = 60
SERVE = "import sys; from instructgpt_fast import serve; serve(sys.argv[1], port=0, device='cpu', names=('bench',))"


@contextlib.contextmanager
def served(checkpoint: Path, log: Path) -> Iterator[tuple[str, int]]:
    """A server in a process of its own; its address and process id."""
    environment = {"GOMP_SPINCOUNT": SPIN, **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", SERVE, str(checkpoint)], env=environment, stderr=out)
    try:
        yield address(process, log), process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server listens, once it says so."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"serving on (http://\S+)", log.read_text(encoding="utf-8"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise SystemExit(f"the server did not start: {log.read_text(encoding='utf-8')[-2000:]}")


def alone(engine: Engine, prompts: Sequence[Sequence[int]], under_way: int) -> list[Streamed]:
    """Answer all prompts with the engine, so many at a time."""
    sampling = SamplingConfig(max_new_tokens=NEW, temperature=0.0)
    waiting = iter(range(len(prompts)))
    places: dict[int, int] = {}
    begun: dict[int, float] = {}
    first: dict[int, float] = {}
    texts: dict[int, list[str]] = {}
    answers: dict[int, Streamed] = {}

    def submit() -> None:
        place = next(waiting, None)
        if place is not None:
            begun[place], texts[place] = time.perf_counter(), []
            places[engine.submit(Request(prompts[place], sampling))] = place

    for _ in range(under_way):
        submit()
    while engine.busy:
        for drawn in engine.step():
            place = places[drawn.ticket]
            texts[place].append(drawn.text)
            if drawn.text or drawn.finish_reason:
                first.setdefault(place, time.perf_counter())
            if drawn.finish_reason:
                whole, start = time.perf_counter(), begun[place]
                answers[place] = Streamed(
                    "".join(texts[place]), len(texts[place]), (first[place] - start) * 1e3, (whole - start) * 1e3
                )
                submit()
    return [answers[place] for place in range(len(prompts))]


def figures(timing: Timing, answers: Sequence[Streamed], requests: int) -> dict[str, Any]:
    """Rates of one contender, and how long its answers took."""
    ordered = sorted(answer.first_ms for answer in answers)
    return {
        **timing.as_dict(), "requests_per_second": requests / timing.median_ms * 1e3,
        "tokens_per_second": sum(a.tokens for a in answers) / sum(timing.rounds_ms) * 1e3,
        "first_token_ms": {"median": statistics.median(ordered), "p90": ordered[round(0.9 * (len(ordered) - 1))]},
        "answer_ms": statistics.median(answer.whole_ms for answer in answers),
    }


def case(url: str, engine: Engine, clients: int, requests: int, rounds: int) -> dict[str, Any]:
    """One number of clients: server and engine in turns."""
    seeds = range(1000 * clients, 1000 * clients + rounds)
    loads = [Load(requests, clients, (PROMPT, PROMPT), (NEW, NEW), seed=seed) for seed in seeds]
    found: dict[str, list[Streamed]] = {"engine alone": [], "server": []}

    def by_engine(load: Load) -> None:
        found["engine alone"] += alone(engine, load.prompts(SIZE.vocab), clients)

    def by_server(load: Load) -> None:
        fields = {"model": "bench", "max_tokens": NEW, "temperature": 0}
        bodies = [{**fields, "prompt": prompt} for prompt in load.prompts(SIZE.vocab)]
        found["server"] += ask(f"{url}/v1/completions", bodies, clients)

    work: dict[str, Callable[[Load], None]] = {"engine alone": by_engine, "server": by_server}
    timings = interleaved(work, loads, rounds=rounds, seconds=60.0, warmup=0)
    for place, (ours, other) in enumerate(zip(found["engine alone"], found["server"], strict=True)):
        if (ours.text, ours.tokens) != (other.text, other.tokens):
            raise SystemExit(f"server: answer {place} must be the engine's {ours.text!r}, got {other.text!r}")
    return {
        "contenders": {name: figures(timings[name], found[name], requests) for name in work},
        "share_of_engine": ratio(timings, "engine alone", "server"), "requests": requests, "clients": clients,
    }


def checkpoint_of(model: GPT, tokenizer: Tokenizer, folder: Path) -> Path:
    """The model as a checkpoint that can be served."""
    path = folder / "served" / "checkpoint-000000"
    if not path.exists():
        save_checkpoint(path, model=model, tokenizer=tokenizer, prompt_format="raw", stage="sft")
    return path


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run all cases, print them and write the result file; returns the rows."""
    options = parse("server", arguments, rounds=5)
    tokenizer, model = tokenizer_for(SIZE.vocab, options.folder), model_of(SIZE, options)
    checkpoint = checkpoint_of(model, tokenizer, options.folder)
    engine = Engine(model, eos_id=tokenizer.eos_id, tokenizer=tokenizer, max_rows=ROWS)
    rows: list[dict[str, Any]] = []
    with served(checkpoint, options.folder / "server.log") as (url, process):
        # Neither is to be timed while it still takes memory for the first time.
        case(url, engine, max(CLIENTS), max(CLIENTS), 1)
        for clients, requests in CLIENTS.items():
            name = f"{size_name(SIZE)}, {clients} {'client' if clients == 1 else 'clients'}, {PROMPT} + {NEW} tokens"
            if options.only in name:
                rows.append({"case": name, **case(url, engine, clients, requests, options.rounds)})
                show(rows[-1])
        memory = peak_of(process)
    record("server", options, rows, server_peak_bytes=memory)
    return rows


def peak_of(process: int) -> int | None:
    """Highest resident memory of a process so far; None where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def show(row: dict[str, Any]) -> None:
    """Print one case."""
    print(f"\n{row['case']}: the server reaches {row['share_of_engine']:.0%} of the engine's rate")
    for name, found in row["contenders"].items():
        first = found["first_token_ms"]
        print(
            f"  {name:<14}{found['requests_per_second']:8.1f} requests/s{found['tokens_per_second']:9,.0f} tokens/s; "
            f"first token after {first['median']:.1f} ms (90%: {first['p90']:.1f}), whole answer "
            f"{found['answer_ms']:.0f} ms", flush=True,
        )


if __name__ == "__main__":
    main()

"""What sharing of prefixes gains, and what chunks of a long prompt spare those who wait for their next token.

    python benchmarks/generation/bench_sharing.py

Sharing: 8 answers to one prompt of 256 tokens; 16 questions behind the same 192 tokens of examples. Each call has a new
engine, so nothing is kept from the call before. Pauses: 8 completions are under way when 4 prompts of 448 tokens
arrive; the longest time between two steps until these have their first tokens, for chunks of several sizes.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.generation.command import model_of, parse, record, show, timed
from benchmarks.generation.load import SMALL, WIDE_VOCABULARY, Load, size_name
from benchmarks.generation.ours import NEVER
from benchmarks.gpu_clock import Prepared
from benchmarks.measure import interleaved
from benchmarks.stages.work import Size
from instructgpt_fast.generate import Engine, SamplingConfig
from instructgpt_fast.generate.engine import EngineStats
from instructgpt_fast.generate.requests import Request
from instructgpt_fast.model import GPT

SIZES = (SMALL, WIDE_VOCABULARY)
ANSWERS, PROMPT, NEW = 8, 256, 32
QUESTIONS, EXAMPLES, QUESTION, SHORT_ANSWER = 16, 192, 16, 16
RUNNING, ARRIVING, ARRIVING_TOKENS = 8, 4, 448
CHUNKS = {"512 tokens between steps (default)": None, "64 tokens between steps": 64, "whole prompts": 2048}


def one_prompt(vocab: int) -> list[Request]:
    """Several sampled answers to one prompt, each with its seed."""
    prompt = Load(1, 1, (PROMPT, PROMPT), (NEW, NEW)).prompts(vocab)[0]
    return [Request(prompt, SamplingConfig(max_new_tokens=NEW), seeds=[seed]) for seed in range(ANSWERS)]


def few_shot(vocab: int) -> list[Request]:
    """Questions behind the same examples."""
    examples = Load(1, 1, (EXAMPLES, EXAMPLES), (1, 1), seed=1).prompts(vocab)[0]
    questions = Load(QUESTIONS, QUESTIONS, (QUESTION, QUESTION), (1, 1), seed=2).prompts(vocab)
    sampling = SamplingConfig(max_new_tokens=SHORT_ANSWER, temperature=0.0)
    return [Request([*examples, *question], sampling) for question in questions]


def answers(model: GPT, wanted: Sequence[Request], *, share: bool) -> tuple[list[list[int]], EngineStats]:
    """The tokens of every answer, and what the engine did. Sharing, answers to one prompt are asked for together."""
    rows = len(wanted)
    pages = sum(-(-(len(r.prompt) + r.sampling.max_new_tokens) // 16) for r in wanted)
    engine = Engine(model, eos_id=NEVER, max_rows=rows, cache_tokens=16 * pages, share_prefixes=share)
    first = wanted[0]
    if share and all(request.prompt == first.prompt for request in wanted):
        seeds = [seed for request in wanted for seed in request.seeds or ()]
        wanted = [Request(first.prompt, first.sampling, count=rows, seeds=seeds)]
    drawn = engine.run(wanted)
    return [list(one.tokens) for several in drawn for one in several], engine.stats()


class PauseClock:
    """Times not the call but what it returns, in milliseconds."""

    def prepare(self, name: str, function: Callable[[Any], float], inputs: Sequence[Any], warmup: int) -> Prepared[Any]:
        """Warm up."""
        for _ in range(warmup):
            function(inputs[0])
        return Prepared(function, inputs, how="longest time between two steps")

    def milliseconds(self, prepared: Prepared[Any], turn: int) -> float:
        """The figure of one call."""
        return float(prepared.function(prepared.inputs[turn % len(prepared.inputs)]))


def longest_pause(model: GPT, prefill_tokens: int | None) -> float:
    """Milliseconds that completions under way waited at most for their next token while long prompts came in."""
    context = model.config.n_positions
    engine = Engine(
        model, eos_id=NEVER, max_rows=RUNNING + ARRIVING, cache_tokens=(RUNNING + ARRIVING) * context,
        prefill_tokens=prefill_tokens,
    )
    generator = torch.Generator().manual_seed(0)

    def submit(count: int, tokens: int, new: int) -> None:
        for _ in range(count):
            prompt = torch.randint(model.config.vocab_size, (tokens,), generator=generator).tolist()
            engine.submit(Request(prompt, SamplingConfig(max_new_tokens=new, temperature=0.0)))

    submit(RUNNING, 32, context - 32)
    while engine.stats().active < RUNNING:
        engine.step()
    submit(ARRIVING, ARRIVING_TOKENS, 64)
    pauses = []
    while engine.stats().active < RUNNING + ARRIVING:
        started = time.perf_counter()
        engine.step()
        pauses.append(time.perf_counter() - started)
    return max(pauses) * 1e3


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run all cases, print them and write the result file; returns the rows."""
    options = parse("sharing", arguments, rounds=5)
    rows: list[dict[str, Any]] = []
    loads = {
        f"{ANSWERS} answers to one prompt of {PROMPT} tokens": one_prompt,
        f"{QUESTIONS} questions behind {EXAMPLES} tokens of examples": few_shot,
    }
    for size in SIZES:
        model = model_of(size, options)
        for name, wanted_of in loads.items():
            case, wanted = f"{size_name(size)}, {name}", wanted_of(size.vocab)
            if options.only not in case:
                continue
            (apart, _), (shared, stats) = (answers(model, wanted, share=share) for share in (False, True))
            if shared != apart:
                raise SystemExit(f"{case}: an answer must not depend on what its prompt shares, got two")
            work: dict[str, Callable[[Any], Any]] = {
                "each its own prefix": lambda _, m=model, w=wanted: answers(m, w, share=False),
                "shared": lambda _, m=model, w=wanted: answers(m, w, share=True),
            }
            figures = timed(work, dict.fromkeys(work, sum(map(len, shared))), options.rounds)
            rows.append({
                "case": case, "contenders": figures, "prompt_tokens": stats.prompt_tokens,
                "shared_prompt_tokens": stats.shared_prompt_tokens,
            })
            show(case, figures)
    pauses = [pauses_of(size, options) for size in SIZES if options.only in size_name(size)]
    record("sharing", options, rows, pauses=pauses)
    return [*rows, *pauses]


def pauses_of(size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """The longest pauses with one model, by how its prompts are cut."""
    model = model_of(size, options)
    work = {name: lambda _, n=chunk: longest_pause(model, n) for name, chunk in CHUNKS.items()}
    timings = interleaved(work, [None], rounds=options.rounds, warmup=1, clock=PauseClock())
    case = f"{size_name(size)}, {RUNNING} completions under way, {ARRIVING} prompts of {ARRIVING_TOKENS} tokens arrive"
    print(f"\n{case}")
    for name, timing in timings.items():
        print(f"  {name:<36}{timing.median_ms:8.1f} ms", flush=True)
    return {"case": case, "contenders": {name: timing.as_dict() for name, timing in timings.items()}}


if __name__ == "__main__":
    main()

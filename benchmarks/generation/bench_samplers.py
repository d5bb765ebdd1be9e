"""What each way to draw a token costs, as a share of greedy's rate: the same prompts, the same engine options.

    python benchmarks/generation/bench_samplers.py

Beam search keeps 4 beams of each prompt and counts the tokens of the best one. Stop strings are two that never come, so
that every way draws as many tokens; text is decoded for them.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.generation.command import model_of, parse, record, show, timed
from benchmarks.generation.load import SMALL, WIDE_VOCABULARY, Load, size_name
from benchmarks.generation.ours import NEVER, room
from instructgpt_fast.generate import Engine, SamplingConfig
from instructgpt_fast.generate.beam import beam_search
from instructgpt_fast.generate.requests import Request
from instructgpt_fast.model import GPT
from instructgpt_fast.quickstart import assets
from instructgpt_fast.tokenizer import Tokenizer

SIZES = (SMALL, WIDE_VOCABULARY)
BATCHES = (1, 8, 32)
PROMPT, NEW = 32, 24
TOP_LOGPROBS = 5
WAYS: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {},
    "top-k 50": {"top_k": 50},
    "top-p 0.9": {"top_p": 0.9},
    "min-p 0.05": {"min_p": 0.05},
    "repetition penalty 1.2": {"repetition_penalty": 1.2},
    "greedy, 5 top_logprobs": {"temperature": 0.0},
    "greedy, 2 stop strings": {"temperature": 0.0, "stop": ("\n\nQ:", "<never>")},
    "beam 4": {"temperature": 0.0, "num_beams": 4},
}


def tokenizer_for(vocab: int, folder: Path) -> Tokenizer:
    """One whose every id is of the model's vocabulary, kept in the folder."""
    path = folder / f"tokenizer-{vocab}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        texts = (document.text for document in assets.corpus(tuple(assets.CORPORA)))
        Tokenizer.train(texts, vocab, min_frequency=1).save(path)
    return Tokenizer.load(path)


def answers(
    model: GPT, load: Load, options: Mapping[str, Any], tokenizer: Tokenizer | None, top_logprobs: int
) -> list[list[int]]:
    """The tokens of every request, drawn in one of the ways."""
    prompts, sampling = load.prompts(model.config.vocab_size), SamplingConfig(max_new_tokens=NEW, **options)
    if sampling.num_beams > 1:
        found = beam_search(model, prompts, sampling, eos_id=NEVER, batch_size=load.rows * sampling.num_beams)
        return [list(several[0].tokens) for several in found]
    engine = Engine(model, eos_id=NEVER, tokenizer=tokenizer, max_rows=load.rows, cache_tokens=room(load))
    wanted = [Request(p, sampling, seeds=[i], top_logprobs=top_logprobs) for i, p in enumerate(prompts)]
    return [list(several[0].tokens) for several in engine.run(wanted)]


def ways(model: GPT, load: Load, tokenizer: Tokenizer) -> dict[str, Callable[[Any], list[list[int]]]]:
    """Every way as a call; only stop strings get the tokenizer, and with it text."""

    def call(name: str, options: Mapping[str, Any]) -> Callable[[Any], list[list[int]]]:
        text = tokenizer if "stop" in options else None
        top = TOP_LOGPROBS if "top_logprobs" in name else 0
        return lambda _: answers(model, load, options, text, top)

    return {name: call(name, options) for name, options in WAYS.items()}


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run all cases, print them and write the result file; returns the rows."""
    options = parse("samplers", arguments, rounds=5)
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        model, tokenizer = model_of(size, options), tokenizer_for(size.vocab, options.folder)
        for batch in BATCHES:
            case = f"{size_name(size)}, batch {batch}, {PROMPT} + {NEW} tokens"
            if options.only not in case:
                continue
            load = Load(batch, batch, (PROMPT, PROMPT), (NEW, NEW))
            work = ways(model, load, tokenizer)
            check(case, work, batch)
            figures = timed(work, dict.fromkeys(work, batch * NEW), options.rounds)
            rows.append({"case": case, "batch": batch, "contenders": figures})
            show(case, figures)
    record("samplers", options, rows)
    return rows


def check(case: str, work: Mapping[str, Callable[[Any], list[list[int]]]], batch: int) -> None:
    """Raise SystemExit unless every way draws all tokens, and what draws greedily draws the same ones."""
    drawn = {name: call(None) for name, call in work.items()}
    for name, found in drawn.items():
        if [len(answer) for answer in found] != [NEW] * batch:
            raise SystemExit(f"{case}: {name} must draw {batch} x {NEW} tokens, got {[*map(len, found)]}")
        if name.startswith("greedy") and found != drawn["greedy"]:
            raise SystemExit(f"{case}: {name} must draw greedy's tokens, got others")


if __name__ == "__main__":
    main()

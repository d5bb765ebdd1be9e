"""How often one checkpoint's answer is preferred to another's: by a scorer, or by people who ranked answers.

A prompt is the sampling unit of every interval: several labelers, or several answers, of one prompt are joined first.
Ouyang et al. 2022 (arXiv:2203.02155, figures 1 and 3) report preference by people, against a fixed model.

Not covered: a reward model prefers what it was trained on, longer answers often among it. The table therefore also
tells lengths; people's judgment is the measure, a reward model's an estimate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.config import to_dict
from instructgpt_fast.data import Prompt, read_jsonl
from instructgpt_fast.device import choose_device, torch_dtype
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.evaluate.human_judgments import measure_judgments
from instructgpt_fast.evaluate.items import identity_of
from instructgpt_fast.evaluate.measure import Measure
from instructgpt_fast.evaluate.options import EvaluateConfig
from instructgpt_fast.evaluate.outcome import language_model
from instructgpt_fast.evaluate.result import aligned, row_of, told_apart
from instructgpt_fast.evaluate.scorers import find_scorer
from instructgpt_fast.evaluate.tasks import check_before, name_of, numbers, write_json, write_lines
from instructgpt_fast.generate import Completion, complete


@dataclass(frozen=True)
class WinRate:
    """Two checkpoints held against each other; str() is a table.

    measures: "win_rate" first: share of comparisons that the first wins, a tie counting half. records: one object a
    prompt, with answers and scores; none for people's judgments.
    """

    first: str
    second: str
    judge: str
    measures: tuple[Measure, ...]
    records: tuple[Mapping[str, Any], ...] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """Every number by its name."""
        return {measure.metric: measure.value for measure in self.measures}

    def __str__(self) -> str:
        """The table in plain text."""
        lines = [("metric", "value", "95 %", "over"), *(row_of(measure).cells()[1:] for measure in self.measures)]
        return f"{self.first} against {self.second}, judged by {self.judge}\n{aligned(lines)}"


def win_rate(first: Any, second: Any = None, *, judge: Any = None, **options: Any) -> WinRate:
    """Hold two checkpoints against each other.

    first, second: paths or runs' results; or one `EvaluateConfig` with `win_rate`.
    judge: a reward model's checkpoint, "package.module:function", or a function: a list of texts in, a list of numbers
        out; it scores one answer of each checkpoint to each of `prompts`. Without a judge, `comparisons` is a jsonl as
        the labelling page exports it, in which "checkpoints" tells whose answer each completion is.
    options: prompts, comparisons, max_new_tokens, temperature, seed, limit, batch_size, dtype, device, output, records.
    Raises ConfigError, DataError or CheckpointError.
    """
    if isinstance(first, EvaluateConfig):
        if second is not None or judge is not None or options:
            raise ConfigError("win_rate: options stand in the EvaluateConfig, got others beside one; put them into it.")
        config, judge = first, first.judge
    else:
        pair = tuple(str(getattr(each, "checkpoint", each)) for each in (first, second) if each is not None)
        judge = getattr(judge, "checkpoint", judge)
        named = name_of(judge) if callable(judge) else judge
        config = EvaluateConfig(win_rate=pair, judge=None if named is None else str(named), **options)
    if len(config.win_rate) != 2:
        raise ConfigError("win_rate: needs two checkpoints, got options without them; set win_rate.")
    names = told_apart(config.win_rate)
    check_before({}, config)
    result = _by_people(config, names) if judge is None else _by_scorer(config, names, judge)
    _write(result, config)
    return result


def _by_people(config: EvaluateConfig, names: Sequence[str]) -> WinRate:
    measures = measure_judgments(str(config.comparisons), config.win_rate, config.on_bad_line, config.limit)
    return WinRate(names[0], names[1], f"people ({config.comparisons})", tuple(measures))


def _by_scorer(config: EvaluateConfig, names: Sequence[str], judge: Any) -> WinRate:
    examples = read_jsonl(str(config.prompts), Prompt, on_bad_line=config.on_bad_line)
    prompts = [example.prompt for example in examples][: config.limit]
    lines = examples.lines[: config.limit]
    device, _ = choose_device(config.device)
    score = find_scorer("judge", judge, device, config.batch_size)
    places = [(examples.path, line) for line in lines]
    answers = [_answers(checkpoint, prompts, places, config) for checkpoint in config.win_rate]
    texts = [[answer.text for answer in each] for each in answers]
    scores = np.array([score(prompts, each) for each in texts], dtype=np.float64)
    records = [
        {"line": line, "prompt": plain_prompt(prompt), "answers": dict(zip(names, pair, strict=True)),
         "scores": dict(zip(names, map(float, given), strict=True))}
        for line, prompt, pair, given in zip(lines, prompts, zip(*texts, strict=True), scores.T, strict=True)
    ]
    same = [json.dumps(record["prompt"], sort_keys=True) for record in records]
    measures = _measures(identity_of(same), names, joined_items(same), answers, scores)
    return WinRate(names[0], names[1], str(config.judge), tuple(measures), tuple(records))


def _measures(
    data: str, names: Sequence[str], joined: Callable[[np.ndarray], np.ndarray], answers: Sequence[list[Completion]],
    scores: np.ndarray,
) -> list[Measure]:
    """The rows of the table; scores: float64 [2, N], of each checkpoint's answers."""
    lengths = np.array([[len(one.text) for one in each] for each in answers], dtype=np.float64)
    cut = np.array([[one.finish_reason == "length" for one in each] for each in answers], dtype=np.float64)

    def measure(metric: str, values: np.ndarray, **about: Any) -> Measure:
        return Measure("win_rate", metric, joined(values), data=data, **about)

    def share(metric: str, values: np.ndarray, higher_is_better: bool | None) -> Measure:
        return measure(metric, values.astype(np.float64), bounds=(0.0, 1.0), higher_is_better=higher_is_better)

    return [
        share("win_rate", wins(scores[0] - scores[1]), True),
        share("ties", scores[0] == scores[1], None),
        measure("score_difference", scores[0] - scores[1]),
        # In characters: two checkpoints may have two tokenizers.
        measure("length_difference", lengths[0] - lengths[1], unit="characters", higher_is_better=None),
        share("longer", lengths[0] > lengths[1], None),
        *(share(f"cut_{name}", each, False) for name, each in zip(names, cut, strict=True)),
    ]


def joined_items(keys: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    """A function that averages the values of equal keys, float64 [N] -> [different keys], in order of appearance."""
    order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    places = np.array([order[key] for key in keys])
    return lambda values: np.bincount(places, values) / np.bincount(places)


def wins(differences: np.ndarray) -> np.ndarray:
    """1 where the first is above the second, 0.5 where they are equal, 0 below; differences float64 [N]."""
    return (np.sign(differences) + 1.0) / 2.0


def _answers(
    checkpoint: str, prompts: Sequence[Any], places: Sequence[tuple[Path, int]], config: EvaluateConfig
) -> list[Completion]:
    device, _ = choose_device(config.device)
    loaded = load_model(checkpoint, dtype=torch_dtype(config.dtype), device=device)
    context = language_model("win_rate", loaded).config.n_positions
    for prompt, place in zip(prompts, places, strict=True):
        tokens = len(loaded.tokenizer.encode_prompt(prompt, loaded.prompt_format))
        if tokens >= context:
            raise DataError(
                f"win_rate: a prompt must be shorter than the context of {loaded.path}, {context} tokens, got "
                f"{tokens}; take it out", *place,
            )
    answers: list[Completion] = complete(
        loaded, prompts, batch_size=config.batch_size, max_new_tokens=config.max_new_tokens,
        temperature=config.temperature, seed=config.seed,
    )
    return answers


def plain_prompt(prompt: Any) -> Any:
    """A prompt as JSON has it: a text, or a list of {"role", "content"}."""
    return prompt if isinstance(prompt, str) else [turn._asdict() for turn in prompt]


def _write(result: WinRate, config: EvaluateConfig) -> None:
    if config.output is not None:
        intervals = {measure.metric: measure.interval() for measure in result.measures}
        content = {
            "first": str(Path(config.win_rate[0])), "second": str(Path(config.win_rate[1])), "judge": result.judge,
            "options": to_dict(config), "metrics": numbers(result.metrics),
            "intervals": {name: list(found) for name, found in intervals.items() if found is not None},
            "over": {measure.metric: measure.over for measure in result.measures},
        }
        write_json(config.output, content)
    if config.records is not None:
        write_lines(config.records, result.records)

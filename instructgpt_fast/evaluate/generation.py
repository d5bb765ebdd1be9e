"""Task files of kind generation: the model answers, and the answers are scored.

As Ouyang et al. 2022 (arXiv:2203.02155, appendix D) evaluate: the likeliest token at each step (T = 0), answers cut at
the first newline. White space around an answer is left out before it is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar, Literal

import numpy as np

from instructgpt_fast.checkpoint import Loaded
from instructgpt_fast.config import nearest, options_class
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate import diversity, short_answers, text_scores
from instructgpt_fast.evaluate.answers import Answered, AnswerSet
from instructgpt_fast.evaluate.items import Items, read_items
from instructgpt_fast.evaluate.measure import Measure
from instructgpt_fast.evaluate.outcome import Outcome, language_model
from instructgpt_fast.evaluate.prompts import Prompts, make_prompts, references_of
from instructgpt_fast.evaluate.scorers import Scorer, find_scorer
from instructgpt_fast.evaluate.task_file import Task, TaskOptions
from instructgpt_fast.generate import SamplingConfig, complete


@dataclass(frozen=True)
class Metric:
    """How answers are scored; references: whether each item needs at least one, may have none, or none are read."""

    run: Callable[[AnswerSet], Sequence[Measure]]
    references: Literal["needed", "may be empty", "unused"]
    package: str | None = None


METRICS: dict[str, Metric] = {
    "exact_match": Metric(short_answers.exact_match_measures, "may be empty"),
    "f1": Metric(short_answers.f1_measures, "may be empty"),
    "accuracy": Metric(short_answers.accuracy, "needed"),
    "bleu": Metric(text_scores.bleu, "needed", "sacrebleu"),
    "chrf": Metric(text_scores.chrf, "needed", "sacrebleu"),
    **{name: Metric(text_scores.rouge, "needed", "rouge-score") for name in text_scores.ROUGE},
    "distinct_1": Metric(diversity.distinct_1, "unused"),
    "distinct_2": Metric(diversity.distinct_2, "unused"),
    "self_bleu": Metric(diversity.self_bleu_measure, "unused", "sacrebleu"),
    "length": Metric(diversity.length, "unused"),
    "ending": Metric(diversity.ending, "unused"),
}
_MODULES = {"rouge-score": "rouge_score.rouge_scorer", "sacrebleu": "sacrebleu.metrics"}
# Judged by what the options of the evaluation name, not by the task.
SCORED = {"toxicity": False, "sentiment": True}  # whether higher is better


@options_class()
class GenerationTask(TaskOptions):
    """What the model is asked, how it answers, and what its answers are held against."""

    paths: ClassVar[tuple[str, ...]] = ("data", "shots_data")
    texts: ClassVar[tuple[str, ...]] = ("prompt", "instruction")

    prompt: str
    """The question as the model reads it, up to where the answer begins."""
    metrics: tuple[str, ...]
    """exact_match, f1, accuracy, bleu, chrf, rouge1, rouge2, rouge_l, rouge_lsum, distinct_1, distinct_2, self_bleu,
    length, ending, toxicity, sentiment."""
    instruction: str | None = None
    """Said once, before the examples and the prompt."""
    answers: str | tuple[str, ...] = ()
    """Fields of right answers: each one text, or a list of texts."""
    labels: tuple[str, ...] = ()
    """All answers that there are, for classification; the data may hold no other."""
    no_answer: str = ""
    """What the model should say where there is no answer; counts as saying nothing."""
    shots: int = 0
    """Solved examples before each prompt."""
    shots_data: str | None = None
    """jsonl that the examples are drawn from, with the fields of `data`."""
    shots_seed: int = 0
    """Which examples are drawn."""
    answer_prefix: str = " "
    """What stands between an example's prompt and its answer."""
    separator: str = "\n\n"
    """What stands behind the instruction and behind each example."""
    shorten: str | None = None
    """A placeholder whose text loses its end where the prompt is too long; None refuses such a prompt."""
    stop: tuple[str, ...] = ("\n",)
    """Texts that end an answer [P: the first newline]."""
    max_new_tokens: int = 64
    """Most tokens of an answer [O]."""
    temperature: float = 0.0
    """0 takes the likeliest token [P]."""
    top_p: float = 1.0
    """Draw from the fewest tokens whose probabilities sum to this."""
    n: int = 1
    """Answers to each prompt; scores are their mean."""
    seed: int = 0
    """Which answers are drawn."""
    bleu_tokenize: Literal["13a", "char", "intl", "none", "zh"] = "13a"
    """sacrebleu's tokenizer for BLEU."""
    rouge_stemmer: bool = True
    """Whether ROUGE compares English word stems [O]."""

    def check(self) -> None:
        """Refuse unknown metrics, metrics without answers, and options that mean nothing together."""
        super().check()
        known = [*METRICS, *SCORED]
        for name in self.metrics:
            if name not in known:
                raise ConfigError(f"metrics: no metric is called {name!r}{nearest(name, known)}; there are "
                                  f"{', '.join(known)}.")
        self.require("metrics must name at least one, each once",
                     0 < len(self.metrics) == len(set(self.metrics)), metrics=self.metrics)
        needy = [name for name in self.metrics if name in METRICS and METRICS[name].references != "unused"]
        self.require("answers must name the fields of right answers for these metrics", bool(self.answers) or not needy,
                     metrics=needy)
        self.require("shots must not be negative", self.shots >= 0, shots=self.shots)
        self.require("shots needs shots_data and answers, and shots_data needs shots",
                     bool(self.shots) == (self.shots_data is not None) and (bool(self.answers) or not self.shots),
                     shots=self.shots, shots_data=self.shots_data, answers=self.answers)
        self.require("n must be at least 1", self.n >= 1, n=self.n)
        self.require("n answers to a prompt are all the same at temperature 0", self.n == 1 or self.temperature > 0,
                     n=self.n, temperature=self.temperature)
        if self.shorten is not None:
            names = self.placeholders("prompt", self.prompt)
            self.require("shorten must be a placeholder of prompt", self.shorten in names, shorten=self.shorten,
                         placeholders=names)
            self.require("shorten must not be a constant", self.shorten not in self.constants, shorten=self.shorten)
        SamplingConfig(**self.sampling())

    def ready(self, task: Task, config: Any) -> None:
        """Refuse metrics whose package is not installed or whose scorer is not named."""
        for package in _packages(self):
            text_scores.scoring_package(_MODULES[package])
        for option in _scorer_options(self).values():
            if _source(task, config, option) is None:
                raise ConfigError(
                    f"{task.path}: the metric {option.removesuffix('_scorer')} needs a scorer, got none; pass "
                    f"--{option.replace('_', '-')} package.module:function or a reward model's checkpoint."
                )

    def sampling(self) -> dict[str, Any]:
        """Options of the answers."""
        return {name: getattr(self, name) for name in ("max_new_tokens", "temperature", "top_p", "seed", "stop")}


def run_generation(task: Task, loaded: Loaded, config: Any) -> Outcome:
    """Answer every item and score the answers; config: an EvaluateConfig."""
    options: GenerationTask = task.options
    model = language_model(task.name, loaded)
    scorers = _scorers(task, config, model.lm_weight.device)
    items = read_items(options.data, options.limit, config.limit, on_bad_line=config.on_bad_line)
    references = _references(options, items)
    prompts = make_prompts(options, items, loaded, config.on_bad_line)
    found = complete(loaded, list(prompts.texts), n=options.n, batch_size=config.batch_size, **options.sampling())
    several = found if options.n > 1 else [[one] for one in found]
    answered = [
        Answered(item, prompt, answers, [one.text.strip() for one in answers], right)
        for item, prompt, answers, right in zip(items, prompts.texts, several, references, strict=True)
    ]
    answers = AnswerSet(task.name, items.identity, answered, options)
    measures, scores = _measure(answers, scorers)
    records = [
        {
            "line": each.item.line, "prompt": each.prompt, "answers": list(each.texts),
            "finish_reasons": [one.finish_reason for one in each.answers], "references": list(each.references),
            **{name: values[place] for name, values in scores.items()},
        }
        for place, each in enumerate(answered)
    ]
    return Outcome(measures, records, _about(options, items, prompts, measures, config))


def _measure(
    answers: AnswerSet, scorers: Mapping[str, Scorer]
) -> tuple[list[Measure], dict[str, list[float]]]:
    """The measures in the order of the task, and the score of each item where a metric is a mean over items."""
    measures: list[Measure] = []
    done: set[Any] = set()
    for name in answers.options.metrics:
        if name in SCORED:
            measures.append(_judged(answers, name, scorers[name]))
        elif METRICS[name].run not in done:  # the kinds of ROUGE are counted together
            done.add(METRICS[name].run)
            measures += METRICS[name].run(answers)
    means = [each for each in measures if each.items.shape == (len(answers.items), 1)]
    return measures, {each.metric: (each.scale * each.items[:, 0]).tolist() for each in means}


def _judged(answers: AnswerSet, name: str, scorer: Scorer) -> Measure:
    counts = [len(each.texts) for each in answers.items]
    numbers = scorer(
        [each.prompt for each in answers.items for _ in each.texts],
        [text for each in answers.items for text in each.texts],
    )
    per_item = [part.mean() for part in np.split(np.array(numbers), np.cumsum(counts)[:-1])]
    return answers.measure(name, np.array(per_item), higher_is_better=SCORED[name])


def _references(options: GenerationTask, items: Items) -> list[list[str]]:
    found = [references_of(options, item) for item in items]
    needed = [name for name in options.metrics if name in METRICS and METRICS[name].references == "needed"]
    for item, right in zip(items, found, strict=True):
        if needed and not right:
            raise item.error(f"task: {needed[0]} needs at least one right answer, got none")
    return found


def _scorers(task: Task, config: Any, device: Any) -> dict[str, Scorer]:
    return {
        name: find_scorer(option, _source(task, config, option), device, config.batch_size)
        for name, option in _scorer_options(task.options).items()
    }


def _scorer_options(options: GenerationTask) -> dict[str, str]:
    """Metric -> the option that names its scorer."""
    return {name: f"{name}_scorer" for name in SCORED if name in options.metrics}


def _source(task: Task, config: Any, option: str) -> Any:
    return task.scorers.get(option) or getattr(config, option)


def _packages(options: GenerationTask) -> list[str]:
    """Packages that the metrics need, by the names under which they are installed."""
    packages = (METRICS[name].package for name in options.metrics if name in METRICS)
    return sorted({package for package in packages if package is not None})


def _about(
    options: GenerationTask, items: Items, prompts: Prompts, measures: Sequence[Measure], config: Any
) -> dict[str, Any]:
    about: dict[str, Any] = {
        "data": str(items.path), "sha256": items.sha256, "items": len(items), "skipped": items.skipped,
        "shortened": prompts.shortened, "shots": options.shots, "sampling": options.sampling(), "n": options.n,
        "prompt": options.prompt, "instruction": options.instruction,
    }
    if prompts.examples is not None:
        about["shots_data"] = {"data": str(prompts.examples.path), "sha256": prompts.examples.sha256}
    about["versions"] = {name: metadata.version(name) for name in _packages(options)}
    about["details"] = {each.metric: dict(each.details) for each in measures if each.details}
    return about

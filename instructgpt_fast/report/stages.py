"""Which figures a stage's section holds, from the metrics that the stage writes, and why one may be missing."""

from __future__ import annotations

import numpy as np

from instructgpt_fast.report.charts import by_k_figure, frontier_figure, reliability_figure, time_figure
from instructgpt_fast.report.figure import absent
from instructgpt_fast.report.lines import Line, Look, line_figure
from instructgpt_fast.report.markup import Markup
from instructgpt_fast.report.read import RunFiles
from instructgpt_fast.report.series import derived, number, series_of
from instructgpt_fast.report.throughput import throughput

__all__ = ["figures_of"]

RATE = Look(hold=(0.0,), smooth=False)


def figures_of(run: RunFiles) -> list[tuple[str, list[Markup]]]:
    """(heading, figures) of each group, in the order in which one asks."""
    if not run.records:
        return []
    made = {"reward": _reward, "ppo": _ppo}.get(run.stage or "", _language_model)
    return made(run)


def _of(run: RunFiles, label: str, name: str) -> Line:
    return Line(label, series_of(run.records, name))


def _never(*names: str) -> str:
    """Why a metric that every run of the stage writes is not there."""
    return f"metrics.jsonl holds no record of {' or '.join(names)}: an earlier version, or the run stopped before."


def _language_model(run: RunFiles) -> list[tuple[str, list[Markup]]]:
    loss = series_of(run.records, "loss")
    no_eval = (
        "The run was not given eval_data, so nothing was measured on text that it did not train on."
        if run.options.get("eval_data", "none") == "none" else _never("eval_loss")
    )
    held_out = [_of(run, "held out", name) for name in ("eval_loss", "eval_perplexity")]
    measured = len(held_out[0].series) > 0
    learned = [
        line_figure(
            "Loss", "nats a token; lower is better", [Line("training", loss), *held_out[:measured]], _never("loss"),
        ),
        line_figure(
            "Perplexity", "per token, exp(loss); lower is better",
            [Line("training", derived(loss, np.exp)), *held_out[1:1 + measured]],
            _never("loss"), Look(log=True),
        ),
    ]
    if not measured:
        learned.append(absent("Held-out loss", no_eval))
    rewards = series_of(run.records, "eval_reward")
    if len(rewards):
        unit = "mean score on validation prompts; higher is better"
        learned.append(line_figure("Reward", unit, [Line("reward", rewards)], ""))
    return [("Learning", learned), ("Optimizer and speed", _optimizer(run))]


def _clipped_at(run: RunFiles) -> tuple[float, str] | None:
    limit = run.options.get("max_grad_norm")
    return (float(limit), f"max_grad_norm {limit:g}") if isinstance(limit, (int, float)) else None


def _optimizer(run: RunFiles) -> list[Markup]:
    rate, norm = "learning_rate", "grad_norm"
    return [
        line_figure("Learning rate", "of each step, as planned", [_of(run, "learning rate", rate)], _never(rate), RATE),
        line_figure(
            "Gradient norm", "L2, before clipping; should not grow", [_of(run, "norm", norm)], _never(norm),
            Look(level=_clipped_at(run)),
        ),
        *throughput(run),
    ]


def _reward(run: RunFiles) -> list[tuple[str, list[Markup]]]:
    learned = [
        line_figure(
            "Loss", "nats a pair; lower is better, a coin has 0.693",
            [_of(run, "training", "loss"), *_measured(run, "eval_loss")], _never("loss"),
            Look(level=(float(np.log(2)), "a coin")),
        ),
        line_figure(
            "Accuracy", "share of pairs in the labeler’s order; higher is better",
            [_of(run, "training", "accuracy"), *_measured(run, "eval_accuracy", "eval_accuracy_ci95")],
            _never("accuracy"), Look(percent=True, level=(0.5, "chance")),
        ),
    ]
    return [("Learning", [*learned, *_held_out(run)]), ("Optimizer and speed", _optimizer(run))]


def _measured(run: RunFiles, name: str, half_width: str | None = None) -> list[Line]:
    """The line of a measurement on held-out data, none where there was none."""
    series = series_of(run.records, name)
    width = None if half_width is None else series_of(run.records, half_width)
    return [_matched(Line("held out", series, width))] if len(series) else []


def _held_out(run: RunFiles) -> list[Markup]:
    if run.calibration:
        last = run.calibration[-1]
        rows = [(f"K = {part['k']}", part["accuracy"], part["half_width"], part["pairs"]) for part in last["by_k"]]
        rows.append(("all", last["accuracy"], last["half_width"], last["pairs"]))
        return [by_k_figure(rows), reliability_figure(last)]
    last_seen = next((record for record in reversed(run.records) if "eval_accuracy" in record), None)
    if last_seen is None:
        why = "The run was not given eval_data (held-out comparisons), so the model was never measured."
        return [absent("Accuracy by K and calibration", why)]
    name = "eval_accuracy_k"
    shares = {key.removeprefix(name): number(value) for key, value in last_seen.items() if key.startswith(name)}
    found = [(f"K = {k}", share, None, None) for k, share in shares.items() if share is not None and 0 <= share <= 1]
    why = "calibration.json is missing: the run was made by an earlier version, or the file was deleted."
    return [*([by_k_figure(found)] if found else []), absent("Calibration", why)]


def _ppo(run: RunFiles) -> list[tuple[str, list[Markup]]]:
    def one(title: str, unit: str, name: str, look: Look | None = None) -> Markup:
        return line_figure(title, unit, [_of(run, title, name)], _never(name), look)

    kl, scores = series_of(run.records, "objective/kl"), series_of(run.records, "objective/scores")
    spread = Line("score", scores, series_of(run.records, "objective/scores_std"))
    clip = run.options.get("cliprange", 0.2)
    aim = [
        frontier_figure(kl, scores),
        line_figure("Score", "mean over responses, higher is better; band: one standard deviation", [_matched(spread)],
                    _never("objective/scores")),
        line_figure("Score and penalty", "mean per response; PPO raises score − β·KL", [
            _of(run, "score − β·KL", "objective/rlhf_reward"), _of(run, "−β·KL", "objective/non_score_reward"),
        ], _never("objective/rlhf_reward")),
        one("KL to the reference", "nats per response; should rise slowly and level off", "objective/kl",
            Look(hold=(0.0,), level=(0.0, ""))),
    ]
    shape = [
        line_figure("Response length", "tokens, should not drift far; band: one standard deviation", [_matched(Line(
            "length", series_of(run.records, "val/response_length"), series_of(run.records, "val/response_length_std"),
        ))], _never("val/response_length"), Look(hold=(0.0,))),
        one("Share that ends with EOS", "of responses; should stay near 100 %", "val/eos_rate",
            Look(percent=True, hold=(0.0, 1.0))),
        line_figure("Entropy and KL", "nats a token; entropy should not fall to 0", [
            _of(run, "entropy", "policy/entropy_avg"), _of(run, "KL to the reference", "objective/kl_per_token"),
        ], _never("policy/entropy_avg"), Look(hold=(0.0,))),
        one("Score and length", "correlation over responses; near 1 length is paid", "val/score_length_correlation",
            Look(hold=(-1.0, 1.0), level=(0.0, ""))),
    ]
    update = [
        one("Probability ratio", "mean, new over old policy; should stay near 1", "val/ratio", Look(level=(1.0, ""))),
        line_figure("Clipped share", f"of tokens, outside ± {clip}; small is healthy", [
            _of(run, "ratio", "policy/clipfrac_avg"), _of(run, "value", "val/clipfrac_avg"),
        ], _never("policy/clipfrac_avg"), Look(percent=True, hold=(0.0,))),
        one("Approximate KL of an update", "nats a token; small is healthy", "policy/approxkl_avg", Look(hold=(0.0,))),
        one("Explained variance", "of the returns, by the value model; 1 is all", "val/explained_variance",
            Look(hold=(0.0,), level=(0.0, "a constant"))),
        line_figure("Gradient norm", "L2, before clipping; should not grow", [
            _of(run, "policy", "policy/grad_norm"), _of(run, "value", "value/grad_norm"),
        ], _never("policy/grad_norm"), Look(level=_clipped_at(run))),
        one("Policy loss", "clipped objective, negated; stays near 0", "loss/policy_avg"),
        one("Value loss", "squared error of the forecast; lower is better", "loss/value_avg"),
        line_figure("Learning rate", "as planned", [_of(run, "policy", "lr"), _of(run, "value", "value_lr")],
                    _never("lr"), RATE),
    ]
    parts = [(name, series_of(run.records, f"time/{name}")) for name in ("rollout", "score", "update")]
    if len(series_of(run.records, "loss/ptx")):
        update.append(one("Pretraining loss", "nats a token on the pretraining mix; should not rise", "loss/ptx"))
    if len(set(series_of(run.records, "objective/kl_coef").values.tolist())) > 1:
        aim.append(one("KL coefficient β", "adapted", "objective/kl_coef"))
    return [("What is aimed at", aim), ("What the responses are like", shape), ("The update", update),
            ("Speed", [time_figure(parts), *throughput(run)])]


def _matched(line: Line) -> Line:
    """The line with its half widths at its own steps; without them where records lack some."""
    width = line.half_width
    if width is None or not np.array_equal(width.steps, line.series.steps):
        return Line(line.label, line.series)
    return line

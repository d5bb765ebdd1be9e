"""The tables that the ablations print and record."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.ablations.findings import Finding
from benchmarks.ablations.policies import Policy
from benchmarks.ablations.rewards import NAMES, RewardModel

WIDTH = 120


def policies_table(policies: Sequence[Policy]) -> Table:
    """One line a policy and seed, with standard errors over the prompts."""
    table = Table(title="Policies on held-out prompts (+- standard error) and text")
    table.add_column("policy", no_wrap=True)
    for column in ("seed", "reward", "labelers' opinion", "KL, nats", "tokens", "with EOS", "perplexity"):
        table.add_column(column, justify="right", no_wrap=True)
    for policy in policies:
        scores = policy.scores
        table.add_row(
            policy.name, str(policy.seed), f"{scores.reward:.3f} +- {scores.reward_error:.3f}",
            f"{scores.opinion:.3f} +- {scores.opinion_error:.3f}", f"{scores.kl:.2f}", f"{scores.length:.1f}",
            f"{scores.finished:.0%}", f"{policy.perplexity:.2f}",
        )
    return table


def rewards_table(models: Sequence[RewardModel]) -> Table:
    """One line a reward model: loss and accuracy on its training prompts and held out."""
    table = Table(title="Reward models: loss (nats a pair) and accuracy (+- standard error)")
    table.add_column("pairs", no_wrap=True)
    for column in ("epochs", "seed", "training loss", "held-out loss", "training accuracy", "held-out accuracy"):
        table.add_column(column, justify="right", no_wrap=True)
    for model in models:
        training, held_out = model.training, model.held_out
        table.add_row(
            NAMES[model.grouped], str(model.epochs), str(model.seed), f"{training.loss:.3f}", f"{held_out.loss:.3f}",
            f"{training.accuracy:.1%} +- {training.accuracy_error:.1%}",
            f"{held_out.accuracy:.1%} +- {held_out.accuracy_error:.1%}",
        )
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """One line a direction of the paper."""
    table = Table(title="Directions of the paper (arXiv:2203.02155): difference +- standard error, positive as claimed")
    for column in ("direction", "where"):
        table.add_column(column)
    for column in ("difference", "unit", "verdict"):
        table.add_column(column, justify="right", no_wrap=True)
    for found in findings:
        table.add_row(
            found.claim, found.source, f"{found.mean:+.3f} +- {found.error:.3f}", found.unit, found.verdict
        )
    return table


def printed(tables: Sequence[Table], lines: Sequence[str]) -> list[str]:
    """Print tables and lines; return the text, a line an entry."""
    console = Console(width=WIDTH, record=True)
    for part in (*tables, *lines):
        console.print(part)
    return console.export_text().splitlines()

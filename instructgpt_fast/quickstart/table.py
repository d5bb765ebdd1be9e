"""The quickstart's results as people read them: a table, and three prompts answered by each model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAMES = {"base": "base (GPT)", "sft": "SFT", "ppo": "PPO", "ppo_ptx": "PPO-ptx"}


def show_results(results: dict[str, Any], folder: Path) -> None:
    """Print the results to standard output."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=f"InstructGPT with {results['parameters'] / 1e6:.1f}M parameters")
    for title in ("model", "perplexity", "reward", "opinion", "KL", "tokens", "ends"):
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for name, title in NAMES.items():
        scores = results["policies"].get(name)
        row = [title, f"{results['perplexity'][name]:.1f}"]
        if scores is not None:
            row += [
                f"{scores['reward']:+.2f}±{scores['reward_error']:.2f}",
                f"{scores['opinion']:+.2f}±{scores['opinion_error']:.2f}",
                # Adding 0.0 turns a rounded -0.0 into 0.0.
                f"{round(scores['kl'], 2) + 0.0:.2f}", f"{scores['length']:.1f}", f"{scores['finished']:.0%}",
            ]
        table.add_row(*row)
    console.print(table)
    accuracy = results["accuracy"]["overall"]
    console.print(
        f"Reward model: orders {accuracy['accuracy']:.1%} ± {accuracy['half_width']:.1%} of {accuracy['pairs']} "
        f"held-out pairs as the labeler did (chance 50 %, two labelers agree on {results['agreement']:.1%})."
    )
    console.print(
        "Everything is measured on chapters that no model was trained on. perplexity: per token. reward: the reward "
        "model's score of an answer at temperature 1. opinion: what ten people think of the answer's words, on "
        "average; no policy ever saw it. KL: from the SFT model, in nats per answer. tokens, ends: length of an "
        "answer, share that ends by itself. The labelers are the ten human ratings of each word in the VADER "
        "lexicon, summed over an answer: a stand-in."
    )
    answers = results["answers"]
    for index, prompt in enumerate(answers["prompts"]):
        console.print(f"\n[bold]{escape(prompt)}[/bold]")
        for name, title in NAMES.items():
            console.print(f"  [cyan]{title:>10}[/cyan]  {escape(answers[name][index].strip())}")
    console.print(f"\nThe run is in {folder}: results.json, metrics.jsonl of each stage, checkpoints.", soft_wrap=True)
    console.print(f"Its curves, samples and diagnosis, one page: {folder / 'report.html'}", soft_wrap=True)
    console.print("Talk to it:")
    console.print(f"  instructgpt-fast chat --checkpoint {results['checkpoints']['ppo_ptx']}", soft_wrap=True)

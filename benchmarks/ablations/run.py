"""Reruns a finished quickstart with one thing changed at a time, and says which of the paper's directions appear.

    instructgpt-fast quickstart                  # once
    python benchmarks/ablations/run.py           # about a quarter of an hour on two cores

PPO with ptx off and on, beta 0, 0.02 and 2, reward models on grouped and on shuffled pairs; everything else is the
quickstart's. Prints tables and writes benchmarks/results/cpu/ablations.json with the printed lines in it.

Not covered: a model of a few million parameters and some thousand episodes shows directions, not the paper's sizes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.ablations.finished import Quickstart
from benchmarks.ablations.policies import policy_findings, train_policies
from benchmarks.ablations.rewards import reward_findings, train_reward_models
from benchmarks.ablations.tables import findings_table, policies_table, printed, rewards_table
from benchmarks.measure import write_results


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quickstart", type=Path, default=Path("runs/quickstart"), help="a finished run")
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"), help="where the reruns are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--episodes", type=int, help="of each PPO run; the quickstart's by default")
    parser.add_argument("--reward-prompts", type=int, default=300, help="comparisons that the reward models train on")
    parser.add_argument("--reward-epochs", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--only", choices=("ppo", "reward"), help="one half; writes no file")
    parser.add_argument("--no-record", action="store_true", help="print only; write no file under benchmarks/results")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    source = Quickstart.read(options.quickstart)
    started = time.monotonic()
    episodes = options.episodes or source.plan.episodes
    policies, models = [], []
    if options.only != "reward":
        policies = train_policies(source, options.output, options.seeds, episodes, say)
    if options.only != "ppo":
        models = train_reward_models(
            source, options.output, options.seeds, options.reward_prompts, options.reward_epochs, say
        )
    seconds = time.monotonic() - started
    findings = (policy_findings(policies) if policies else []) + (reward_findings(models) if models else [])
    tables = [policies_table(policies)] if policies else []
    tables += [rewards_table(models)] if models else []
    lines = printed([*tables, findings_table(findings)], [f"Trained and measured in {seconds / 60:.1f} minutes."])
    if options.only or options.no_record:
        return
    settings = {
        "seeds": options.seeds, "episodes": episodes, "reward_prompts": options.reward_prompts,
        "reward_epochs": options.reward_epochs, "seconds": round(seconds),
    }
    path = write_results("ablations", "cpu", {
        "settings": settings, "findings": [f.as_dict() for f in findings],
        "policies": [p.as_dict() for p in policies], "reward_models": [m.as_dict() for m in models], "printed": lines,
    })
    print(f"written to {path}")


if __name__ == "__main__":
    main()

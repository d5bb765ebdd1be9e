"""What the stage benchmarks do: one model size, one set of files, the same for every contender."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STAGES = ("pretrain", "sft", "reward", "ppo", "generate")


@dataclass(frozen=True)
class Size:
    """A GPT of the size that trains on a laptop: 4 layers, 256 wide, 4 heads."""

    vocab: int
    layers: int = 4
    width: int = 256
    heads: int = 4
    positions: int = 512


@dataclass(frozen=True)
class Work:
    """Files and batch sizes of one benchmark run.

    size: model. folder: where `files.write_work` put the files. Batches are counted in windows of size.positions tokens
    (pretrain), examples (SFT), prompts with `answers` ranked answers each (reward), episodes (PPO; one optimizer step
    an iteration, in passes of ppo_pass episodes) and rows (generate); lengths in tokens.
    """

    size: Size
    folder: Path
    pretrain_batch: int = 8
    sft_batch: int = 16
    answers: int = 6
    reward_batch: int = 4
    ppo_batch: int = 32
    ppo_pass: int = 16
    ppo_new_tokens: int = 48
    generate_batch: int = 32
    prompt_tokens: int = 32
    new_tokens: int = 64
    threads: int = 2
    seed: int = field(default=0)

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def text(self) -> Path:
        return self.folder / "text.jsonl"

    @property
    def demonstrations(self) -> Path:
        return self.folder / "demonstrations.jsonl"

    @property
    def comparisons(self) -> Path:
        return self.folder / f"comparisons-{self.answers}.jsonl"

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts.jsonl"

    @property
    def policy(self) -> Path:
        return self.folder / "policy"

    @property
    def scorer(self) -> Path:
        return self.folder / "scorer"

    @property
    def pass_sequences(self) -> int:
        """Sequences in one forward and backward pass of the reward stage, the same for every contender."""
        return self.answers * self.reward_batch

    def rows(self, path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def rows_in_order(self, path: Path) -> list[dict[str, Any]]:
        """The rows as `instructgpt_fast.train` will meet them, so that every contender trains on the same batches."""
        order = json.loads(order_path(path).read_text(encoding="utf-8"))
        rows = self.rows(path)
        return [rows[index] for index in order]

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> Work:
        values = json.loads(text)
        return cls(**{**values, "size": Size(**values["size"]), "folder": Path(values["folder"])})


def order_path(path: Path) -> Path:
    """Where the order of a file's rows is kept."""
    return path.with_suffix(".order.json")

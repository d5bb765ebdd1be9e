"""What the stage benchmarks do: one model size, one set of files, the same for every contender."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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

    size: model. tokenizer: tokenizer.json whose vocabulary has size.vocab entries. demonstrations, comparisons, prompts,
    text: files in the package's formats. Batches are counted in sequences (pretrain, SFT), prompts (reward) and
    episodes (PPO); lengths in tokens.
    """

    size: Size
    folder: Path
    pretrain_batch: int = 8
    sft_batch: int = 16
    reward_batch: int = 4
    ppo_batch: int = 32
    ppo_minibatches: int = 2
    prompt_tokens: int = 32
    new_tokens: int = 48

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
        return self.folder / "comparisons.jsonl"

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts.jsonl"

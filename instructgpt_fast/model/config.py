"""The shape of a GPT: how many layers, how wide, how far it sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instructgpt_fast.config import nearest
from instructgpt_fast.errors import ConfigError


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a GPT-2/GPT-3 model (Radford et al. 2019; Brown et al. 2020, arXiv:2005.14165, section 2.1).

    vocab_size: number of token ids, the rows of the tied embedding.
    n_positions: longest sequence in tokens, the rows of the position embedding.
    n_layer, n_head, d_model: transformer blocks, attention heads a block, width of the residual stream.
    d_ff: width of the feed-forward layer; None means 4 * d_model.
    residual_dropout: probability of dropping an entry of the embedding sum and of each branch before it joins
        the residual stream (Vaswani et al. 2017, arXiv:1706.03762, section 5.4); active in training only.
    band_width: when set, layers 1, 3, 5, ... attend only to the last `band_width` tokens, the own one included.
    layer_norm_eps: added to the variance inside every layer norm.
    Raises ConfigError when a number is out of range or d_model is no multiple of n_head.
    """

    vocab_size: int
    n_positions: int
    n_layer: int
    n_head: int
    d_model: int
    d_ff: int | None = None
    residual_dropout: float = 0.0
    band_width: int | None = None
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_layer", "n_head", "d_model", "d_ff", "band_width"):
            value = getattr(self, name)
            if value is None and name in ("d_ff", "band_width"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"GPTConfig: {name} must be a positive integer, got {value!r}; give one.")
        if self.d_model % self.n_head:
            raise ConfigError(
                f"GPTConfig: d_model must be a multiple of n_head, got d_model={self.d_model} and "
                f"n_head={self.n_head}; choose a head count that divides the width."
            )
        if not 0.0 <= self.residual_dropout < 1.0:
            raise ConfigError(
                f"GPTConfig: residual_dropout must be in [0, 1), got {self.residual_dropout}; use 0 for none."
            )
        if not self.layer_norm_eps > 0.0:
            raise ConfigError(f"GPTConfig: layer_norm_eps must be positive, got {self.layer_norm_eps}.")

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_head

    @property
    def feed_forward(self) -> int:
        """Width of the feed-forward layer, with the default of 4 * d_model filled in."""
        return 4 * self.d_model if self.d_ff is None else self.d_ff

    def window(self, layer: int) -> int | None:
        """How many tokens back `layer` (counted from 0) sees: None for a dense layer, the band for a banded one."""
        return self.band_width if layer % 2 else None

    @property
    def num_parameters(self) -> int:
        """Number of weights; the embedding that also serves as the output layer counts once."""
        d, f = self.d_model, self.feed_forward
        norms = 2 * 2 * d
        attention = d * 3 * d + 3 * d + d * d + d
        feed_forward = d * f + f + f * d + d
        embeddings = (self.vocab_size + self.n_positions) * d
        return embeddings + self.n_layer * (norms + attention + feed_forward) + 2 * d

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GPTConfig:
        """Build a config from field names and values; raises ConfigError on a missing or unknown field."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise ConfigError(
                    f"GPTConfig: unknown field {name!r}{nearest(name, fields)} The fields are {', '.join(fields)}."
                )
        needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
        missing = [name for name in needed if name not in values]
        if missing:
            raise ConfigError(f"GPTConfig: fields {missing} are missing; give them or start from a preset.")
        return cls(**values)

"""Scalar models: a GPT whose output layer is replaced by a projection to one number, for rewards and values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from instructgpt_fast.model.config import GPTConfig
from instructgpt_fast.model.transformer import GPT


class ScalarModel(nn.Module):
    """A GPT trunk with a scalar head (Ouyang et al. 2022, arXiv:2203.02155, section 3.5 and appendix C.2).

    The head starts as N(0, 1 / sqrt(D + 1)) with bias 0 (Stiennon et al. 2020, arXiv:2009.01325, appendix B).
    bias_shift: f32 scalar added to every output; set so that demonstrations score 0 on average. It stays f32 when the
    model is cast, and no optimizer touches it.
    """

    bias_shift: Tensor

    def __init__(
        self,
        config: GPTConfig,
        *,
        trunk: GPT | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the model with a fresh head; `trunk` is used as it is when given, else drawn fresh."""
        super().__init__()
        self.config = config
        self.trunk = GPT(config, device=device, dtype=dtype) if trunk is None else trunk
        like = self.trunk.wte.weight
        self.head = nn.Linear(config.d_model, 1, device=like.device, dtype=like.dtype)
        self.register_buffer("bias_shift", torch.zeros((), dtype=torch.float32, device=like.device))
        self.reset_head()

    @classmethod
    def from_gpt(cls, gpt: GPT) -> ScalarModel:
        """Put a fresh head on `gpt`, which becomes the trunk itself: copy it first to keep training both."""
        return cls(gpt.config, trunk=gpt)

    @torch.no_grad()
    def reset_head(self) -> None:
        """Draw the head's weight from N(0, 1 / sqrt(D + 1)) and set its bias to 0."""
        if self.head.weight.is_meta:
            return
        self.head.weight.normal_(0.0, 1.0 / math.sqrt(self.config.d_model + 1))
        self.head.bias.zero_()

    def forward(
        self, tokens: Tensor, *, cu_seqlens: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """Return one number a token: head(hidden) + bias_shift, computed in f32.

        Arguments as for `GPT.forward`. Returns f32 [B, T], or [N] for a packed batch.
        """
        hidden = self.trunk(tokens, cu_seqlens=cu_seqlens, position_ids=position_ids)
        scalars = functional.linear(hidden.float(), self.head.weight.float(), self.head.bias.float())
        return scalars.squeeze(-1) + self.bias_shift

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> ScalarModel:
        # Module.to casts every float buffer; a shift rounded to bf16 would move all scores off their zero.
        kept = self.bias_shift
        super()._apply(fn, recurse)
        if self.bias_shift.dtype != torch.float32:
            self.bias_shift = kept.to(device=self.bias_shift.device)
        return self


def scores_at_last(values: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Return the number at the last token of each sequence: the score of the sequence.

    values: f32 [N], packed; cu_seqlens: int32 [S + 1]. Returns f32 [S].
    Raises ValueError on an empty sequence, which has no last token.
    """
    if values.device.type == "cpu" and bool((cu_seqlens.diff() <= 0).any()):
        raise ValueError(
            f"scores_at_last: each sequence must have at least one token, got lengths {cu_seqlens.diff().tolist()}; "
            "leave empty sequences out."
        )
    return values.index_select(0, cu_seqlens[1:].long() - 1)

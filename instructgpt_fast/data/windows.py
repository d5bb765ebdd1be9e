"""Windows of equal length over a stream of tokens, for training on text without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instructgpt_fast.errors import ConfigError, DataError

__all__ = ["TokenWindows"]


class TokenWindows:
    """The stream cut into windows of `length` tokens that do not overlap; what is left at its end is not used.

    A window may hold parts of several documents with EOS between them, and nothing is masked between them, as in
    GPT-3's pretraining (Brown et al. 2020, appendix B).
    """

    def __init__(self, tokens: Any, length: int) -> None:
        """Cut `tokens`: TokenShards, or any one-dimensional array of ids.

        Raises ConfigError for a length below 2, DataError for a stream shorter than one window.
        """
        if length < 2:
            raise ConfigError(f"TokenWindows: a window needs 2 tokens, one to see and one to predict, got {length}")
        if len(tokens) < length:
            raise DataError(
                f"TokenWindows: the text must fill at least one window of {length} tokens, got {len(tokens)} tokens; "
                "give more text or a shorter context"
            )
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        return len(self.tokens) // self.length

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return the windows at `indices`, int64 [len(indices), length]; raises DataError for one there is not."""
        rows = np.empty((len(indices), self.length), dtype=np.int64)
        for row, index in zip(rows, indices, strict=True):
            if not 0 <= index < len(self):
                raise DataError(f"TokenWindows: a window must be in 0..{len(self) - 1}, got {index}")
            row[:] = self.tokens[index * self.length : (index + 1) * self.length]
        return torch.from_numpy(rows)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield all windows in order, `size` at a time and fewer in the last batch: int64 [b, length]."""
        for start in range(0, len(self), size):
            yield self.batch(range(start, min(start + size, len(self))))

"""pass@k: how likely it is that one of k programs passes the tests, estimated from n >= k of them."""

from __future__ import annotations

import math

from instructgpt_fast.errors import ConfigError


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k), the unbiased estimate of Chen et al. 2021 (arXiv:2107.03374, eq. 1).

    samples: n, programs drawn for the problem. correct: c, those that passed. k: programs that one would draw.
    The quotient is a product of k factors below 1, so that no large binomial is ever formed.
    Raises ConfigError unless 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= samples or not 0 <= correct <= samples:
        raise ConfigError(
            f"pass_at_k: k must lie in 1..samples and correct in 0..samples, got k={k}, samples={samples} and "
            f"correct={correct}; draw more programs."
        )
    # C(n - c, k) / C(n, k) = prod over i < k of (n - c - i) / (n - i): 0 as soon as fewer than k programs fail.
    return 1.0 - math.prod(max(samples - correct - i, 0) / (samples - i) for i in range(k))

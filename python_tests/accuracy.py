"""The one comparer of numbers: an output is judged beside plain PyTorch's own error, never by a tolerance made up.

Three results of the same rounded inputs meet here:

* `actual`: what is judged, in the dtype it came in;
* `oracle64`: the same mathematics in float64, taken as the truth;
* `yardstick`: plain PyTorch in the dtype of the op, which shows how large an error this dtype costs.

The rule (err is |value - oracle64|, ulp is the spacing of `actual`'s dtype at the oracle's value):

    rms(err) <= max(1.25 * rms(yardstick err), 0.5 * rms(ulp))      no worse on the whole than plain PyTorch
    err_i    <= 2 * max(yardstick err) + ulp_i                      and nowhere much worse

The root mean square has a bound of its own because the maximum alone passes a layer norm computed wholly in bfloat16.
Half an ulp is granted to it because a yardstick can be exact by luck (one element, a copy), and a result rounded
correctly must always pass. NaN and infinities must stand exactly where the oracle, rounded to the dtype, has them.
Integers and bools must be equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Figures", "compare", "same_bits", "ulp"]

RMS_FACTOR = 1.25
MAX_FACTOR = 2.0
ULPS = 1.0


@dataclass(frozen=True)
class Figures:
    """What was measured: root mean square and maximum of both errors, and the largest share of a bound used."""

    rms: float
    max: float
    yardstick_rms: float
    yardstick_max: float
    share: float


def ulp(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Spacing of the numbers of `dtype` at each of `values`, as float64; constant at and below the smallest normal."""
    info = torch.finfo(dtype)
    magnitude = values.detach().double().abs().clamp(min=info.tiny, max=info.max)
    _, exponent = torch.frexp(magnitude)
    return torch.ldexp(torch.full_like(magnitude, info.eps), exponent - 1)


def compare(
    actual: torch.Tensor,
    oracle64: torch.Tensor,
    yardstick: torch.Tensor,
    *,
    why_looser: str | None = None,
    rms_factor: float = RMS_FACTOR,
    max_factor: float = MAX_FACTOR,
    ulps: float = ULPS,
    name: str = "output",
) -> Figures:
    """Require `actual` to be as near to the oracle as plain PyTorch is, and return the figures.

    All three tensors have one shape; `oracle64` is float64 (or an integer or bool dtype, then equality is required).
    `ulps` scales the absolute part of both bounds. A bound looser than the defaults must carry its reason in
    `why_looser`. Raises AssertionError naming the figures, ValueError for a comparison that would judge nothing.
    """
    looser = rms_factor > RMS_FACTOR or max_factor > MAX_FACTOR or ulps > ULPS
    if looser and not why_looser:
        raise ValueError(f"compare: {name}: a bound looser than the rule must say why, got why_looser={why_looser!r}")
    actual, oracle64, yardstick = actual.detach(), oracle64.detach(), yardstick.detach()
    assert actual.shape == oracle64.shape, f"{name}: shape {tuple(actual.shape)}, oracle {tuple(oracle64.shape)}"
    if yardstick.shape != oracle64.shape:
        raise ValueError(
            f"compare: {name}: yardstick has shape {tuple(yardstick.shape)}, oracle {tuple(oracle64.shape)}"
        )
    if not actual.dtype.is_floating_point:
        assert torch.equal(actual.to(oracle64.dtype), oracle64), f"{name}: {actual.dtype} values differ from the oracle"
        return Figures(0.0, 0.0, 0.0, 0.0, 0.0)
    if oracle64.dtype != torch.float64:
        raise ValueError(f"compare: {name}: the oracle must be float64, got {oracle64.dtype}")
    finite = _require_same_non_finite(actual, oracle64, yardstick, name)
    return _judge(actual.double()[finite], oracle64[finite], yardstick.double()[finite],
                  ulp(oracle64[finite], actual.dtype) * ulps, rms_factor, max_factor, name)


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors are equal bit for bit (two NaN of one pattern are equal, 0.0 and -0.0 are not)."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    flat = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (left, right))
    return torch.equal(*flat)


def _require_same_non_finite(
    actual: torch.Tensor, oracle64: torch.Tensor, yardstick: torch.Tensor, name: str
) -> torch.Tensor:
    """Check NaN and infinities against the rounded oracle; return where the oracle is finite in the dtype."""
    expected = oracle64.to(actual.dtype)
    wrong_nan = actual.isnan() != expected.isnan()
    wrong_inf = (actual.isinf() | expected.isinf()) & ~expected.isnan() & (actual != expected)
    # An infinity where the largest finite number stands is one rounding away, and the other way round.
    limit = torch.finfo(actual.dtype).max
    at_the_edge = oracle64.abs().isfinite() & (oracle64.abs() >= limit * (1 - torch.finfo(actual.dtype).eps))
    at_the_edge &= actual.isinf() | (actual.abs() == limit)
    wrong = wrong_nan | (wrong_inf & ~at_the_edge)
    assert not bool(wrong.any()), (
        f"{name}: {int(wrong.sum())} of {wrong.numel()} elements are NaN or infinite where the oracle is not, or the "
        f"other way round; first at {wrong.nonzero()[0].tolist()}"
    )
    finite = expected.isfinite() & actual.isfinite()
    if not bool(yardstick[finite].isfinite().all()):
        raise ValueError(f"compare: {name}: the yardstick is not finite where the oracle is: choose another yardstick")
    return finite


def _judge(
    actual: torch.Tensor, oracle: torch.Tensor, yardstick: torch.Tensor, slack: torch.Tensor,
    rms_factor: float, max_factor: float, name: str,
) -> Figures:
    """Apply both bounds to flat float64 tensors."""
    if actual.numel() == 0:
        return Figures(0.0, 0.0, 0.0, 0.0, 0.0)
    error, reference = (actual - oracle).abs(), (yardstick - oracle).abs()
    rms, reference_rms = _rms(error), _rms(reference)
    rms_bound = max(rms_factor * reference_rms, 0.5 * _rms(slack))
    max_bounds = max_factor * reference.max() + slack
    shares = error / max_bounds
    worst = int(shares.argmax())
    figures = Figures(rms, float(error.max()), reference_rms, float(reference.max()),
                      max(rms / rms_bound, float(shares[worst])))
    assert rms <= rms_bound, (
        f"{name}: rms error {rms:.3e} is above {rms_bound:.3e} (plain PyTorch has {reference_rms:.3e}); {figures}"
    )
    assert float(shares[worst]) <= 1.0, (
        f"{name}: element {worst} of the finite ones is {float(actual[worst]):.9g}, oracle {float(oracle[worst]):.9g}: "
        f"error {float(error[worst]):.3e} is above {float(max_bounds[worst]):.3e}; {figures}"
    )
    return figures


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())

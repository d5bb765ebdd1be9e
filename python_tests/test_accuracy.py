"""The comparer passes what is as good as plain PyTorch and fails what is not; each way of failing is shown."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from python_tests.accuracy import compare, same_bits, ulp

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def triple(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Layer norm of 64 rows: the best result in `dtype`, the oracle, plain PyTorch."""
    torch.manual_seed(0)
    x = (torch.randn(64, 256) * 3 + 5).to(dtype)
    oracle = F.layer_norm(x.double(), (256,))
    return oracle.to(dtype), oracle, F.layer_norm(x, (256,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_passes_a_correct_result_and_the_yardstick_itself(dtype: torch.dtype) -> None:
    rounded, oracle, yardstick = triple(dtype)
    assert compare(rounded, oracle, yardstick).share <= 1
    assert compare(yardstick, oracle, yardstick).rms > 0


def test_fails_a_layer_norm_computed_wholly_in_bfloat16() -> None:
    """The maximum alone would pass this one; the root mean square does not."""
    torch.manual_seed(0)
    x = torch.randn(64, 256).bfloat16()
    centred = x - x.mean(-1, keepdim=True)
    low = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    oracle, yardstick = F.layer_norm(x.double(), (256,)), F.layer_norm(x, (256,))
    err, reference = (low.double() - oracle).abs(), (yardstick.double() - oracle).abs()
    assert bool((err <= 2 * reference.max() + ulp(oracle, torch.bfloat16)).all())
    with pytest.raises(AssertionError, match="rms error"):
        compare(low, oracle, yardstick)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fails_one_shifted_row_and_one_element_off(dtype: torch.dtype) -> None:
    rounded, oracle, yardstick = triple(dtype)
    shifted = rounded.clone()
    shifted[3] = rounded[3].roll(1)
    with pytest.raises(AssertionError):
        compare(shifted, oracle, yardstick)
    off = rounded.clone()
    off[5, 7] += 32 * ulp(oracle[5, 7], dtype).to(dtype)
    with pytest.raises(AssertionError, match="element 1287"):
        compare(off, oracle, yardstick)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_fails_a_stray_nan_or_infinity_and_a_missing_one(value: float) -> None:
    rounded, oracle, yardstick = triple(torch.float32)
    stray = rounded.clone()
    stray[0, 1] = value
    with pytest.raises(AssertionError, match=r"first at \[0, 1\]"):
        compare(stray, oracle, yardstick)
    expected = oracle.clone()
    expected[0, 1] = value
    with pytest.raises(AssertionError, match=r"first at \[0, 1\]"):
        compare(rounded, expected, yardstick)
    compare(stray, expected, stray)


def test_an_overflow_that_rounding_demands_is_right() -> None:
    oracle = torch.tensor([1e6, -1e6, 2.0], dtype=torch.float64)
    half = oracle.half()
    assert half.isinf().sum() == 2
    compare(half, oracle, half)
    with pytest.raises(AssertionError):
        compare(-half, oracle, half)


def test_a_lucky_yardstick_does_not_fail_a_correct_rounding() -> None:
    oracle = torch.tensor([1.0 + 2**-25], dtype=torch.float64)
    compare(oracle.float(), oracle, oracle.float())
    with pytest.raises(AssertionError):
        compare(oracle.float() + 2**-22, oracle, oracle.float())


def test_shape_dtype_and_unjustified_bounds_are_refused() -> None:
    rounded, oracle, yardstick = triple(torch.float32)
    with pytest.raises(AssertionError, match="shape"):
        compare(rounded[1:], oracle, yardstick)
    with pytest.raises(ValueError, match="must be float64"):
        compare(rounded, oracle.float(), yardstick)
    with pytest.raises(ValueError, match="must say why"):
        compare(rounded, oracle, yardstick, max_factor=4.0)
    with pytest.raises(ValueError, match="choose another yardstick"):
        compare(rounded, oracle, yardstick / 0)
    off = rounded + 3 * ulp(oracle, torch.float32).float()
    compare(off, oracle, yardstick, ulps=8.0, why_looser="this test shows that the argument is honoured")


def test_integers_must_be_equal_and_empty_passes() -> None:
    ids = torch.arange(4)
    compare(ids, ids, ids)
    with pytest.raises(AssertionError, match="differ"):
        compare(ids.roll(1), ids, ids)
    empty = torch.zeros(0, 3)
    compare(empty, empty.double(), empty)
    with pytest.raises(AssertionError, match="shape"):
        compare(empty, torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, 4))


def test_ulp_is_the_spacing_of_the_dtype() -> None:
    for dtype in DTYPES:
        ones = torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64)
        eps = torch.finfo(dtype).eps
        assert ulp(ones, dtype).tolist() == [eps, eps, 2 * eps]
        assert ulp(torch.zeros(1), dtype).item() == torch.finfo(dtype).tiny * eps


def test_same_bits() -> None:
    x = torch.tensor([0.0, float("nan")])
    assert same_bits(x, x.clone())
    assert not same_bits(x, -x)
    assert not same_bits(x, x.bfloat16())

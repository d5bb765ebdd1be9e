"""attention's cases for a GPU, made small: all contenders that a CPU has give what the oracle gives."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from benchmarks.op_benchmark import Case, Inputs, check
from benchmarks.ops import attention_on_gpu
from benchmarks.ops.attention_on_gpu import Batch, draw, exact
from instructgpt_fast import ops

LENGTHS = (7, 1, 33)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 tokens of 128 numbers, the oracle in blocks of 16 queries."""
    for name, value in {"TOKENS": 256, "MODEL_WIDTH": 128, "ORACLE_QUERIES": 16, "RAGGED": (21, 71, 10, 69),
                        "DENSE_LENGTH": 51}.items():
        monkeypatch.setattr(attention_on_gpu, name, value)


def small_cases() -> Sequence[Case]:
    return [*attention_on_gpu.dense_cases("cpu", 64, 64), attention_on_gpu.fixed_order_case("cpu", 128, 128),
            *attention_on_gpu.packed_cases("cpu", 64)]


@pytest.mark.parametrize("place", range(5))
@pytest.mark.usefixtures("small")
def test_ours_passes_the_check(place: int) -> None:
    check(small_cases()[place])


@pytest.mark.parametrize("place", range(5))
@pytest.mark.usefixtures("small")
def test_rivals_do_the_same_work(place: int) -> None:
    """Those that a CPU has: its flash attention is one, cuDNN's and the packed ones are not."""
    chosen = small_cases()[place]
    assert chosen.draw_check is not None
    inputs, agreed = chosen.draw_check(0), []
    ours = chosen.ours(inputs)
    for name, rival in chosen.rivals.items():
        if "cudnn" in name or "varlen" in name or name == "ours, dense":
            continue
        agreed.append(name)
        for _ in range(2):  # the second time from what is kept
            for mine, its in zip(ours, rival(inputs), strict=True):
                torch.testing.assert_close(its, mine, rtol=0.05, atol=0.05, msg=f"{chosen.name}: {name}")
    assert agreed


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_the_oracle_in_blocks_is_the_oracle(packed: bool, backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_on_gpu, "ORACLE_QUERIES", 8)
    batch = Batch(LENGTHS if packed else (33, 33), 16, 2, packed)
    inputs: Inputs = {name: t.double() if t.is_floating_point() else t for name, t in draw(batch, "cpu")(3).items()}
    leaves = [part.detach().requires_grad_() for part in inputs["fused"].unbind(-3)]
    out = ops.attention_oracle(*leaves, cu_seqlens=inputs.get("cu_seqlens"))
    expected = torch.autograd.grad(out, leaves, inputs["gradient"]) if backward else [out.detach()]
    for found, wanted in zip(exact(batch, backward=backward)(inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_check_sees_the_wrong_order_of_keys() -> None:
    batch = Batch((64, 64), 64, 2)
    attend = attention_on_gpu.forward_of(attention_on_gpu.sdpa)

    def shifted(inputs: Inputs) -> Sequence[torch.Tensor]:
        q, k, v = inputs["fused"].unbind(-3)
        return attend({"fused": torch.stack([q, k.roll(1, 1), v], -3)})

    with pytest.raises(AssertionError, match="shifted"):
        check(Case("shifted", draw(batch, "cpu"), shifted, {"sdpa": attend}, exact(batch, backward=False)))


def test_flops_are_counted_as_written() -> None:
    """Lengths and heads as published figures have them: 4 sequences of 4096, 16 heads of 128."""
    batch = Batch((4096,) * 4, 128, 16)
    assert batch.flops(backward=False) == 4 * 4096**2 * 4 * 2048 / 2
    assert batch.flops(backward=True) == 2.5 * batch.flops(backward=False)


def test_the_packed_batch_has_the_flops_of_the_dense_one() -> None:
    dense = Batch((attention_on_gpu.DENSE_LENGTH,) * len(attention_on_gpu.RAGGED), 64, 32)
    packed = Batch(attention_on_gpu.RAGGED, 64, 32, packed=True)
    assert packed.flops(backward=False) == dense.flops(backward=False)
    assert len(set(packed.lengths)) > 1

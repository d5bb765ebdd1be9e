"""torch's own attention in place of the kernels: the op's cases, run on the CPU and judged by its oracle."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast.model import KVCache
from instructgpt_fast.ops import _attention_by_torch, _library
from instructgpt_fast.ops._attention_by_torch import attention_by_torch, say_once
from instructgpt_fast.ops.attention import attention
from python_tests.ops import test_attention
from python_tests.ops.suite import Case

DTYPES = (torch.float32, torch.bfloat16)


def by_torch(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True, window: int | None = None,
    cu_seqlens: Tensor | None = None, dropout_p: float = 0.0, dropout_seed: int | None = None,
    scale: float | None = None,
) -> Tensor:
    seed = None if dropout_seed is None else torch.tensor([dropout_seed])
    return attention_by_torch(q, k, v, cu_seqlens, causal, window, dropout_p, seed, scale or q.shape[-1] ** -0.5)


class Attention(test_attention.TestAttention):
    """The cases and judges of the op's suite; `test_attention` below runs those that do not ask for a native op."""

    __test__ = False
    op = staticmethod(by_torch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", Attention.cases, ids=lambda c: c.name)
def test_attention(case: Case, dtype: torch.dtype) -> None:
    """As near to the float64 oracle as plain PyTorch, gradients included."""
    Attention().test_outputs_and_gradients(case, dtype)


def test_sabotage_is_found() -> None:
    for sabotage in Attention.sabotages:
        Attention().test_sabotage_is_found(sabotage, torch.float32)


def test_bounds_of_a_packed_batch_are_checked() -> None:
    q = torch.zeros(6, 1, 4)
    for bounds in ([0, 4], [1, 6], [0, 5, 4, 6]):
        with pytest.raises(RuntimeError, match="attention: cu_seqlens must begin with 0, not decrease and end with"):
            by_torch(q, q, q, cu_seqlens=torch.tensor(bounds, dtype=torch.int32))


def test_which_ops_torch_stands_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention alone, on a GPU alone, and only while the build has no kernel of it."""
    monkeypatch.setattr(_library, "CUDA_OPERATORS", frozenset({"attention"}))
    assert not _library.by_torch("attention", "cuda")
    assert _library.by_torch("attention_backward", "cuda")
    assert not _library.by_torch("attention_backward", "cpu")
    assert not _library.by_torch("attention_decode", "cuda")
    assert not _library.by_torch("layer_norm", "cuda")


def test_fake_cuda_tensors_take_this_way_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "CUDA_OPERATORS", frozenset())
    monkeypatch.setattr(_attention_by_torch, "_said", set())
    with FakeTensorMode():
        q = torch.empty(2, 9, 4, 16, device="cuda", dtype=torch.bfloat16)
        k = torch.empty(2, 9, 2, 16, device="cuda", dtype=torch.bfloat16)
        with pytest.warns(UserWarning, match="^attention: this build has no CUDA kernel for it; torch's") as caught:
            outs = [attention(q, k, k, causal=causal) for causal in (True, False)]
    assert len(caught) == 1
    assert all((o.device.type, o.dtype, o.shape) == ("cuda", q.dtype, q.shape) for o in outs)


def test_nothing_is_said_while_compiling(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr(_attention_by_torch, "_said", set())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    say_once("attention")
    assert not recwarn.list


def test_a_model_trains_and_decodes_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, gradients, prefill and decode of a small model with bands agree with those of the native attention."""
    # Here, because it needs transformers, and `make gpu` imports this file.
    from python_tests.model.reference import SMALL, pack, random_gpt

    model = random_gpt(dataclasses.replace(SMALL, band_width=4))
    prompts = [torch.arange(n) % SMALL.vocab_size for n in (5, 9)]
    tokens, cu_seqlens = pack(prompts)

    def run() -> list[Tensor]:
        model.zero_grad()
        hidden = model(tokens, cu_seqlens=cu_seqlens)
        hidden.square().mean().backward()
        with torch.no_grad():
            cache = KVCache(model.config, 2, 16, page_size=4, dtype=torch.float32)
            rows = torch.tensor([cache.claim(len(prompt) + 1) for prompt in prompts])
            prefilled = model.prefill(tokens, cu_seqlens, cache, rows)
            decoded = model.decode(torch.tensor([3, 1]), cache, rows)
        assert model.wte.weight.grad is not None
        return [hidden.detach(), prefilled, decoded, model.wte.weight.grad.clone()]

    native = run()
    used: list[str] = []

    def by_torch(op: str, device_type: str) -> bool:
        used.append(op)
        return op in _library.REPLACEABLE

    monkeypatch.setattr(_library, "by_torch", by_torch)
    monkeypatch.setattr(_attention_by_torch, "_said", set(_library.REPLACEABLE))
    for ours, theirs in zip(native, run(), strict=True):
        # Two float32 routes to values of order one.
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert "attention" in used

"""torch's own attention in place of the kernels: the cases of both ops, run on the CPU and judged by their oracles."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast.model import KVCache
from instructgpt_fast.ops import _attention_by_torch, _library
from instructgpt_fast.ops._attention_by_torch import attention_by_torch, attention_decode_by_torch, say_once
from instructgpt_fast.ops.attention import attention
from instructgpt_fast.ops.attention_decode import execution
from python_tests.accuracy import same_bits
from python_tests.ops import test_attention, test_attention_decode
from python_tests.ops.suite import Case, New

DTYPES = (torch.float32, torch.bfloat16)


def by_torch(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True, window: int | None = None,
    cu_seqlens: Tensor | None = None, dropout_p: float = 0.0, dropout_seed: int | None = None,
    scale: float | None = None,
) -> Tensor:
    seed = None if dropout_seed is None else torch.tensor([dropout_seed])
    return attention_by_torch(q, k, v, cu_seqlens, causal, window, dropout_p, seed, scale or q.shape[-1] ** -0.5)


def decode_by_torch(*, window: int | None = None, scale: float | None = None, **tensors: Tensor) -> Tensor:
    return attention_decode_by_torch(**tensors, window=window, scale=scale or tensors["q"].shape[-1] ** -0.5)


class Attention(test_attention.TestAttention):
    """The cases and judges of the op's suite; `test_attention` below runs those that do not ask for a native op."""

    __test__ = False
    op = staticmethod(by_torch)


class Decode(test_attention_decode.TestAttentionDecode):
    """The same for decode."""

    __test__ = False
    op = staticmethod(test_attention_decode.on_copies(decode_by_torch))

    def looser(self, what: str, case: Case, dtype: torch.dtype) -> dict[str, Any]:
        if dtype == torch.float32 and what == "output 0":
            return {"rms_factor": 1.5, "why_looser": "sums over all keys of a table, in another order"}
        return {}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", Attention.cases, ids=lambda c: c.name)
def test_attention(case: Case, dtype: torch.dtype) -> None:
    """As near to the float64 oracle as plain PyTorch, gradients included."""
    Attention().test_outputs_and_gradients(case, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", Decode.cases, ids=lambda c: c.name)
def test_decode(case: Case, dtype: torch.dtype) -> None:
    """The same, the caches included; NaN in slots that the call fills is not read."""
    Decode().test_outputs_and_gradients(case, dtype)
    Decode().test_nan_behind_the_mask(case, dtype)


@pytest.mark.parametrize("suite", [Attention, Decode], ids=["attention", "decode"])
def test_sabotage_is_found(suite: Any) -> None:
    for sabotage in suite.sabotages:
        suite().test_sabotage_is_found(sabotage, torch.float32)


def test_decode_reads_no_slots_of_others() -> None:
    inputs = test_attention_decode.step((5, 0, 17), 2, 2, 16)(New(torch.float32))
    page = inputs["k_cache"].shape[1]
    owned = torch.zeros(inputs["k_cache"].shape[:2], dtype=torch.bool)
    for row, cached in enumerate(inputs["cache_lens"].tolist()):
        positions = torch.arange(cached + 1)
        owned[inputs["block_table"][row, positions // page].long(), positions % page] = True
    clean, *_ = test_attention_decode.on_copies(decode_by_torch)(**inputs)
    for name in ("k_cache", "v_cache"):
        inputs[name][~owned] = torch.nan
    assert same_bits(clean, decode_by_torch(**inputs))
    assert bool(inputs["k_cache"][~owned].isnan().all()) and bool(inputs["k_cache"][owned].isfinite().all())


@pytest.mark.parametrize(("change", "error"), [
    (lambda i: {**i, "cache_lens": i["cache_lens"] + 20}, RuntimeError),
    (lambda i: {**i, "cache_lens": i["cache_lens"] + 3}, IndexError),
    (lambda i: {**i, "block_table": i["block_table"] * 0 + 99}, IndexError),
], ids=["row outgrows its table", "page missing", "page outside"])
def test_decode_does_not_write_into_other_pages(change: Any, error: type[Exception]) -> None:
    inputs = test_attention_decode.step((5, 0, 17), 2, 2, 64)(New(torch.float32))
    with pytest.raises(error, match=r"out of bounds|out of range"):
        decode_by_torch(**change(inputs))


def test_bounds_of_a_packed_batch_are_checked() -> None:
    q = torch.zeros(6, 1, 4)
    for bounds in ([0, 4], [1, 6], [0, 5, 4, 6]):
        with pytest.raises(RuntimeError, match="attention: cu_seqlens must begin with 0, not decrease and end with"):
            by_torch(q, q, q, cu_seqlens=torch.tensor(bounds, dtype=torch.int32))


def test_which_ops_torch_stands_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention alone, on a GPU alone, and only while the build has no kernel of it."""
    monkeypatch.setattr(_library, "CUDA_OPERATORS", frozenset({"attention"}))
    monkeypatch.setattr(_attention_by_torch, "_said", set())
    assert not _library.by_torch("attention", "cuda")
    assert _library.by_torch("attention_decode", "cuda")
    assert not _library.by_torch("attention_decode", "cpu")
    assert not _library.by_torch("layer_norm", "cuda")
    assert execution("cpu") is torch.ops.instructgpt_fast.attention_decode
    with pytest.warns(UserWarning, match="^attention_decode: this build has no CUDA kernel for it; torch's"):
        assert execution("cuda") is attention_decode_by_torch


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
    assert {"attention", "attention_decode"} <= set(used)

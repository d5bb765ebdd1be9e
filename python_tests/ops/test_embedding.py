"""embedding against its float64 oracle, its fixed order of summation, and ids outside the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import simt
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from instructgpt_fast.ops.embedding import embedding, embedding_oracle
from python_tests.accuracy import same_bits
from python_tests.ops.suite import BadCall, Case, New, OpSuite, Sabotage


def lookups(*shape: int, vocab: int = 29, positions: int = 11, width: int = 24) -> Callable[[New], dict[str, Any]]:
    return lambda new: {
        "tokens": new.ints(0, vocab, *shape),
        "position_ids": new.ints(0, positions, *shape),
        "token_weight": new(vocab, width),
        "position_weight": new(positions, width, scale=0.1),
    }


def packed(new: New) -> dict[str, Any]:
    """Two sequences in a row, one token far more frequent than the others."""
    inputs = lookups(90, width=300)(new)
    inputs["tokens"][10:70] = 3
    inputs["position_ids"] = torch.cat([torch.arange(11).repeat(5), torch.arange(11).repeat(4)[:35]])
    return inputs


class TestEmbedding(OpSuite):
    name = "embedding"
    op = staticmethod(embedding)
    oracle = staticmethod(embedding_oracle)
    yardstick = staticmethod(embedding_oracle)
    differentiable = ("token_weight", "position_weight")
    cases = (
        Case("dense batch", lookups(3, 7)),
        Case("packed, wide, one frequent token", packed),
        Case("one token", lookups(1, width=5)),
        Case("a scalar token", lookups()),
        Case("ids as a view of one row",
             lambda new: {**lookups(4, 5)(new), "position_ids": torch.arange(5).expand(4, 5)}),
        Case("many tokens of two kinds", lookups(700, vocab=2, positions=3, width=8)),
        Case("empty", lookups(0, 7)),
    )
    sabotages = (
        Sabotage("tokens shifted", lambda i: {**i, "tokens": i["tokens"].reshape(-1).roll(1).view_as(i["tokens"])}),
        Sabotage("position 0 for all", lambda i: {**i, "position_ids": i["position_ids"] * 0}),
    )
    bad_calls = (
        BadCall("token too large", lambda i: {**i, "tokens": i["tokens"] + 29}, RuntimeError,
                r"tokens must lie in \[0, 29\), the rows of token_weight, got"),
        BadCall("token below 0", lambda i: {**i, "tokens": i["tokens"] * 0 - 1}, RuntimeError,
                "got -1 at flat index 0"),
        BadCall("position too large", lambda i: {**i, "position_ids": i["position_ids"] * 0 + 11}, RuntimeError,
                r"position_ids must lie in \[0, 11\).*got 11 at flat index 0"),
        BadCall("int32 tokens", lambda i: {**i, "tokens": i["tokens"].int()}, TypeError,
                "tokens must have dtype int64"),
        BadCall("shapes", lambda i: {**i, "position_ids": i["position_ids"][:1]}, ValueError, r"shape \(3, 7\)"),
        BadCall("widths", lambda i: {**i, "position_weight": i["position_weight"][:, :5]}, ValueError,
                "width 24, got 5"),
        BadCall("dtypes", lambda i: {**i, "position_weight": i["position_weight"].half()}, TypeError, "float16"),
        BadCall("vector of weights", lambda i: {**i, "token_weight": i["token_weight"][0]}, ValueError, "2 dimensions"),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_do_not_depend_on_the_number_of_threads(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tokens, positions = torch.randint(0, 5, (2000,)), torch.arange(2000) % 50
    words = torch.randn(5, 70).to(dtype).requires_grad_()
    places = torch.randn(50, 70).to(dtype).requires_grad_()
    grads = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        weights = torch.randn(2000, 70, generator=torch.Generator().manual_seed(1)).to(dtype)
        grads.append(torch.autograd.grad(embedding(tokens, positions, words, places), (words, places), weights))
    torch.set_num_threads(threads)
    for other in grads[1:]:
        assert all(same_bits(a, b) for a, b in zip(grads[0], other, strict=True))


def test_rows_that_no_token_names_get_a_zero_gradient() -> None:
    words, places = torch.randn(6, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    embedding(torch.tensor([1, 1, 4]), torch.tensor([0, 1, 1]), words, places).sum().backward()
    assert words.grad is not None and places.grad is not None
    assert words.grad[:, 0].tolist() == [0, 2, 0, 0, 1, 0]
    assert places.grad[:, 0].tolist() == [1, 2, 0]


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        ids = torch.zeros(4, 6, dtype=torch.int64, device="cuda")
        words, places = (torch.empty(rows, 64, device="cuda", dtype=torch.bfloat16) for rows in (29, 11))
        if "embedding" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="embedding: has no CUDA kernel"):
                embedding(ids, ids, words, places)
            return
        y = embedding(ids, ids, words, places)
        assert (y.device.type, y.dtype, tuple(y.shape)) == ("cuda", torch.bfloat16, (4, 6, 64))
        grads = torch.ops.instructgpt_fast.embedding_backward(y, ids, ids, 29, 11)
        assert [(g.dtype, tuple(g.shape)) for g in grads] == [(torch.bfloat16, (29, 64)), (torch.bfloat16, (11, 64))]


@pytest.mark.parametrize("width", [8, 5])
def test_ids_outside_the_tables_show_as_nan_on_a_gpu(width: int) -> None:
    """The kernel cannot raise: such a row of y is NaN, the others are right, and the gradient leaves it out."""
    if not simt.available():
        pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")
    tokens, positions = torch.tensor([1, -1, 6, 5, 2]), torch.tensor([0, 1, 1, 3, 2])
    outside = torch.tensor([False, True, True, True, False])
    words, places = torch.randn(6, width, requires_grad=True), torch.randn(3, width, requires_grad=True)
    with simt.executing():
        y = embedding(tokens, positions, words, places)
        y.backward(torch.ones_like(y))
    assert torch.equal(y.isnan(), outside[:, None].expand_as(y))
    assert torch.equal(y[~outside], (words[tokens[~outside]] + places[positions[~outside]]))
    assert words.grad is not None and words.grad[:, 0].tolist() == [0, 1, 1, 0, 0, 1]
    assert places.grad is not None and places.grad[:, 0].tolist() == [1, 2, 1]

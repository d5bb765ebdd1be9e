"""attention's cases for a GPU: bfloat16, causal, 16384 tokens of 2048 numbers each, at lengths from 1024 to 16384.

    forward:  4 * pairs * heads * width flops: two products of two flops for each pair of a query and a key; causal, so
              pairs = (sum of length^2) / 2
    backward: 2.5 times as much: five products, the scores once more among them

Forward and backward are timed apart. `ours` adds up the gradient of q in the free order, as a training run does; the
fixed order is a case of its own beside it, and so is a packed ragged batch beside a dense one of the same flops.
The most telling cases come first: what a short run leaves out are the later ones.
Not covered: compiled rivals such as flex_attention; equal bits on repeat (python_tests/gpu).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn

from benchmarks.op_benchmark import Case, Contender, Inputs
from instructgpt_fast import ops

Attend = Callable[..., Tensor]

TOKENS = 16384
MODEL_WIDTH = 2048
WIDTHS = (64, 128)
LENGTHS = (4096, 1024, 16384, 2048, 8192)
CHECKED_HEADS = 2
ORACLE_QUERIES = 1024  # at a time: float64 scores of the longest sequence take 256 MiB then
# 840^2 + 2760^2 = 408^2 + 2856^2 = 2 * 2040^2: eight ragged sequences with the flops of eight that are 2040 long.
RAGGED = (840, 2856, 408, 2760) * 2
DENSE_LENGTH = 2040


@dataclass(frozen=True)
class Batch:
    """Sequences of these lengths: dense ones are all equal, packed ones stand in one row after another."""

    lengths: tuple[int, ...]
    width: int
    heads: int
    packed: bool = False

    @property
    def rows(self) -> tuple[int, ...]:
        return (sum(self.lengths),) if self.packed else (len(self.lengths), self.lengths[0])

    def flops(self, *, backward: bool) -> float:
        forward = 4.0 * sum(n * n for n in self.lengths) / 2 * self.heads * self.width
        return 2.5 * forward if backward else forward

    def checked(self) -> Batch:
        """Of the same lengths, as far as float64 takes them: two sequences of a dense batch, two heads."""
        lengths = self.lengths if self.packed else self.lengths[:2]
        return Batch(lengths, self.width, CHECKED_HEADS, self.packed)


def draw(batch: Batch, device: str, beside: Batch | None = None) -> Callable[[int], Inputs]:
    """q, k, v as the parts of one projection, as a model has them, and out's gradient; also of the batch beside it."""

    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)

        def drawn(of: Batch) -> Inputs:
            shapes = {"fused": (*of.rows, 3, of.heads, of.width), "gradient": (*of.rows, of.heads, of.width)}
            tensors: Inputs = {name: torch.randn(shape, generator=generator, device=device).to(torch.bfloat16)
                               for name, shape in shapes.items()}
            if of.packed:
                tensors["cu_seqlens"] = torch.tensor([0, *of.lengths]).cumsum(0).int().to(device)
            return tensors

        return drawn(batch) | ({} if beside is None else {"beside": drawn(beside)})

    return inputs


def exact(batch: Batch, *, backward: bool) -> Contender:
    """The oracle, some queries at a time: they see the keys up to and with the last of them, or earlier ones."""

    def contender(inputs: Inputs) -> Sequence[Tensor]:
        q, k, v = (part.reshape(-1, *part.shape[-2:]) for part in inputs["fused"].unbind(-3))
        dout = inputs["gradient"].reshape(q.shape)
        out, dq, dk, dv = (torch.zeros_like(q) for _ in range(4))
        start = 0
        for length in batch.lengths:
            end = start + length
            for first in range(start, end, ORACLE_QUERIES):
                last = min(first + ORACLE_QUERIES, end)
                seen = (q[first:last], k[start:last], v[start:last])
                leaves = [t[None].detach().requires_grad_(backward) for t in seen]
                result = ops.attention_oracle(*leaves)
                out[first:last] = result.detach()[0]
                if backward:
                    grads = torch.autograd.grad(result, leaves, dout[None, first:last])
                    dq[first:last] += grads[0][0]
                    dk[start:last] += grads[1][0]
                    dv[start:last] += grads[2][0]
            start = end
        shape = inputs["gradient"].shape
        return [t.reshape(shape) for t in ((dq, dk, dv) if backward else (out,))]

    return contender


def forward_of(function: Attend) -> Contender:
    """The contender that attends."""

    def contender(inputs: Inputs) -> Sequence[Tensor]:
        with torch.no_grad():
            return [function(*inputs["fused"].unbind(-3), **_packing(inputs))]

    return contender


def backward_of(name: str, function: Attend) -> Contender:
    """The contender that gives the gradients of q, k, v; its forward pass is run at the first call on some inputs."""
    kept = f"pass of {name}"

    def contender(inputs: Inputs) -> Sequence[Tensor]:
        if kept not in inputs:
            leaves = [part.detach().requires_grad_() for part in inputs["fused"].unbind(-3)]
            inputs[kept] = function(*leaves, **_packing(inputs)), leaves
        out, leaves = inputs[kept]
        return torch.autograd.grad(out, leaves, inputs["gradient"], retain_graph=True)

    return contender


def our_backward(*, deterministic: bool = False) -> Contender:
    """As backward_of, by the operator itself: so torch's switch, which the check sets, does not choose the order."""
    operators = torch.ops.instructgpt_fast

    def contender(inputs: Inputs) -> Sequence[Tensor]:
        q, k, v = inputs["fused"].unbind(-3)
        bounds, scale = inputs.get("cu_seqlens"), q.shape[-1] ** -0.5
        if "saved" not in inputs:
            inputs["saved"] = operators.attention(q, k, v, bounds, True, None, 0.0, None, scale)
        gradients: Sequence[Tensor] = operators.attention_backward(
            inputs["gradient"], q, k, v, *inputs["saved"], bounds, True, None, 0.0, None, scale, deterministic
        )
        return gradients

    return contender


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own choice."""
    queries, keys, values = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True).transpose(1, 2)


def sdpa_by(backend: SDPBackend) -> Attend:
    """SDPA by this back-end or not at all."""

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return sdpa(q, k, v)

    return function


def sdpa_one_by_one(lengths: tuple[int, ...]) -> Attend:
    """SDPA on packed sequences, whose lengths the CPU knows."""

    def function(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens: Tensor) -> Tensor:
        del cu_seqlens
        parts = zip(*(t.split(lengths) for t in (q, k, v)), strict=True)
        return torch.cat([sdpa(*(part[None] for part in sequence))[0] for sequence in parts])

    return function


def torch_varlen(longest: int) -> Attend:
    """PyTorch's packed attention."""

    def function(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens: Tensor) -> Tensor:
        out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, longest, longest, window_size=(-1, 0))
        assert isinstance(out, Tensor)
        return out

    return function


def flash_attn(longest: int | None = None, **options: Any) -> dict[str, Attend]:
    """The package flash-attn, where it is installed: for packed sequences of up to `longest`, or for dense ones."""
    if importlib.util.find_spec("flash_attn") is None:
        return {}
    package = importlib.import_module("flash_attn")
    if longest is None:
        return {"flash-attn": lambda q, k, v: package.flash_attn_func(q, k, v, causal=True, **options)}
    return {"flash-attn": lambda q, k, v, cu_seqlens: package.flash_attn_varlen_func(
        q, k, v, cu_seqlens, cu_seqlens, longest, longest, causal=True, **options)}


def on_the_dense_batch(contender: Contender) -> Contender:
    """On the batch beside the packed one; of its results as many rows as that one has, for equal shapes."""

    def dense(inputs: Inputs) -> Sequence[Tensor]:
        rows = inputs["gradient"].shape[0]
        return [result.flatten(0, 1)[:rows] for result in contender(inputs["beside"])]

    return dense


def _packing(inputs: Inputs) -> dict[str, Tensor]:
    return {name: inputs[name] for name in ("cu_seqlens",) if name in inputs}


def _case(name: str, device: str, batch: Batch, ours: Contender, rivals: Mapping[str, Contender], *, backward: bool,
          beside: Batch | None = None) -> Case:
    checked = batch.checked()
    return Case(
        name=name,
        draw=draw(batch, device, beside),
        draw_check=draw(checked, device),
        ours=ours,
        rivals=rivals,
        oracle=exact(checked, backward=backward),
        flops=batch.flops(backward=backward),
        dtype=torch.bfloat16,
    )


def dense_cases(device: str, length: int, width: int) -> list[Case]:
    """One forward, one backward: beside SDPA as it chooses, by each of its fast back-ends, and flash-attn."""
    batch = Batch((length,) * (TOKENS // length), width, MODEL_WIDTH // width)
    attend = {"sdpa": sdpa, "sdpa, flash": sdpa_by(SDPBackend.FLASH_ATTENTION),
              "sdpa, cudnn": sdpa_by(SDPBackend.CUDNN_ATTENTION), **flash_attn()}
    name = f"{len(batch.lengths)} x {length}, {batch.heads} heads of {width}"
    forward = {rival: forward_of(function) for rival, function in attend.items()}
    backward = {rival: backward_of(rival, function) for rival, function in attend.items()}
    return [
        _case(f"{name}, forward", device, batch, forward_of(ops.attention), forward, backward=False),
        _case(f"{name}, backward", device, batch, our_backward(), backward, backward=True),
    ]


def fixed_order_case(device: str, length: int, width: int) -> Case:
    """What the fixed order loses to the free one; flash-attn in its fixed order."""
    batch = Batch((length,) * (TOKENS // length), width, MODEL_WIDTH // width)
    others = {rival: backward_of(rival, function) for rival, function in flash_attn(deterministic=True).items()}
    return _case(
        f"{len(batch.lengths)} x {length}, {batch.heads} heads of {width}, backward in a fixed order", device, batch,
        our_backward(deterministic=True),
        {"sdpa": backward_of("sdpa", sdpa), "ours in the free order": our_backward(), **others}, backward=True,
    )


def packed_cases(device: str, width: int) -> list[Case]:
    """What ragged packed sequences lose to a dense batch of the same flops; beside packed attention of others."""
    heads = MODEL_WIDTH // width
    batch = Batch(RAGGED, width, heads, packed=True)
    dense = Batch((DENSE_LENGTH,) * len(RAGGED), width, heads)
    attend = {"sdpa, one by one": sdpa_one_by_one(RAGGED), "torch varlen": torch_varlen(max(RAGGED)),
              **flash_attn(max(RAGGED))}
    found = []
    for backward in (False, True):
        ours = our_backward() if backward else forward_of(ops.attention)
        rivals = {rival: backward_of(rival, function) if backward else forward_of(function)
                  for rival, function in attend.items()}
        found.append(_case(
            f"packed {min(RAGGED)}..{max(RAGGED)}, {heads} heads of {width}, {'backward' if backward else 'forward'}",
            device, batch, ours, {**rivals, "ours, dense": on_the_dense_batch(ours)}, backward=backward, beside=dense,
        ))
    return found


def gpu_cases(device: str) -> list[Case]:
    """All of them, the most telling ones first."""
    first, *others = LENGTHS
    found = [case for width in WIDTHS for case in dense_cases(device, first, width)]
    found += [fixed_order_case(device, first, width) for width in WIDTHS]
    found += [case for width in WIDTHS for case in packed_cases(device, width)]
    for length in others:
        found += [case for width in WIDTHS for case in dense_cases(device, length, width)]
    return found + [fixed_order_case(device, length, width) for length in others for width in WIDTHS]

"""The benchmarks' cases for a GPU, at their sizes there, on the meta device: shapes and devices fit together.

Tensors without memory fail where tensors on a GPU would: met by others on the CPU. Nothing is computed; what must look
at numbers ends there.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence

import pytest
import torch

from benchmarks.op_benchmark import Case, Contender, Inputs, _in_float64
from benchmarks.run import names

LOOKS_AT_NUMBERS = r"meta tensor|register_meta function for torch.nonzero"


class LikeAGpu(str):
    """A device that benchmarks take for a GPU, and torch for what it is."""

    def __eq__(self, other: object) -> bool:
        return other == "cuda" or super().__eq__(other)

    __hash__ = str.__hash__


def shapes_of_results(contender: Contender, inputs: Inputs) -> list[torch.Size] | None:
    """None where the numbers are looked at; raises for anything else that goes wrong."""
    try:
        results: Sequence[torch.Tensor] = contender(inputs)
    except RuntimeError as error:
        if not re.search(LOOKS_AT_NUMBERS, str(error)):
            raise
        return None
    assert {result.device.type for result in results} == {"meta"}
    return [result.shape for result in results]


@pytest.mark.parametrize("op", names())
def test_cases_for_a_gpu_fit_together(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, the oracle, every rival uncompiled: all cases of attention, of other ops the first and the last."""
    importlib.import_module("torch._dynamo")  # which asks for torch.Generator as a type
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())  # meta has none, asks none
    monkeypatch.setattr(torch, "compile", lambda function: function)
    cases: Sequence[Case] = importlib.import_module(f"benchmarks.ops.bench_{op}").cases(LikeAGpu("meta"))
    for chosen in cases if op.startswith("attention") else (cases[0], cases[-1]):
        contenders = {"ours": chosen.ours, **chosen.rivals}
        expected = shapes_of_results(lambda i, oracle=chosen.oracle: oracle(_in_float64(i)), chosen.draw(0))
        for name, contender in contenders.items():
            shapes = shapes_of_results(contender, chosen.draw(0))
            assert expected is None or shapes is None or shapes == expected, f"{chosen.name}: {name}"


def test_a_tensor_on_the_cpu_is_found() -> None:
    forgetful: Contender = lambda inputs: [inputs["x"] + torch.arange(3)]  # noqa: E731
    with pytest.raises(RuntimeError, match=r"device"):
        shapes_of_results(forgetful, {"x": torch.empty(3, device="meta")})

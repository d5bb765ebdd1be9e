"""Every op's own cases on another device: the inputs go there, the results come back and meet the same comparer."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from instructgpt_fast.errors import BackendError
from python_tests.ops.suite import Case, Inputs, New, OpSuite, Results, _map_tensors, _RecordRawOps, require_same_bits

OPS = Path(__file__).resolve().parents[1] / "ops"


def suites() -> dict[str, type[OpSuite]]:
    """The suites of all ops of the package, by the op's name."""
    found: dict[str, type[OpSuite]] = {}
    for path in sorted(OPS.glob("test_*.py")):
        module = importlib.import_module(f"python_tests.ops.{path.stem}")
        for value in vars(module).values():
            own = isinstance(value, type) and issubclass(value, OpSuite) and value.__module__ == module.__name__
            if own and value.__dict__.get("__test__", True):  # else of something that is no op
                found[f"{value.name} ({value.__name__})"] = value
    return {name: suite for name, suite in found.items() if suite.namespace == "instructgpt_fast"}


def failures(suite: type[OpSuite], dtype: torch.dtype, device: str) -> list[str]:
    """What goes wrong with the cases of a suite on a device, a line each; raises BackendError where it has no kernel.

    Right by the suite's comparer, beside plain PyTorch here or there, with dense and with strided inputs; equal bits
    when repeated.
    """
    judge, wrong = suite(), []
    for case in suite.cases:
        inputs = case.inputs(New(dtype))
        oracle, yardstick = judge.references(inputs, case)
        references = oracle, _worse(yardstick, _plain_there(judge, inputs, case, device), oracle)
        try:
            first = _results(judge, inputs, case, device)
            judge.judge_results(first, *references, case, dtype)
            require_same_bits(judge.with_fixed_bits(first, case, dtype),
                              judge.with_fixed_bits(_results(judge, inputs, case, device), case, dtype))
            judge.judge_results(_results(judge, inputs, case, device, strided=True), *references, case, dtype)
        except BackendError:
            raise
        except Exception as error:
            wrong.append(f"{case.name}: {type(error).__name__}: {error}")
    return wrong


def _plain_there(judge: OpSuite, inputs: Inputs, case: Case, device: str) -> Results:
    """The yardstick's results on the device, whose sums may run in another order; none where it cannot run there."""
    plain = type("Plain", (type(judge),), {"op": staticmethod(judge.yardstick), "__test__": False})()
    try:
        return _results(plain, inputs, case, device)
    except RuntimeError:  # it makes tensors of its own on the CPU
        return {}


def _worse(here: Results, there: Results, oracle: Results) -> Results:
    """Of plain PyTorch's results on two devices those with the larger error, one by one."""

    def error(value: torch.Tensor, truth: torch.Tensor) -> float:
        return float((value.double() - truth.double()).nan_to_num(0.0, 0.0, 0.0).square().sum())

    return {what: max(here[what], there.get(what, here[what]), key=lambda value: error(value, oracle[what]))
            for what in here}


def check_raw_ops(suite: type[OpSuite], device: str) -> int:
    """torch.library.opcheck of the raw ops that the suite's first case calls; returns how many were checked."""
    case, dtype = suite.cases[0], suite.dtypes[0]
    with _RecordRawOps(suite.namespace) as record:
        _results(suite(), case.inputs(New(dtype)), case, device)
    for raw, arguments, keywords in record.calls:
        torch.library.opcheck(raw, arguments, keywords)
    return len(record.calls)


def _results(judge: OpSuite, inputs: Inputs, case: Case, device: str, *, strided: bool = False) -> Results:
    """The op's results on the device, brought back."""

    def there(tensor: torch.Tensor) -> torch.Tensor:
        moved = tensor.detach().to(device)
        if not strided or moved.dim() == 0:
            return moved
        wide = torch.empty(*moved.shape[:-1], moved.shape[-1] * 2, dtype=moved.dtype, device=device)
        wide[..., ::2] = moved
        return wide[..., ::2]

    def moved(value: Any) -> Any:
        return _map_tensors(value, there)

    options = {name: moved(value) for name, value in case.options.items()}
    results = judge.evaluate(judge.op, {name: moved(value) for name, value in inputs.items()},
                             replace(case, options=options))
    return {what: value.cpu() for what, value in results.items()}

"""What every op must show, stated once. An op's test file derives a class from `OpSuite` and states only its cases.

    class TestBiasGelu(OpSuite):
        name = "bias_gelu"
        op = staticmethod(ops.bias_gelu)                       # called as op(**inputs, **case.options)
        oracle = staticmethod(ops.bias_gelu_oracle)            # same call on float64 copies, differentiable by autograd
        yardstick = staticmethod(lambda x, bias, approximate="tanh": F.gelu(x + bias, approximate=approximate))
        differentiable = ("x", "bias")
        cases = (
            Case("rows", lambda new: {"x": new(5, 48), "bias": new(48)}),
            Case("empty", lambda new: {"x": new(0, 48), "bias": new(48)}),
        )
        sabotages = (Sabotage("bias left out", lambda i: {**i, "bias": i["bias"] * 0}),)     # must be found
        bad_calls = (BadCall("bias of another width", lambda i: {**i, "bias": i["bias"][:-1]}, ValueError, "48"),)

pytest then runs, for each case and dtype: accuracy of outputs and gradients; equal bits on repeat; strided inputs;
NaN where it must have no effect (`poison`); `torch.library.opcheck` on every raw op the case calls;
`torch.compile(fullgraph=True)`; the CUDA kernels in the emulator, under several orders of their threads; sabotage that
the comparer must find; and every error message.
An op that writes into its arguments is wrapped by the author: clone inside `op`, return what was written.
Not covered: speed, and values chosen by hand; those stand in the op's own test file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from instructgpt_fast import simt
from python_tests.accuracy import compare, same_bits

# In which orders the emulator runs a kernel's threads; asynchronous copies arrive at different times too.
SCHEDULES: tuple[dict[str, Any], ...] = (
    {"schedule": "forward", "copies": "lazy"},
    {"schedule": "reverse", "copies": "eager"},
    {"schedule": "random", "copies": "random", "seed": 1},
    {"schedule": "preempting", "copies": "random", "seed": 2},
)

Inputs = dict[str, Any]
Results = dict[str, torch.Tensor]


class New:
    """Draws the inputs of a case: seeded, in the dtype under test."""

    def __init__(self, dtype: torch.dtype, seed: int = 0) -> None:
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
        """Normal numbers times `scale` plus `shift`, rounded to the dtype under test."""
        return self.float32(*shape, scale=scale, shift=shift).to(self.dtype)

    def float32(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
        """The same in float32, whatever the dtype under test."""
        return torch.randn(*shape, generator=self.generator) * scale + shift

    def ints(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """int64 in [low, high)."""
        return torch.randint(low, high, shape, generator=self.generator)

    def mask(self, *shape: int, p: float = 0.7) -> torch.Tensor:
        """bool, True with probability p."""
        return torch.rand(*shape, generator=self.generator) < p


@dataclass(frozen=True)
class Case:
    """One kind of call: what it is called, how its inputs are drawn, its other keyword arguments."""

    name: str
    inputs: Callable[[New], Inputs]
    options: Mapping[str, Any] = field(default_factory=dict)
    compiled: bool = True


@dataclass(frozen=True)
class Sabotage:
    """What a wrong op would have read: `change` alters the inputs for the op alone, and the comparer must notice."""

    name: str
    change: Callable[[Inputs], Inputs]


@dataclass(frozen=True)
class BadCall:
    """A call that must be refused: the first case's arguments altered by `change`; `match` is found in the message."""

    name: str
    change: Callable[[Inputs], Inputs]
    error: type[Exception]
    match: str


class OpSuite:
    """Derive, fill in the class attributes, and pytest does the rest; see the head of this file."""

    name: ClassVar[str]
    op: ClassVar[Callable[..., Any]]
    oracle: ClassVar[Callable[..., Any]]
    yardstick: ClassVar[Callable[..., Any]]
    cases: ClassVar[tuple[Case, ...]]
    differentiable: ClassVar[tuple[str, ...]] = ()
    namespace: ClassVar[str] = "instructgpt_fast"
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.bfloat16, torch.float16)
    # Names of inputs that stay as they are for the oracle instead of becoming float64.
    kept_for_oracle: ClassVar[tuple[str, ...]] = ()
    # Returns the inputs with NaN placed where it must have no effect, or None for a case without such places.
    poison: ClassVar[Callable[[Inputs], Inputs | None] | None] = None
    architectures: ClassVar[tuple[int, ...]] = (80,)  # of emulated devices for which the op has kernels of their own
    # Result -> why its bits may differ with the order of the threads; a case with deterministic=True is held to them.
    bits_may_differ: ClassVar[Mapping[str, str]] = {}
    sabotages: ClassVar[tuple[Sabotage, ...]] = ()
    bad_calls: ClassVar[tuple[BadCall, ...]] = ()

    def looser(self, what: str, case: Case, dtype: torch.dtype) -> dict[str, Any]:
        """Keyword arguments for `compare` ("output 0", "grad x"); a looser bound needs `why_looser`."""
        return {}

    def runs_on(self, architecture: int, case: Case, dtype: torch.dtype) -> bool:
        """Whether a case takes another path there than on the first."""
        return True

    def with_fixed_bits(self, results: Results, case: Case, dtype: torch.dtype) -> Results:
        """The results whose bits may not depend on the order of the threads."""
        free = () if case.options.get("deterministic") else self.bits_may_differ
        return {what: value for what, value in results.items() if what not in free}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Spread cases, dtypes, sabotages and bad calls over the tests that ask for them."""
        if not hasattr(type(self), "cases"):
            return
        spread: dict[str, tuple[Any, Callable[[Any], str]]] = {
            "case": (self.cases, lambda c: c.name),
            "dtype": (self.dtypes, lambda d: str(d).removeprefix("torch.")),
            "sabotage": (self.sabotages, lambda s: s.name),
            "bad_call": (self.bad_calls, lambda b: b.name),
        }
        for argument, (values, label) in spread.items():
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, values, ids=[label(v) for v in values])

    def test_outputs_and_gradients(self, case: Case, dtype: torch.dtype) -> None:
        """As near to the float64 oracle as plain PyTorch in the same dtype."""
        inputs = case.inputs(New(dtype))
        self._judge(inputs, inputs, case, dtype)

    def test_strided_inputs(self, case: Case, dtype: torch.dtype) -> None:
        """The same holds when every tensor is a view with gaps between its elements."""
        inputs = case.inputs(New(dtype))
        self._judge(_map_tensors(inputs, _with_gaps), inputs, case, dtype)

    def test_equal_bits_on_repeat(self, case: Case, dtype: torch.dtype) -> None:
        """Two runs on the same inputs agree bit for bit, gradients included."""
        first, second = (self.evaluate(self.op, case.inputs(New(dtype)), case) for _ in range(2))
        require_same_bits(first, second)

    def test_nan_behind_the_mask(self, case: Case, dtype: torch.dtype) -> None:
        """NaN in places that do not count changes no bit of the outputs and of the gradients."""
        poisoned = None if self.poison is None else type(self).poison(case.inputs(New(dtype)))
        if poisoned is None:
            assert self.poison is None or any(
                type(self).poison(c.inputs(New(dtype))) is not None for c in self.cases
            ), f"{self.name}: poison() returns None for every case"
            return
        clean = self.evaluate(self.op, case.inputs(New(dtype)), case)
        require_same_bits(clean, self.evaluate(self.op, poisoned, case))

    def test_opcheck(self, case: Case, dtype: torch.dtype) -> None:
        """Schema, fake and tracing of every raw op the case calls, forward and backward, agree with what it does."""
        with _RecordRawOps(self.namespace) as record:
            self.evaluate(self.op, case.inputs(New(dtype)), case)
        assert record.calls, f"{self.name}: {case.name} called no op of torch.ops.{self.namespace}"
        if dtype != self.dtypes[0]:
            return  # schema and fake do not depend on the dtype; that raw ops are called has been shown above
        for raw, args, kwargs in record.calls:
            torch.library.opcheck(raw, args, kwargs)

    def test_compile_without_graph_breaks(self, case: Case, dtype: torch.dtype) -> None:
        """Traces whole, forward and backward, and computes the same as without compilation."""
        if not case.compiled or dtype != self.dtypes[0]:
            assert any(c.compiled for c in self.cases), f"{self.name}: no case is compiled"
            return
        torch._dynamo.reset()
        compiled = torch.compile(self.op, fullgraph=True, backend="aot_eager")
        inputs = case.inputs(New(dtype))
        self._judge(inputs, inputs, case, dtype, op=compiled)

    def test_on_the_emulator(self, case: Case, dtype: torch.dtype) -> None:
        """The CUDA kernels are right in order, and give the same bits in any order of their threads."""
        self.require_kernels()
        for architecture in self.architectures:
            if architecture == self.architectures[0] or self.runs_on(architecture, case, dtype):
                self._judge_emulated(case, dtype, architecture)

    def _judge_emulated(self, case: Case, dtype: torch.dtype, architecture: int) -> None:
        inputs, poison, device = case.inputs(New(dtype)), type(self).poison, {"architecture": architecture}
        references = self.references(inputs, case)
        first = self.evaluate_emulated(inputs, case, **device, **SCHEDULES[0])
        self.judge_results(first, *references, case, dtype)
        fixed = self.with_fixed_bits(first, case, dtype)
        for schedule in SCHEDULES[1:]:
            other = self.evaluate_emulated(inputs, case, **device, **schedule)
            require_same_bits(fixed, self.with_fixed_bits(other, case, dtype))
            self.judge_results(other, *references, case, dtype)
        strided = self.evaluate_emulated(_map_tensors(inputs, _with_gaps), case, **device)
        self.judge_results(strided, *references, case, dtype)
        poisoned = None if poison is None else poison(case.inputs(New(dtype)))
        if poisoned is not None:
            other = self.evaluate_emulated(poisoned, case, **device)
            require_same_bits(fixed, self.with_fixed_bits(other, case, dtype))

    def test_sabotage_is_found(self, sabotage: Sabotage, dtype: torch.dtype) -> None:
        """An op that read something else than the oracle fails the comparer in at least one case."""
        for case in self.cases:
            inputs = case.inputs(New(dtype))
            broken = sabotage.change(case.inputs(New(dtype)))
            try:
                self._judge(broken, inputs, case, dtype)
            except AssertionError:
                return
        pytest.fail(f"{self.name}: {sabotage.name} passed as correct in every case")

    def test_broken_outputs_are_found(self, case: Case, dtype: torch.dtype) -> None:
        """One element off, or one row shifted, in any output or gradient fails the comparer."""
        inputs = case.inputs(New(dtype))
        actual = self.evaluate(self.op, inputs, case)
        oracle, yardstick = self.references(inputs, case)
        for what, value in actual.items():
            for broken in _broken(value, oracle[what], yardstick[what]):
                with pytest.raises(AssertionError):
                    compare(broken, oracle[what], yardstick[what], name=what, **self.looser(what, case, dtype))

    def test_nothing_was_left_out(self) -> None:
        """Every op states a sabotage, an error and a case with nothing to do."""
        assert self.sabotages, f"{self.name}: no sabotages"
        assert self.bad_calls, f"{self.name}: no bad_calls"
        assert all(len(why.split()) >= 3 for why in self.bits_may_differ.values()), "say why in words"
        drawn = [case.inputs(New(self.dtypes[0])) for case in self.cases]
        assert any(t.numel() == 0 for inputs in drawn for t in _tensors(inputs)), f"{self.name}: no empty case"

    def test_error_messages(self, bad_call: BadCall) -> None:
        """A wrong call is refused at the door, by the op's name, with the rule and what was got."""
        case = self.cases[0]
        arguments = bad_call.change({**case.inputs(New(self.dtypes[0])), **case.options})
        with pytest.raises(bad_call.error, match=bad_call.match) as caught:
            type(self).op(**arguments)
        assert str(caught.value).startswith(f"{self.name}: "), str(caught.value)

    def _judge(
        self, inputs: Inputs, true_inputs: Inputs, case: Case, dtype: torch.dtype,
        op: Callable[..., Any] | None = None,
    ) -> None:
        """Compare the op on `inputs` with oracle and yardstick on `true_inputs`."""
        actual = self.evaluate(op or self.op, inputs, case)
        self.judge_results(actual, *self.references(true_inputs, case), case, dtype)

    def judge_results(
        self, actual: Results, oracle: Results, yardstick: Results, case: Case, dtype: torch.dtype
    ) -> None:
        """Compare every output and gradient."""
        assert actual.keys() == oracle.keys() == yardstick.keys(), f"{actual.keys()} {oracle.keys()} {yardstick.keys()}"
        for what, value in actual.items():
            compare(value, oracle[what], yardstick[what], name=what, **self.looser(what, case, dtype))

    def require_kernels(self) -> None:
        """Skip where there is nothing to emulate."""
        if self.namespace != "instructgpt_fast":
            pytest.skip(f"ops of {self.namespace} have no kernels")
        if not simt.available():
            pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")

    def evaluate_emulated(self, inputs: Inputs, case: Case, **executing: Any) -> Results:
        """The op's results from its emulated kernels; every raw op it calls must have one."""
        with simt.executing(**executing) as run:
            results = self.evaluate(self.op, inputs, case)
        assert not run.not_emulated, f"{self.name}: no emulated kernel of {sorted(run.not_emulated)}"
        return results

    def references(self, inputs: Inputs, case: Case) -> tuple[Results, Results]:
        """Results of oracle and yardstick."""
        doubled = {
            key: value if key in self.kept_for_oracle else _map_tensors(value, _to_double)
            for key, value in inputs.items()
        }
        return self.evaluate(self.oracle, doubled, case), self.evaluate(self.yardstick, inputs, case)

    def evaluate(self, function: Callable[..., Any], inputs: Inputs, case: Case) -> Results:
        """Outputs and, for differentiable inputs, gradients of their sum weighted by fixed random numbers."""
        leaves = dict(inputs)
        for key in self.differentiable:
            if leaves.get(key) is not None:
                leaves[key] = _map_tensors(leaves[key], lambda t: t.detach().requires_grad_())
        outputs = _tensors(function(**leaves, **case.options))
        results = {f"output {i}": output.detach() for i, output in enumerate(outputs)}
        wanted = {k: leaves[k] for k in self.differentiable if leaves.get(k) is not None}
        leaf_list = [t for value in wanted.values() for t in _tensors(value)]
        with_grad = [(i, t) for i, t in enumerate(outputs) if t.requires_grad]
        if not with_grad:
            assert not leaf_list, f"{self.name}: no output requires a gradient though {list(wanted)} do"
            return results
        weights = [_fixed_weights(t, seed=100 + i) for i, t in with_grad]
        grads = torch.autograd.grad([t for _, t in with_grad], leaf_list, weights, allow_unused=True)
        names = [k if isinstance(v, torch.Tensor) else f"{k}[{i}]" for k, v in wanted.items()
                 for i, _ in enumerate(_tensors(v))]
        for key, leaf, grad in zip(names, leaf_list, grads, strict=True):
            results[f"grad {key}"] = torch.zeros_like(leaf) if grad is None else grad
        return results


class _RecordRawOps(TorchDispatchMode):
    """Notes each call of a raw op of the package, its tensors copied before the call may write into them."""

    def __init__(self, namespace: str) -> None:
        super().__init__()
        self.namespace = namespace
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == self.namespace:
            copies = tuple(_map_tensors(a, _copy) for a in args)
            self.calls.append((func, copies, {k: _map_tensors(v, _copy) for k, v in kwargs.items()}))
        return func(*args, **kwargs)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _to_double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _with_gaps(tensor: torch.Tensor) -> torch.Tensor:
    """The same values as a view whose last dimension has stride 2 (a scalar stays as it is)."""
    if tensor.dim() == 0:
        return tensor
    wide = torch.empty(*tensor.shape[:-1], tensor.shape[-1] * 2, dtype=tensor.dtype)
    wide[..., ::2] = tensor
    return wide[..., ::2]


def _map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {k: _map_tensors(v, function) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_map_tensors(v, function) for v in value])
    return value


def _tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor inside a tensor, list, tuple, dict or dataclass, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if is_dataclass(value) and not isinstance(value, type):
        return [t for f in fields(value) for t in _tensors(getattr(value, f.name))]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in _tensors(v)] if isinstance(value, (list, tuple)) else []


def _fixed_weights(output: torch.Tensor, seed: int) -> torch.Tensor:
    """Random numbers of the output's shape, rounded so that bfloat16, float16 and wider dtypes all hold them."""
    drawn = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
    return drawn.bfloat16().half().to(output)


def _broken(value: torch.Tensor, oracle: torch.Tensor, yardstick: torch.Tensor) -> list[torch.Tensor]:
    """Copies of a result with one mistake each; none for a result in which the mistake would not show."""
    if value.numel() == 0 or not bool(value.isfinite().all()) or not bool(value.any()):
        return []
    if oracle.double().abs().max() <= 16 * (yardstick.double() - oracle.double()).abs().max():
        return []  # nothing but rounding, as the gradient of a softmax over one key
    largest = int(value.double().abs().reshape(-1).argmax())
    off = value.clone().reshape(-1)
    off[largest] = off[largest] * 1.5 if value.is_floating_point() else ~off[largest]
    broken = [off.reshape(value.shape)]
    rows = value.reshape(-1, value.shape[-1]) if value.dim() > 1 else value.reshape(1, -1)
    row = int(rows.double().abs().sum(-1).argmax())
    shifted = rows.clone()
    shifted[row] = rows[row].roll(1)
    if rows.shape[1] > 2 and not same_bits(shifted, rows):
        broken.append(shifted.reshape(value.shape))
    return broken


def require_same_bits(left: Results, right: Results) -> None:
    """Every output and gradient is the same bit for bit."""
    assert left.keys() == right.keys()
    for what, value in left.items():
        assert same_bits(value, right[what]), f"{what} differs in {int((value != right[what]).sum())} elements"

"""`python -m instructgpt_fast.simt layer_norm`: runs one op's CUDA kernels in the emulator and prints what they moved.

Exit status: 0 no rule was broken, 1 a kernel broke one, 2 a problem that the message explains.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from instructgpt_fast.config import nearest
from instructgpt_fast.errors import InstructGPTError
from instructgpt_fast.simt import MUTATIONS, Launch, Mutation, Run, SimtError, Traffic, executing, operators
from instructgpt_fast.simt.examples import EXAMPLES, Draw
from instructgpt_fast.simt.execution import ARCHITECTURES, COPIES, SCHEDULES

PROGRAM = "python -m instructgpt_fast.simt"
HEADINGS = ("buffer", "bytes\nloaded", "each\nonce", "\nsectors", "bytes\nstored", "\nsectors", "bytes of\natomics")
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def main(arguments: Sequence[str] | None = None, *, console: Console | None = None) -> int:
    """Run the command and return its exit status."""
    console = console or Console()
    options = _parser().parse_args(arguments)
    try:
        if options.list:
            _list_ops(console)
            return 0
        run, difference = _run(options)
    except SimtError as fault:
        console.print(str(fault), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except (InstructGPTError, ValueError, TypeError, RuntimeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for launch in run.launches:
        _print_launch(console, launch)
    if options.sites:
        _print_sites(console, run)
    if run.launches:
        console.print(f"results beside those of the CPU's own loops: {difference}", highlight=False)
    for op in sorted(run.not_emulated):
        console.print(f"{op} has no CUDA kernel: it ran on the CPU", style="yellow")
    return _say_what_the_mutation_did(console, options, run)


def _parser() -> argparse.ArgumentParser:
    about, _, statuses = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(prog=PROGRAM, description=about, epilog=f"{statuses.strip()} Guide: docs/simt.md")
    parser.add_argument("op", nargs="?", help="which op to call; --list names them")
    parser.add_argument("--list", action="store_true", help="the ops, and what the numbers of --shape mean")
    parser.add_argument("--shape", type=int, nargs="+", metavar="N", help="sizes of the inputs, as --list names them")
    parser.add_argument("--dtype", choices=DTYPES, default="f32",
                        help="of the op's floating-point inputs, f32 by default")
    parser.add_argument("--backward", action="store_true", help="run the backward pass too")
    parser.add_argument("--schedule", choices=SCHEDULES, default="forward",
                        help="the order of the threads, forward by default")
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="of the schedules with chance in them, 0 by default")
    parser.add_argument("--copies", choices=COPIES, default="lazy",
                        help="when asynchronous copies arrive, lazy (when waited for) by default")
    parser.add_argument("--multiprocessors", type=int, default=4, metavar="N",
                        help="of the emulated device, 4 by default")
    parser.add_argument("--architecture", type=int, choices=ARCHITECTURES, default=80,
                        help="of the emulated device, 80 (sm_80) by default: ops choose kernels by it")
    parser.add_argument("--mutation", metavar="KIND@FILE:LINE",
                        help=f"break the words at one place; kinds: {', '.join(MUTATIONS)}")
    parser.add_argument("--sites", action="store_true", help="the places that --mutation can break")
    return parser


def _run(options: argparse.Namespace) -> tuple[Run, str]:
    """Calls the op as asked, and says how far its results are from the CPU's."""
    if options.op is None:
        raise ValueError(f"{PROGRAM}: no op was named; --list names them")
    if options.op not in EXAMPLES:
        raise ValueError(f"{PROGRAM}: no op {options.op!r}{nearest(options.op, EXAMPLES)}; --list names them")
    example = EXAMPLES[options.op]
    shape = tuple(options.shape or example.shape)
    if len(shape) != len(example.dims) or min(shape) < 1:
        raise ValueError(
            f"{PROGRAM}: {options.op} takes {len(example.dims)} sizes above 0 ({', '.join(example.dims)}), got "
            f"{' '.join(map(str, shape))}"
        )
    with executing(
        schedule=options.schedule, seed=options.seed, copies=options.copies, multiprocessors=options.multiprocessors,
        architecture=options.architecture, mutation=_mutation(options.mutation), accounting=True, sites=options.sites,
    ) as run:
        emulated = _results(options, shape)
    return run, _difference(emulated, _results(options, shape))


def _results(options: argparse.Namespace, shape: tuple[int, ...]) -> list[Tensor]:
    """All that one call on the same inputs gives: outputs, inputs that it wrote into, gradients."""
    draw = Draw(DTYPES[options.dtype], options.backward, torch.Generator().manual_seed(0))
    outputs = list(EXAMPLES[options.op].call(draw, *shape))
    differentiable = [output for output in outputs if output.requires_grad]
    if options.backward and not differentiable:
        raise ValueError(f"{PROGRAM}: {options.op} has no backward pass")
    if differentiable:
        torch.autograd.backward(differentiable, [torch.ones_like(output) for output in differentiable])
    gradients = [tensor.grad for tensor in draw.drawn if tensor.grad is not None]
    return [tensor.detach().double() for tensor in (*outputs, *draw.drawn, *gradients)]


def _difference(emulated: list[Tensor], expected: list[Tensor]) -> str:
    here, there = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (emulated, expected))
    strange = int((here.isfinite() != there.isfinite()).sum())
    if strange:
        return f"{strange:,} numbers are not finite in one of the two"
    finite = here.isfinite()
    apart = float((here[finite] - there[finite]).abs().max())
    return f"at most {apart:.2g} apart" if apart else "equal"


def _mutation(text: str | None) -> Mutation | None:
    if text is None:
        return None
    kind, at, site = text.partition("@")
    if not at or not re.fullmatch(r".+:\d+", site):
        raise ValueError(f"{PROGRAM}: --mutation is KIND@FILE:LINE, as drop_barrier@reductions.cuh:57, got {text!r}")
    if kind not in MUTATIONS:
        raise ValueError(f"{PROGRAM}: no mutation {kind!r}{nearest(kind, MUTATIONS)}")
    return Mutation(kind, site)


def _say_what_the_mutation_did(console: Console, options: argparse.Namespace, run: Run) -> int:
    """The exit status of a run that broke no rule."""
    if options.mutation is None:
        return 0
    if run.mutation_applied == 0:
        sys.stderr.write(f"error: {PROGRAM}: nothing was broken: {options.mutation} is no place that this call comes "
                         "by; --sites lists them\n")
        return 2
    console.print(f"{options.mutation}: no rule was broken (times struck: {run.mutation_applied:,}). Whether "
                  f"the results are wrong is judged by python_tests/kernels/test_{options.op}.py", style="yellow")
    return 0


def _list_ops(console: Console) -> None:
    table = Table("op", "--shape", "by default", "CUDA kernels")
    for column in table.columns:
        column.no_wrap = column.header != "--shape"
    emulated = operators()
    for name, example in EXAMPLES.items():
        raw = sorted(op for op in emulated if op.startswith(name) and _owner(op) == name)
        kernels = [op.removeprefix(name).strip("_") or "forward" for op in raw]
        table.add_row(name, " ".join(example.dims), " ".join(map(str, example.shape)), ", ".join(kernels) or "none")
    console.print(table)


def _owner(raw: str) -> str:
    """The op that a raw operator belongs to: the longest name that it begins with."""
    return max((name for name in EXAMPLES if raw.startswith(name)), key=len)


def _print_launch(console: Console, launch: Launch) -> None:
    """One table: a line a buffer, without columns in which nothing stands."""
    blocks, threads = ("x".join(map(str, size)) for size in (launch.grid, launch.block))
    console.print(f"[bold]{launch.kernel}[/] ({launch.op}): {blocks} blocks of {threads} threads", highlight=False)
    rows = [(name, *_numbers(traffic)) for name, traffic in launch.buffers.items()]
    table = Table()
    used = [column for column in range(len(HEADINGS)) if any(row[column] for row in rows)]
    for column in used:
        left = column == 0
        table.add_column(HEADINGS[column], justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for row in rows:
        table.add_row(*(row[column] for column in used))
    console.print(table)
    if any("(" in cell for row in rows for cell in row[1:]):
        console.print("in brackets: as many sectors would do")
    shared = launch.static_shared_bytes + launch.dynamic_shared_bytes
    if shared:
        console.print(f"shared memory: {shared:,} bytes a block, {launch.shared_wavefronts:,} wavefronts, "
                      f"{launch.ideal_shared_wavefronts:,} would do", highlight=False)
    console.print(f"block barriers that a thread passes: {launch.block_barriers:g}\n", highlight=False)


def _numbers(traffic: Traffic) -> Iterable[str]:
    for value in (
        f"{traffic.loaded_bytes:,}", f"{traffic.unique_loaded_bytes:,}",
        _sectors(traffic.load_sectors, traffic.ideal_load_sectors), f"{traffic.stored_bytes:,}",
        _sectors(traffic.store_sectors, traffic.ideal_store_sectors), f"{traffic.atomic_bytes:,}",
    ):
        yield "" if value == "0" else value


def _sectors(count: int, ideal: int) -> str:
    """The least that would do in brackets, where it is less."""
    return f"{count:,}" if count == ideal else f"{count:,} ({ideal:,})"


def _print_sites(console: Console, run: Run) -> None:
    table = Table("mutation", "place", "threads that come by")
    for site in run.sites:
        table.add_row(site.kind, site.where, f"{site.visits:,}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

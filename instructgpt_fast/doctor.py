"""Tells what was built, what was found here, and why each automatic choice was made.

`python -m instructgpt_fast.doctor` prints it, `doctor()` prints and returns it.
Not covered: whether results are right; that is what the tests are for.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from instructgpt_fast._version import VERSION
from instructgpt_fast.callable_module import make_callable
from instructgpt_fast.errors import BackendError

BUILD_INFO = Path(__file__).resolve().parent / "_build_info.json"


@dataclass(frozen=True)
class Finding:
    """One line of the report: a part, what is there, why it is so, and whether something is wrong with it."""

    part: str
    found: str
    why: str = ""
    wrong: bool = False


def doctor(*, console: Console | None = None) -> list[Finding]:
    """Print a table of what was built, what was found and why, and return its lines.

    Raises nothing for a broken installation: what is wrong stands in the table, with what to do.
    """
    findings = [*_environment(), *_build(), *_operators(), *_host(), *_gpus()]
    table = Table(title=f"instructgpt_fast {VERSION}", title_justify="left")
    for heading in ("part", "found", "why"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(finding.part, finding.found, finding.why, style="bold red" if finding.wrong else None)
    (console or Console()).print(table)
    return findings


def build_info() -> dict[str, Any]:
    """What setup.py wrote down about the build: versions, compiler, why CUDA is or is not in it; {} without a build."""
    if not BUILD_INFO.is_file():
        return {}
    info: dict[str, Any] = json.loads(BUILD_INFO.read_text(encoding="utf-8"))
    return info


def _environment() -> list[Finding]:
    import torch

    cuda = f"with CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    threads = os.environ.get("OMP_NUM_THREADS")
    return [
        Finding("python", f"{platform.python_version()}, {sys.executable}"),
        Finding("torch", f"{torch.__version__}, {cuda}", "found by import"),
        Finding(
            "CPU threads", str(torch.get_num_threads()), "OMP_NUM_THREADS" if threads else f"{os.cpu_count()} cores"
        ),
    ]


def _build() -> list[Finding]:
    info = build_info()
    if not info:
        return [Finding("native build", "missing", "build with `pip install .` in a checkout", wrong=True)]
    commit = f", commit {info['commit']}" if info["commit"] else ""
    cuda = info["cuda"]
    findings = [
        Finding("native build", f"version {info['version']}{commit}", f"{info['compiler']}, CMake {info['cmake']}"),
        Finding("built against", f"torch {info['torch_headers']}", f"stable ABI, runs under {info['torch_at_least']}+"),
        Finding("CUDA in the build", f"nvcc {cuda['version']}" if cuda["build"] else "none", cuda["why"]),
    ]
    if info.get("simt"):
        findings.append(Finding("emulator of CUDA kernels", "libigf_simt.so", "INSTRUCTGPT_FAST_SIMT=ON"))
    if info["version"] != VERSION:
        found = f"built for {info['version']}, the Python part is {VERSION}"
        findings.append(Finding("versions", found, "build again", wrong=True))
    if cuda["build"]:
        findings.append(Finding("CUDA architectures", ", ".join(cuda["archs"]), cuda["archs_why"]))
    return findings


def _operators() -> list[Finding]:
    try:
        library = importlib.import_module("instructgpt_fast.ops._library")
        cpu = library.operators_on("cpu")
        importlib.import_module("instructgpt_fast.ops")
    except (BackendError, AttributeError) as error:  # AttributeError: the libraries are older than the Python part
        return [Finding("CPU operators", "none", str(error), wrong=True)]
    cuda = sorted(library.CUDA_OPERATORS)
    why_not = "" if cuda else "CUDA is not in the build: set INSTRUCTGPT_FAST_CUDA=ON and build again to have it"
    return [
        Finding("CPU operators", str(len(cpu)), "libigf_cpu.so is loaded"),
        Finding("CUDA operators", ", ".join(cuda) or "none", why_not or "libigf_cuda.so is loaded"),
    ]


def _host() -> list[Finding]:
    try:
        host = importlib.import_module("instructgpt_fast._host")
    except ImportError as error:
        return [Finding("host helpers", "numpy", f"slower, same results; the C++ module is missing: {error}")]
    facts = host.build_facts()
    return [
        Finding("host helpers", "C++", f"gcc {facts['compiler']}"),
        Finding("CPU level", facts["cpu_level"], "the best of those compiled in that this machine has"),
    ]


def _gpus() -> list[Finding]:
    import torch

    if torch.version.cuda is None:
        return [Finding("GPU", "not usable", "this torch was built without CUDA; training runs on the CPU")]
    if not torch.cuda.is_available():
        return [Finding("GPU", "none", "torch finds no working driver; training runs on the CPU")]
    archs = build_info().get("cuda", {}).get("archs", [])
    findings = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        name = f"{torch.cuda.get_device_name(index)}, compute capability {major}.{minor}"
        serving = _serving(10 * major + minor, archs)
        why = serving or "the build has no code for it: build again here"
        findings.append(Finding(f"GPU {index}", name, why, wrong=not serving))
    return findings


def _serving(capability: int, archs: list[str]) -> str:
    """Which of the built architectures runs on a device, machine code before PTX; "" for none."""
    numbers = {arch: int(arch.removesuffix("+PTX").rstrip("af")) for arch in archs}
    exact = [arch for arch, number in numbers.items() if number == capability]
    # Without a letter, machine code also runs on later minor versions of the same major one.
    near = [
        arch for arch, number in numbers.items()
        if number // 10 == capability // 10 and number <= capability and arch.removesuffix("+PTX")[-1].isdigit()
    ]
    ptx = [arch for arch, number in numbers.items() if arch.endswith("+PTX") and number <= capability]
    for fitting, how in ((exact, "machine code"), (near, "machine code"), (ptx, "PTX, compiled at first use,")):
        if fitting:
            return f"{how} of sm_{max(fitting, key=lambda arch: numbers[arch]).removesuffix('+PTX')}"
    return ""


make_callable(__name__, doctor)

if __name__ == "__main__":
    sys.exit(any(finding.wrong for finding in doctor()))

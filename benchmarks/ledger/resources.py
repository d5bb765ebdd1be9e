"""Writes benchmarks/ledger/<op>.json from what ptxas says about each kernel: `python -m benchmarks.ledger.resources`.

A change of a kernel shows in these files before it shows on a GPU: a spill, or registers that halve the occupancy.
`--check` compares instead of writing. Not covered: instructions and speed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEDGER = Path(__file__).resolve().parent
ARCHS = ("80", "90a", "100", "120")

FUNCTION = re.compile(r"Function properties for (\S+)")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")

Resources = dict[str, dict[str, int]]


def sources() -> dict[str, Path]:
    """Op -> its CUDA source."""
    return {path.parent.name: path for path in sorted(ROOT.glob("csrc/ops/*/*_cuda.cu"))}


def nvcc_version() -> str:
    """The release of the nvcc on PATH; another release compiles to other numbers."""
    output = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", output)
    return found.group(1) if found else "unknown"


def resources(source: Path, arch: str) -> Resources:
    """Kernel -> registers of a thread, static shared memory of a block in bytes, spilled bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-cubin", "-std=c++20", "-O3", f"-I{ROOT / 'csrc'}", f"-arch=sm_{arch}", "-Xptxas", "-v"]
        result = subprocess.run(
            [*command, str(source), "-o", f"{folder}/kernel.cubin"], capture_output=True, text=True, check=False
        )
    if result.returncode != 0:
        sys.exit(f"{source.relative_to(ROOT)} for sm_{arch}:\n{result.stderr}")
    return parsed(result.stderr)


def parsed(report: str) -> Resources:
    """The same from ptxas' own words."""
    found: Resources = {}
    for block in report.split("Compiling entry function")[1:]:
        name, registers, frame = FUNCTION.search(block), REGISTERS.search(block), FRAME.search(block)
        if name is None or registers is None or frame is None:
            sys.exit(f"ptxas speaks otherwise than expected: {block}")
        shared = SHARED.search(block)
        found[readable(name.group(1))] = {
            "registers": int(registers.group(1)),
            "shared_bytes": int(shared.group(1)) if shared else 0,
            "spill_bytes": int(frame.group(2)) + int(frame.group(3)),
        }
    return dict(sorted(found.items()))


def readable(mangled: str) -> str:
    """layer_norm_forward_rows<bfloat16, 32, 4> for its mangled name."""
    output = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    name = re.sub(r"^void |igf::|\(anonymous namespace\)::|_GLOBAL__N_\w+::|__nv_", "", output)
    name = re.sub(r"\((?:int|unsigned int|bool)\)", "", name)
    return name.partition("(")[0].replace("__half", "half")


def ledger(source: Path) -> str:
    """Everything about one op's kernels as JSON with a line a kernel, so that a change reads well."""
    archs = []
    for arch in ARCHS:
        kernels = (f"  {json.dumps(name)}: {json.dumps(used)}" for name, used in resources(source, arch).items())
        archs.append(f' "sm_{arch}": {{\n' + ",\n".join(kernels) + "\n }")
    return f'{{"nvcc": "{nvcc_version()}", "resources": {{\n' + ",\n".join(archs) + "\n}}\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.ledger.resources", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    check = parser.parse_args(arguments).check
    differing = []
    for op, source in sources().items():
        path = LEDGER / f"{op}.json"
        text = ledger(source)
        if not check:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            differing.append(path.name)
    if differing:
        sys.exit(f"{', '.join(differing)}: the kernels changed; run `python -m benchmarks.ledger.resources` and commit")


if __name__ == "__main__":
    main()

"""Writes benchmarks/ledger/<op>.json, what each kernel takes of a GPU: `python -m benchmarks.ledger.resources`.

A change of a kernel shows in these files before it shows on a GPU: registers or shared memory that halve the occupancy,
local memory (spilled registers, or arrays that did not fit into registers). `--check` compares instead of writing, and
compiles what it compares; python_tests/build/test_ledger.py compares with the built library, which takes no time.
Words of the command line name ops; none means all. Not covered: instructions and speed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEDGER = Path(__file__).resolve().parent
CACHE = ROOT / "build" / "ledger"
ARCHS = ("80", "86", "89", "90a", "100", "100a", "120")
RESERVED_SHARED_BYTES = 1024
FLAGS = ("-std=c++20", "-O3", "-DNDEBUG")

FUNCTION = re.compile(r"'(\S+)' for 'sm_(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame")
REGISTERS = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
USAGE = re.compile(r"^ Function (\S+):\n  REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", re.MULTILINE)
INSTRUCTION = re.compile(r"^ +/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?([A-Z][\w.]+)", re.MULTILINE)

# Kernel -> architecture -> {"registers": of a thread, "shared_bytes": static, of a block, "local_bytes": of a thread}.
Resources = dict[str, dict[str, dict[str, int]]]


def sources() -> dict[str, list[Path]]:
    """Op -> its CUDA sources."""
    found: dict[str, list[Path]] = {}
    for path in sorted(ROOT.glob("csrc/ops/*/*_cuda.cu")):
        found.setdefault(path.parent.name, []).append(path)
    return found


def nvcc_version() -> str:
    """The release of the nvcc on PATH; another release compiles to other numbers."""
    output = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", output)
    return found.group(1) if found else "unknown"


def compiled(source: Path) -> Resources:
    """What ptxas says about each kernel of a source, for every architecture; kept in build/ by what was compiled."""
    digest = hashlib.sha256(" ".join((nvcc_version(), *ARCHS, *FLAGS, Path(__file__).read_text())).encode())
    for path in [source, *sorted(ROOT.glob("csrc/device/*")), *sorted(source.parent.glob("*.*h"))]:
        digest.update(path.read_bytes())
    kept = CACHE / f"{source.stem}-{digest.hexdigest()[:20]}.json"
    if not kept.is_file():
        found = parsed(compiler_report(source))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
    known: Resources = json.loads(kept.read_text())
    return known


def compiler_report(source: Path) -> str:
    """ptxas' words about a source, or the end of the program with nvcc's own."""
    targets = [word for arch in ARCHS for word in ("-gencode", f"arch=compute_{arch},code=sm_{arch}")]
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-fatbin", *FLAGS, f"-I{ROOT / 'csrc'}", *targets, "-Xptxas", "-v", str(source)]
        result = subprocess.run([*command, "-o", f"{folder}/x"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{source.relative_to(ROOT)}:\n{result.stderr}")
    return result.stderr


def parsed(report: str) -> Resources:
    """The same from ptxas' own words."""
    rows = []
    for block in report.split("Compiling entry function")[1:]:
        function, registers, frame = FUNCTION.search(block), REGISTERS.search(block), FRAME.search(block)
        if function is None or registers is None or frame is None:
            sys.exit(f"ptxas speaks otherwise than expected: {block}")
        shared = SHARED.search(block)
        used = int(registers.group(1)), int(shared.group(1)) if shared else 0, int(frame.group(1))
        rows.append((function.group(1), function.group(2), used))
    return collected(rows)


def in_library(library: Path) -> Resources:
    """What the machine code in a built library takes, for the architectures it was built for; by cuobjdump."""
    program = cuobjdump()
    if program is None:
        sys.exit("cuobjdump is not installed; `pip install nvidia-cuda-cuobjdump`")
    command = [program, "--dump-resource-usage", str(library)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = []
    for part in report.split("arch = sm_")[1:]:
        arch = part.partition("\n")[0].strip()
        # From sm_90 on the driver has a share of a block's shared memory: cuobjdump counts it where there is any.
        kept = RESERVED_SHARED_BYTES if int(re.sub(r"\D", "", arch)) >= 90 else 0
        for name, registers, stack, shared, local in USAGE.findall(part):
            rows.append((name, arch, (int(registers), max(0, int(shared) - kept), int(stack) + int(local))))
    return collected(rows)


def cuobjdump() -> str | None:
    """Its path: from its wheel, or on PATH."""
    spec = find_spec("nvidia")
    for folder in [] if spec is None else spec.submodule_search_locations or []:
        for program in Path(folder).glob("cu*/bin/cuobjdump"):
            return str(program)
    return shutil.which("cuobjdump")


def opcodes(library: Path, arch: str, stem: str) -> dict[str, set[str]]:
    """Readable name -> instructions, such as "LDG.E.128", of each kernel that <stem>.cu put into a built library."""
    program = cuobjdump()
    if program is None:
        sys.exit("cuobjdump is not installed; `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`")
    with tempfile.TemporaryDirectory() as folder:
        # One piece of the library: cuobjdump looks for functions in all of it, which takes a minute.
        command = [program, "--extract-elf", f"{stem}.sm_{arch}.cubin", str(library.resolve())]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        (cubin,) = Path(folder).iterdir()
        command = [program, "-sass", str(cubin)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    parts = report.split("Function : ")[1:]
    names = readable([part.partition("\n")[0].strip() for part in parts])
    return {name: set(INSTRUCTION.findall(part)) for name, part in zip(names, parts, strict=True)}


def collected(rows: list[tuple[str, str, tuple[int, int, int]]]) -> Resources:
    """(mangled name, architecture, (registers, shared bytes, local bytes)) by readable name."""
    names = readable([name for name, _, _ in rows])
    found: Resources = {}
    for name, (_, arch, (registers, shared, local)) in zip(names, rows, strict=True):
        used = {"registers": registers, "shared_bytes": shared, "local_bytes": local}
        if found.setdefault(name, {}).setdefault(arch, used) != used:
            sys.exit(f"two kernels are called {name}")
    return dict(sorted(found.items()))


def readable(mangled: list[str]) -> list[str]:
    """layer_norm_forward_rows<bfloat16, 32, 4> for its mangled name."""
    lines = "\n".join(mangled) + "\n"
    output = subprocess.run(["c++filt"], input=lines, capture_output=True, text=True, check=True).stdout
    names = []
    for line in output.splitlines():
        name = re.sub(r"^void |igf::|\(anonymous namespace\)::|_GLOBAL__N_\w+::|__nv_|device::", "", line)
        name = re.sub(r"\([\w: ]+\)(?=-?\d)", "", name)  # the type of a template's constant
        names.append(name.partition("(")[0].replace("__half", "half"))
    return names


def merged(parts: Iterable[Resources]) -> Resources:
    """The kernels of several sources; one that a header gives to two of them must take the same in both."""
    found: Resources = {}
    for name, used in (item for part in parts for item in part.items()):
        if found.setdefault(name, used) != used:
            sys.exit(f"two kernels are called {name}")
    return dict(sorted(found.items()))


def written(found: Resources) -> str:
    """A ledger as JSON with a line a kernel, so that a change reads well: a number where all architectures agree."""
    lines = []
    for name, by_arch in found.items():
        used = {key: [by_arch[arch][key] for arch in ARCHS] for key in ("registers", "shared_bytes", "local_bytes")}
        short = {key: values[0] if len(set(values)) == 1 else values for key, values in used.items()}
        lines.append(f"  {json.dumps(name)}: {json.dumps(short)}")
    head = json.dumps({"nvcc": nvcc_version(), "archs": ARCHS})
    return f'{head[:-1]}, "kernels": {{\n' + ",\n".join(lines) + "\n}}\n"


def read(path: Path) -> Resources:
    """A ledger as it was before written()."""
    ledger = json.loads(path.read_text())
    archs = ledger["archs"]
    return {
        name: {
            arch: {key: value[i] if isinstance(value, list) else value for key, value in used.items()}
            for i, arch in enumerate(archs)
        }
        for name, used in ledger["kernels"].items()
    }


def differences(expected: Resources, found: Resources, archs: set[str]) -> list[str]:
    """A line for each kernel that takes other than expected on some of these architectures; empty for none."""
    lines = [f"{name} is new" for name in sorted(found.keys() - expected.keys())]
    lines += [f"{name} is gone" for name in sorted(expected.keys() - found.keys())]
    for name in sorted(expected.keys() & found.keys()):
        for arch in sorted(archs):
            before, now = expected[name].get(arch), found[name].get(arch)
            if before is None or now is None:
                lines.append(f"{name} is {'new' if before is None else 'gone'} on sm_{arch}")
                continue
            changed = [f"{key} {before[key]} -> {now[key]}" for key in before if before[key] != now[key]]
            if changed:
                lines.append(f"{name} on sm_{arch}: {', '.join(changed)}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.ledger.resources", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    parser.add_argument("ops", nargs="*", help="ops to write or compare; all by default")
    options = parser.parse_args(arguments)
    wanted = {op: paths for op, paths in sources().items() if not options.ops or op in options.ops}
    unknown = set(options.ops) - wanted.keys()
    if unknown:
        sys.exit(f"no CUDA source for {', '.join(sorted(unknown))}")
    jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    with ThreadPoolExecutor(jobs) as pool:
        parts = {path: pool.submit(compiled, path) for paths in wanted.values() for path in paths}
    results = {op: merged(parts[path].result() for path in paths) for op, paths in wanted.items()}
    lines = []
    for op, found in results.items():
        path = LEDGER / f"{op}.json"
        if not options.check:
            path.write_text(written(found))
        else:
            lines += differences(read(path) if path.is_file() else {}, found, set(ARCHS))
    if lines:
        sys.exit("\n".join(lines) + "\nthe kernels changed; run `python -m benchmarks.ledger.resources` and commit")


if __name__ == "__main__":
    main()

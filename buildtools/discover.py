"""Finds what a build needs (torch's headers, pybind11, cmake, ninja, nvcc) without importing torch, and says why."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

CMAKE_AT_LEAST = (3, 25)
# Machine code for A100, H100/H200, B200 and consumer Blackwell; A10, L4 and RTX 30/40 run sm_80's. PTX for what comes.
DEFAULT_ARCHS = ("80+PTX", "90a", "100", "120")
USUAL_NVCC = Path("/usr/local/cuda/bin/nvcc")


def die(message: str) -> SystemExit:
    """Returns the exception that ends a build with one line instead of a traceback."""
    return SystemExit(f"instructgpt_fast build: {message}")


def package_folder(name: str) -> Path | None:
    """Returns the folder of an importable package without importing it."""
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def torch_include() -> Path:
    """Returns the folder that holds torch/csrc/stable; INSTRUCTGPT_FAST_TORCH_INCLUDE overrides the search."""
    given = os.environ.get("INSTRUCTGPT_FAST_TORCH_INCLUDE")
    folder = package_folder("torch")
    if given:
        candidate = Path(given)
    elif folder is not None:
        candidate = folder / "include"
    else:
        raise die(
            f"torch's headers are needed and no torch is installed for {sys.executable}; install torch>=2.11 first, "
            "or set INSTRUCTGPT_FAST_TORCH_INCLUDE to its include folder"
        )
    if not (candidate / "torch/csrc/stable/library.h").is_file():
        raise die(
            f"{candidate} holds no torch/csrc/stable/library.h; torch>=2.11 is needed to build "
            "(any of them: the result runs under each)"
        )
    return candidate.resolve()


def torch_header_version(include: Path) -> str:
    """Returns the version of the torch whose headers these are."""
    text = (include / "torch/headeronly/version.h").read_text()
    numbers = [re.search(rf"#define TORCH_VERSION_{part} (\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(number.group(1) for number in numbers if number is not None)


def pybind11_include() -> Path:
    """Returns pybind11's include folder."""
    folder = package_folder("pybind11")
    if folder is None:
        raise die(f"pybind11 is not installed for {sys.executable}; `pip install pybind11`")
    return folder / "include"


def find_tool(name: str) -> str | None:
    """Returns the path of cmake or ninja: from its wheel, beside this Python, or on PATH; None where there is none."""
    folder = package_folder(name)
    places = [] if folder is None else [folder / "data/bin" / name]
    places.append(Path(sysconfig.get_path("scripts")) / name)
    if folder is not None:  # a wheel in another prefix puts its programs into that prefix's bin
        places.append(folder.parents[2].parent / "bin" / name)
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    return shutil.which(name)


def cmake_version(cmake: str) -> tuple[int, ...]:
    """Returns what `cmake --version` says, (0,) when it does not run."""
    output = subprocess.run([cmake, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", output)
    return tuple(int(number or 0) for number in found.groups()) if found else (0,)


def tool(name: str) -> str:
    """Returns the path of cmake or ninja, or ends the build saying how to get it."""
    found = find_tool(name)
    if found is None:
        raise die(f"{name} was not found beside {sys.executable} nor on PATH; `pip install {name}`")
    if name == "cmake" and cmake_version(found) < CMAKE_AT_LEAST:
        raise die(f"{found} is older than {'.'.join(map(str, CMAKE_AT_LEAST))}; `pip install cmake`")
    return found


@dataclass(frozen=True)
class Cuda:
    """Whether the CUDA half is built, with what, and why."""

    build: bool
    why: str
    nvcc: str | None = None
    version: str | None = None
    archs: tuple[str, ...] = ()
    archs_why: str = ""


def find_nvcc() -> tuple[str | None, str]:
    """Returns nvcc's path and the variable or place that named it."""
    given = os.environ.get("CUDACXX")
    if given:
        found = shutil.which(given)
        if found is None:
            raise die(f"CUDACXX is {given!r}, which is not a program; correct or unset it")
        return found, "CUDACXX"
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home:
            candidate = Path(home) / "bin/nvcc"
            if not candidate.is_file():
                raise die(f"{variable} is {home!r}, which holds no bin/nvcc; correct or unset it")
            return str(candidate), variable
    found = shutil.which("nvcc")
    if found is not None:
        return found, "PATH"
    return (str(USUAL_NVCC), str(USUAL_NVCC)) if USUAL_NVCC.is_file() else (None, "")


def cuda_switch() -> str:
    """Returns AUTO, ON or OFF: INSTRUCTGPT_FAST_CUDA, where FORCE_CUDA=1 stands for ON."""
    default = "ON" if os.environ.get("FORCE_CUDA", "0") not in ("", "0") else "AUTO"
    switch = (os.environ.get("INSTRUCTGPT_FAST_CUDA") or default).upper()
    switch = {"1": "ON", "0": "OFF"}.get(switch, switch)
    if switch not in ("AUTO", "ON", "OFF"):
        raise die(f"INSTRUCTGPT_FAST_CUDA must be AUTO, ON or OFF, got {switch!r}")
    return switch


def cuda() -> Cuda:
    """Decides about the CUDA half. ON without nvcc ends the build."""
    switch = cuda_switch()
    if switch == "OFF":
        return Cuda(False, "INSTRUCTGPT_FAST_CUDA=OFF")
    nvcc, place = find_nvcc()
    if nvcc is None:
        looked = f"CUDACXX, CUDA_HOME, CUDA_PATH and PATH name no nvcc, and there is no {USUAL_NVCC}"
        if switch == "ON":
            raise die(
                f"INSTRUCTGPT_FAST_CUDA=ON, but {looked}. Put nvcc's folder on PATH, or set CUDACXX to nvcc, or "
                "CUDA_HOME to the toolkit's folder; or build without CUDA by INSTRUCTGPT_FAST_CUDA=OFF"
            )
        return Cuda(False, f"{looked} (INSTRUCTGPT_FAST_CUDA=AUTO)")
    output = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"release (\d+\.\d+)", output)
    if version is None:
        raise die(f"{nvcc} (from {place}) does not answer --version; correct {place} or set INSTRUCTGPT_FAST_CUDA=OFF")
    archs, archs_why = cuda_archs()
    return Cuda(True, f"nvcc found by {place}", nvcc, version.group(1), archs, archs_why)


def simt() -> bool:
    """Decides about the emulator that runs the CUDA kernels on a CPU: for tests, so left out unless asked for."""
    switch = (os.environ.get("INSTRUCTGPT_FAST_SIMT") or "OFF").upper()
    switch = {"1": "ON", "0": "OFF"}.get(switch, switch)
    if switch not in ("ON", "OFF"):
        raise die(f"INSTRUCTGPT_FAST_SIMT must be ON or OFF, got {switch!r}")
    return switch == "ON"


def cuda_archs() -> tuple[tuple[str, ...], str]:
    """Returns the architectures to compile for, as ("80", "90a", "120+PTX"), and where the choice comes from."""
    for variable in ("INSTRUCTGPT_FAST_CUDA_ARCHS", "TORCH_CUDA_ARCH_LIST"):
        given = os.environ.get(variable)
        if given:
            archs = tuple(normal_arch(variable, word) for word in re.split(r"[;, ]+", given.strip()) if word)
            if archs:
                return archs, variable
    program = shutil.which("nvidia-smi")
    if program is not None:
        query = [program, "--query-gpu=compute_cap", "--format=csv,noheader"]
        output = subprocess.run(query, capture_output=True, text=True, check=False)
        if output.returncode == 0:
            found = sorted({cap.strip() for cap in output.stdout.splitlines() if re.fullmatch(r"\d+\.\d", cap.strip())})
            if found:
                return tuple(normal_arch("nvidia-smi", cap) for cap in found), "nvidia-smi: the GPUs of this machine"
    return DEFAULT_ARCHS, "default: no GPU was found to build for"


def normal_arch(source: str, word: str) -> str:
    """Turns 9.0, 9.0a, 90, 90a or sm_90, each with or without +PTX, into 90a; Hopper's own instructions need the a."""
    found = re.fullmatch(r"(?:sm_)?(\d{1,2})\.?(\d)([af]?)(\+PTX)?", word)
    if found is None:
        raise die(f"{source}: {word!r} is no CUDA architecture; write for example 8.0, 90a or 12.0+PTX")
    major, minor, feature, ptx = found.groups()
    if (major, minor) == ("9", "0"):
        feature = "a"
    return f"{major}{minor}{feature}{ptx or ''}"


def jobs() -> int:
    """Returns how many compilers to run at once: MAX_JOBS, else the cores, at 1 GB of free memory each."""
    given = os.environ.get("MAX_JOBS")
    if given:
        return max(1, int(given))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(cores, free_memory() // 1_000_000_000))


def free_memory() -> int:
    """Returns the bytes of memory that programs can still take."""
    try:
        text = Path("/proc/meminfo").read_text()
        found = re.search(r"MemAvailable:\s+(\d+) kB", text)
        if found is not None:
            return int(found.group(1)) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2

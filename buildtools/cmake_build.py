"""The setuptools command that builds the native libraries with CMake and Ninja, and writes down what it did."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import asdict
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

import discover

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "instructgpt_fast"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
BUILD_INFO = "_build_info.json"
HOST = f"_host{SUFFIX}"
CPU_LIBRARY = "lib/libigf_cpu.so"
CUDA_LIBRARY = "lib/libigf_cuda.so"
SIMT_LIBRARY = "lib/libigf_simt.so"


class NativeLibraries(Extension):
    """Stands for everything CMake builds; setuptools itself compiles nothing."""

    def __init__(self) -> None:
        super().__init__(f"{PACKAGE}._native", sources=[])


class CMakeBuild(build_ext):
    """build_ext that runs CMake in a build folder which outlives the call."""

    cuda: discover.Cuda
    simt: bool

    def finalize_options(self) -> None:
        super().finalize_options()
        self.cuda = discover.cuda()
        self.simt = discover.simt()

    def run(self) -> None:
        target = self.target_folder()
        info = self.facts()
        made = self.build_native(info)
        for name, built in made.items():
            install(built, target / name)
        for name in {CUDA_LIBRARY, SIMT_LIBRARY} - set(made):
            (target / name).unlink(missing_ok=True)
        write(target / BUILD_INFO, json.dumps(info, indent=2, sort_keys=True) + "\n")

    def target_folder(self) -> Path:
        """Returns the package folder that receives the libraries: the checkout's in place, else the build folder's."""
        return ROOT / PACKAGE if self.inplace else Path(self.build_lib).resolve() / PACKAGE

    def facts(self) -> dict[str, object]:
        """Collects what doctor() tells about this build."""
        include = discover.torch_include()
        return {
            "version": self.distribution.get_version(),
            "commit": commit(),
            "python": sysconfig.get_config_var("SOABI"),
            "platform": sysconfig.get_platform(),
            "torch_headers": discover.torch_header_version(include),
            "torch_at_least": "2.11",
            "compiler": compiler(),
            "cmake": ".".join(map(str, discover.cmake_version(discover.tool("cmake")))),
            "cuda": asdict(self.cuda),
            "simt": self.simt,
        }

    def build_native(self, info: dict[str, object]) -> dict[str, Path]:
        """Runs CMake and returns name in the package -> built file."""
        cmake = discover.tool("cmake")
        definitions = {
            "CMAKE_MAKE_PROGRAM": discover.tool("ninja"),
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "IGF_TORCH_INCLUDE": str(discover.torch_include()),
            "IGF_PYBIND11_INCLUDE": str(discover.pybind11_include()),
            "IGF_PYTHON_INCLUDE": sysconfig.get_path("include"),
            "IGF_EXTENSION_SUFFIX": SUFFIX,
            "IGF_CUDA": "ON" if self.cuda.build else "OFF",
            "IGF_SIMT": "ON" if self.simt else "OFF",
        }
        if self.cuda.build:
            definitions["CMAKE_CUDA_COMPILER"] = str(self.cuda.nvcc)
            definitions["IGF_CUDA_ARCHS"] = ";".join(self.cuda.archs)
        tools = {"source": str(ROOT), "cmake": cmake, "compiler": str(info["compiler"])}
        folder = self.cmake_folder({**tools, **definitions})
        definitions["IGF_OUTPUT_DIR"] = str(folder / "out")
        configure = [cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"]
        run([*configure, *(f"-D{name}={value}" for name, value in definitions.items())])
        run([cmake, "--build", str(folder), "--parallel", str(discover.jobs())])
        return {name: folder / "out" / Path(name).name for name in self.native_libraries()}

    def cmake_folder(self, choices: dict[str, str]) -> Path:
        """Returns the build folder, emptied when a tool, a compiler or a path differs from its last use.

        CUDA and the emulator may come and go, and CUDA's architectures may change: CMake then rebuilds no more than it
        must.
        """
        folder = ROOT / "build" / f"cmake-{sysconfig.get_platform()}-{sysconfig.get_config_var('SOABI')}"
        switches = ("IGF_CUDA", "IGF_CUDA_ARCHS", "IGF_SIMT")
        choices = {name: value for name, value in choices.items() if name not in switches}
        choices |= {name: os.environ.get(name, "") for name in ("CXX", "CXXFLAGS", "CUDAFLAGS", "LDFLAGS")}
        stamp = folder / "choices.json"
        last = json.loads(stamp.read_text()) if stamp.is_file() else {}
        if folder.is_dir() and (not last or any(last.get(name, value) != value for name, value in choices.items())):
            shutil.rmtree(folder)
            last = {}
        folder.mkdir(parents=True, exist_ok=True)
        write(stamp, json.dumps({**last, **choices}, indent=2))
        return folder

    def native_libraries(self) -> list[str]:
        """Returns what CMake is asked for."""
        return [
            CPU_LIBRARY,
            HOST,
            *([CUDA_LIBRARY] if self.cuda.build else []),
            *([SIMT_LIBRARY] if self.simt else []),
        ]

    def products(self) -> list[str]:
        """Returns what this command puts into the package."""
        return [*self.native_libraries(), BUILD_INFO]

    # What setuptools asks of a build command, for editable installs, wheels and sdists.

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib) / PACKAGE / name) for name in self.products()]

    def get_output_mapping(self) -> dict[str, str]:
        if not self.inplace:
            return {}
        return {str(Path(self.build_lib) / PACKAGE / name): f"{PACKAGE}/{name}" for name in self.products()}

    def get_source_files(self) -> list[str]:
        sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
        return ["CMakeLists.txt", *(str(path.relative_to(ROOT)) for path in sorted(sources))]


def run(command: list[str]) -> None:
    """Runs a build step; its own output has said what went wrong when it fails."""
    print("+", " ".join(command), flush=True)
    result = subprocess.run(command, check=False)
    if result.returncode != 0:
        raise discover.die(f"`{command[0]}` ended with {result.returncode}; what it printed above says why")


def install(built: Path, target: Path) -> None:
    """Copies a library unless it is there already, by renaming: a process that has the old one loaded keeps it."""
    if target.is_file() and filecmp.cmp(built, target, shallow=False):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy2(built, temporary)
    temporary.replace(target)


def write(target: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(target)


def compiler() -> str:
    """Returns the first line the C++ compiler says about itself; CXX names another than c++."""
    program = os.environ.get("CXX") or "c++"
    found = shutil.which(program.split()[0])
    if found is None:
        raise discover.die(f"no C++ compiler: {program} is not on PATH; install g++ 11 or newer, or set CXX")
    output = subprocess.run([*program.split(), "--version"], capture_output=True, text=True, check=False).stdout
    return output.splitlines()[0] if output else program


def commit() -> str | None:
    """Returns the commit of the checkout, None outside of one."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


if sys.platform != "linux":
    raise discover.die(f"only Linux is supported, this is {sys.platform}")

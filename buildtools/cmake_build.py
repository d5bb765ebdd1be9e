"""The setuptools command that builds the native libraries with CMake and Ninja."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

import discover

ROOT = Path(__file__).resolve().parent.parent


class NativeLibraries(Extension):
    """Stands for everything CMake builds; setuptools itself compiles nothing."""

    def __init__(self) -> None:
        super().__init__("instructgpt_fast._native", sources=[])


class CMakeBuild(build_ext):
    """build_ext that runs CMake in a build folder which outlives the call."""

    def run(self) -> None:
        package = ROOT / "instructgpt_fast" if self.inplace else Path(self.build_lib).resolve() / "instructgpt_fast"
        self.build_native(package / "lib")

    def build_native(self, library_dir: Path) -> None:
        """Builds every library into library_dir."""
        cmake = discover.tool("cmake")
        ninja = discover.tool("ninja")
        definitions = {
            "CMAKE_MAKE_PROGRAM": ninja,
            "CMAKE_BUILD_TYPE": "Release",
            "IGF_TORCH_INCLUDE": str(discover.torch_include()),
            "IGF_LIBRARY_DIR": str(library_dir),
        }
        folder = self.cmake_folder(cmake, definitions)
        configure = [cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"]
        subprocess.run([*configure, *(f"-D{name}={value}" for name, value in definitions.items())], check=True)
        subprocess.run([cmake, "--build", str(folder), "--parallel", str(discover.jobs())], check=True)

    def cmake_folder(self, cmake: str, definitions: dict[str, str]) -> Path:
        """Returns the build folder, emptied when a tool, a compiler or a path differs from its last use."""
        folder = ROOT / "build" / f"cmake-{sysconfig.get_platform()}-{sysconfig.get_config_var('SOABI')}"
        compiler = {name: os.environ.get(name, "") for name in ("CXX", "CXXFLAGS", "LDFLAGS")}
        identity = json.dumps({"source": str(ROOT), "cmake": cmake, **definitions, **compiler}, sort_keys=True)
        stamp = folder / "identity.txt"
        digest = hashlib.sha256(identity.encode()).hexdigest()
        if folder.is_dir() and (not stamp.is_file() or stamp.read_text() != digest):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)
        return folder

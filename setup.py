"""Build entry: pyproject.toml describes the package, this file adds the native libraries."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "buildtools"))

from cmake_build import CMakeBuild, NativeLibraries

setup(ext_modules=[NativeLibraries()], cmdclass={"build_ext": CMakeBuild})

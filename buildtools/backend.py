"""The PEP 517 build backend: setuptools', asked to fetch only what the target environment does not have.

A build isolated by pip sees an empty environment and downloads everything anew, torch included; on a machine
without an index it cannot build at all. This backend looks into the environment that pip runs in, behind whatever
pip provides, and requires only what is missing there.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import site
import sys
import sysconfig
from pathlib import Path
from typing import Any

import discover

SETUPTOOLS = ("setuptools", (70, 1))
PYBIND11 = ("pybind11", (2, 13))
TORCH = ("torch", (2, 11))

Settings = dict[str, Any] | None


def target_folders() -> list[str]:
    """Returns the site-packages folders of the environment this Python belongs to, nearest first."""
    schemes = [{"base": sys.prefix, "platbase": sys.prefix}]
    virtual = os.environ.get("VIRTUAL_ENV")
    if virtual:
        schemes.append({"base": virtual, "platbase": virtual})
    schemes.append({"base": sys.base_prefix, "platbase": sys.base_prefix})
    folders = [sysconfig.get_path(kind, vars=scheme) for scheme in schemes for kind in ("purelib", "platlib")]
    if site.ENABLE_USER_SITE is not False:
        folders.append(site.getusersitepackages())
    return [folder for folder in dict.fromkeys(folders) if Path(folder).is_dir()]


def add_target_folders() -> None:
    """Puts the target environment behind what pip provides."""
    sys.path.extend(folder for folder in target_folders() if folder not in sys.path)


def has(name: str, at_least: tuple[int, ...]) -> bool:
    """Tells whether an installed distribution is new enough."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(number) for number in re.findall(r"\d+", version)[: len(at_least)]) >= at_least


def missing() -> list[str]:
    """Returns the requirements that neither the target environment nor PATH meets."""
    wanted = []
    for name, at_least in (SETUPTOOLS, PYBIND11):
        if not has(name, at_least):
            wanted.append(f"{name}>={'.'.join(map(str, at_least))}")
    cmake = discover.find_tool("cmake")
    if cmake is None or discover.cmake_version(cmake) < discover.CMAKE_AT_LEAST:
        wanted.append(f"cmake>={'.'.join(map(str, discover.CMAKE_AT_LEAST))}")
    if discover.find_tool("ninja") is None:
        wanted.append("ninja")
    if not os.environ.get("INSTRUCTGPT_FAST_TORCH_INCLUDE") and not has(*TORCH):
        # Only headers are used, any torch from 2.11 on gives the same libraries; unpinned, some indexes send gigabytes.
        wanted.append(os.environ.get("INSTRUCTGPT_FAST_BUILD_TORCH") or "torch>=2.11")
    return wanted


def setuptools_backend() -> Any:
    """Returns setuptools' backend; imported here, because pip may install setuptools after this module is loaded."""
    from setuptools import build_meta

    return build_meta


def clear_stale() -> None:
    """Removes copies of Python files from earlier builds, which would travel into the wheel though deleted since."""
    root = Path(__file__).resolve().parent.parent
    for folder in (root / "build").glob("lib*"):
        shutil.rmtree(folder)


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return missing()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return missing()


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    return [requirement for requirement in missing() if requirement.startswith("setuptools")]


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    return setuptools_backend().prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings = None) -> str:
    return setuptools_backend().prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    clear_stale()
    return setuptools_backend().build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    return setuptools_backend().build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    return setuptools_backend().build_sdist(sdist_directory, config_settings)


add_target_folders()

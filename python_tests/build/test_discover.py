"""Each automatic choice of the build, each switch, and the message of each refusal."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

import discover

SWITCHES = (
    "INSTRUCTGPT_FAST_CUDA", "FORCE_CUDA", "INSTRUCTGPT_FAST_CUDA_ARCHS", "TORCH_CUDA_ARCH_LIST", "CUDACXX",
    "CUDA_HOME", "CUDA_PATH", "MAX_JOBS", "INSTRUCTGPT_FAST_TORCH_INCLUDE",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No switch is set and PATH holds one empty folder, which is returned."""
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(discover, "USUAL_NVCC", tmp_path / "nowhere")
    return folder


def program(path: Path, output: str) -> Path:
    """A program that prints `output`; echo is the shell's own, so that it runs without PATH."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


NVCC = "Cuda compilation tools, release 13.0, V13.0.88"


def test_off_needs_nothing(monkeypatch: pytest.MonkeyPatch, bare: Path) -> None:
    program(bare / "nvcc", NVCC)
    monkeypatch.setenv("INSTRUCTGPT_FAST_CUDA", "off")
    assert discover.cuda() == discover.Cuda(False, "INSTRUCTGPT_FAST_CUDA=OFF")


def test_auto_without_nvcc_says_why() -> None:
    choice = discover.cuda()
    assert not choice.build
    assert all(word in choice.why for word in ("CUDACXX", "CUDA_HOME", "PATH", "AUTO"))


@pytest.mark.parametrize(("name", "value"), [("INSTRUCTGPT_FAST_CUDA", "ON"), ("FORCE_CUDA", "1")])
def test_forced_without_nvcc_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        discover.cuda()
    message = str(caught.value)
    assert all(word in message for word in ("PATH", "CUDACXX", "CUDA_HOME", "INSTRUCTGPT_FAST_CUDA=OFF")), message


def test_nvcc_on_path_is_used(bare: Path) -> None:
    nvcc = program(bare / "nvcc", NVCC)
    choice = discover.cuda()
    assert (choice.build, choice.nvcc, choice.version) == (True, str(nvcc), "13.0")
    assert choice.archs == discover.DEFAULT_ARCHS
    assert choice.why == "nvcc found by PATH"


def test_variables_come_before_path(monkeypatch: pytest.MonkeyPatch, bare: Path, tmp_path: Path) -> None:
    program(bare / "nvcc", NVCC)
    home = program(tmp_path / "home/bin/nvcc", NVCC)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert discover.find_nvcc() == (str(home), "CUDA_HOME")
    named = program(tmp_path / "named/nvcc-13", NVCC)
    monkeypatch.setenv("CUDACXX", str(named))
    assert discover.find_nvcc() == (str(named), "CUDACXX")


@pytest.mark.parametrize("name", ["CUDACXX", "CUDA_HOME"])
def test_a_variable_that_names_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/nowhere/at/all")
    with pytest.raises(SystemExit, match=name):
        discover.cuda()


def test_a_program_that_is_no_nvcc_is_refused(bare: Path) -> None:
    program(bare / "nvcc", "hello")
    with pytest.raises(SystemExit, match="does not answer --version"):
        discover.cuda()


def test_unknown_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTGPT_FAST_CUDA", "maybe")
    with pytest.raises(SystemExit, match="AUTO, ON or OFF"):
        discover.cuda()


@pytest.mark.parametrize(
    ("text", "archs"),
    [("90a", ("90a",)), ("8.0;9.0+PTX", ("80", "90a+PTX")), ("sm_100 12.0", ("100", "120")), ("90,80", ("90a", "80"))],
)
def test_archs_of_a_variable(monkeypatch: pytest.MonkeyPatch, text: str, archs: tuple[str, ...]) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", text)
    assert discover.cuda_archs() == (archs, "TORCH_CUDA_ARCH_LIST")
    monkeypatch.setenv("INSTRUCTGPT_FAST_CUDA_ARCHS", "80")
    assert discover.cuda_archs() == (("80",), "INSTRUCTGPT_FAST_CUDA_ARCHS")


def test_archs_of_this_machine(bare: Path) -> None:
    program(bare / "nvidia-smi", "9.0")
    assert discover.cuda_archs()[0] == ("90a",)


def test_a_wrong_arch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTGPT_FAST_CUDA_ARCHS", "hopper")
    with pytest.raises(SystemExit, match="'hopper' is no CUDA architecture"):
        discover.cuda_archs()


def test_torch_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    include = discover.torch_include()
    assert discover.torch_header_version(include).startswith("2.")
    monkeypatch.setenv("INSTRUCTGPT_FAST_TORCH_INCLUDE", str(tmp_path))
    with pytest.raises(SystemExit, match=r"torch>=2\.11"):
        discover.torch_include()
    monkeypatch.delenv("INSTRUCTGPT_FAST_TORCH_INCLUDE")
    monkeypatch.setattr(discover, "package_folder", lambda name: None)
    with pytest.raises(SystemExit, match="INSTRUCTGPT_FAST_TORCH_INCLUDE"):
        discover.torch_include()


def test_tools_that_are_missing_or_old(monkeypatch: pytest.MonkeyPatch, bare: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(discover, "package_folder", lambda name: None)
    monkeypatch.setattr(discover.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(SystemExit, match="pip install ninja"):
        discover.tool("ninja")
    program(bare / "cmake", "cmake version 3.20.1")
    with pytest.raises(SystemExit, match=r"older than 3\.25"):
        discover.tool("cmake")


def test_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "free_memory", lambda: 1_500_000_000)
    assert discover.jobs() == 1  # one compiler a gigabyte, whatever the cores
    monkeypatch.setenv("MAX_JOBS", "7")
    assert discover.jobs() == 7

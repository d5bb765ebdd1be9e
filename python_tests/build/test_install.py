"""Ways to install, from an sdist and without an index: isolated, editable; and a forced CUDA build without nvcc.

Not covered here: downloads into an empty environment, which test_fresh_environment.py does (`make slow`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from python_tests.build import ROOT

# No optimisation, one CPU level instead of three, no CUDA: a third of the compile time. Nothing may be downloaded.
QUICK = {
    "INSTRUCTGPT_FAST_CUDA": "OFF", "CXXFLAGS": "-DIGF_NO_CLONES -O0", "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1", "INSTRUCTGPT_FAST_SIMT": "",  # as when nobody chose; `make` chooses ON
}
# From a folder without the checkout: what is imported is what was installed.
PROGRAM = """
import json, torch, instructgpt_fast
from instructgpt_fast import _host, ops
from instructgpt_fast.doctor import build_info, doctor
y = ops.layer_norm(torch.tensor([[1.0, 3.0]]), torch.ones(2), torch.zeros(2))
wrong = [finding.part for finding in doctor() if finding.wrong]
cuda = build_info()["cuda"]["why"]
print(json.dumps({"from": instructgpt_fast.__file__, "y": y.tolist(), "wrong": wrong, "cuda": cuda}))
"""

needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this environment has no pip")


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] = QUICK) -> str:
    """Runs a command in an environment without this checkout on the path; its output stands in the failure."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**inherited, **env}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, built by the backend from a copy of what git would carry."""
    folder = tmp_path_factory.mktemp("sdist")
    checkout = folder / "checkout"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if names.returncode != 0:
        pytest.skip("not a git checkout: which files make the sdist is not known")
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_bytes((ROOT / name).read_bytes())
    # What a checkout that was built in place holds besides; none of it may travel.
    (checkout / "instructgpt_fast/lib").mkdir()
    for stray in ("lib/libigf_cpu.so", "_host.so", "_build_info.json"):
        (checkout / "instructgpt_fast" / stray).write_text("left over")
    program = "import sys; sys.path.insert(0, 'buildtools'); import backend; backend.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", program, folder, cwd=checkout)
    (made,) = folder.glob("*.tar.gz")
    return made


@pytest.fixture(scope="module")
def unpacked(sdist: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    return sdist.parent / sdist.name.removesuffix(".tar.gz")


def test_the_sdist_is_whole_and_clean(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {name for name in tracked.splitlines() if name.startswith(("csrc/", "buildtools/", "instructgpt_fast/"))}
    wanted |= {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE"}
    assert {"csrc/simt/CMakeLists.txt", "csrc/simt/launch.cpp", "csrc/microkernels/lanes_cuda.cu"} <= wanted
    assert not {name for name in wanted if (ROOT / name).is_file()} - names
    assert not {name for name in names if name.endswith((".so", ".pyc", "_build_info.json"))}


@needs_pip
def test_isolated_install_without_an_index(unpacked: Path, tmp_path: Path) -> None:
    """`pip install .` finds torch, pybind11, cmake and ninja in the environment it installs for.

    The emulator is for tests: it is not built, and one that a developer's build left in the source is not taken along.
    """
    left_behind = unpacked / "instructgpt_fast/lib/libigf_simt.so"
    left_behind.parent.mkdir(exist_ok=True)
    left_behind.touch()
    target = tmp_path / "target"
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, unpacked, cwd=tmp_path)
    output = run(sys.executable, "-c", PROGRAM, cwd=tmp_path, env={"PYTHONPATH": str(target)})
    report = json.loads(output.splitlines()[-1])
    assert report["from"].startswith(str(target))
    assert report["wrong"] == []
    assert report["cuda"] == "INSTRUCTGPT_FAST_CUDA=OFF"
    assert [path.name for path in (target / "instructgpt_fast/lib").iterdir()] == ["libigf_cpu.so"]
    assert report["y"] == [[pytest.approx(-1, abs=1e-5), pytest.approx(1, abs=1e-5)]]  # off by eps / 2
    for assets in ("quickstart/assets", "serve/assets", "label/assets", "evaluate/templates"):
        in_checkout = {path.name for path in (ROOT / "instructgpt_fast" / assets).iterdir()}
        assert {path.name for path in (target / "instructgpt_fast" / assets).iterdir()} == in_checkout


@needs_pip
def test_editable_install(unpacked: Path, tmp_path: Path) -> None:
    """`pip install -e . --no-build-isolation` imports from the source folder, and leaves no second copy."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin/python"
    # The new environment sees this one's packages, torch among them, as one with its own copies would.
    scheme = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", vars=scheme))
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation"]
    run(*pip, "--editable", unpacked, cwd=tmp_path)
    report = json.loads(run(python, "-c", PROGRAM, cwd=tmp_path, env={}).splitlines()[-1])
    assert report["from"] == str(unpacked / "instructgpt_fast/__init__.py")
    assert report["wrong"] == []
    assert not list(packages.glob("instructgpt_fast"))
    assert (environment / "bin/instructgpt-fast").is_file()


def test_forced_cuda_without_nvcc(unpacked: Path, tmp_path: Path) -> None:
    """The message reaches the user through setup.py, and nothing was built before it."""
    hide = "import discover, runpy, sys; discover.USUAL_NVCC = discover.Path('/nowhere'); sys.argv = ['setup.py', {}]; "
    program = "import sys; sys.path.insert(0, 'buildtools'); " + hide.format("'build_ext', '--inplace'")
    program += "runpy.run_path('setup.py', run_name='__main__')"
    (tmp_path / "bin").mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA", "PYTHONPATH"))}
    env |= {"PATH": str(tmp_path / "bin"), "INSTRUCTGPT_FAST_CUDA": "ON"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=unpacked, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    for word in ("PATH", "CUDACXX", "CUDA_HOME", "INSTRUCTGPT_FAST_CUDA=OFF"):
        assert word in result.stderr, result.stderr

"""Damage of every kind is found before anything is used, and what was good before stays good."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch

from instructgpt_fast.checkpoint import checkpoints_of, keep_last, load_model, load_trainer, resolve
from instructgpt_fast.checkpoint.manifest import write_manifest
from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.tokenizer import Tokenizer

from .small_run import SmallRun

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SmallRun(0).save(tmp_path_factory.mktemp("run") / "checkpoint-000001")


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint-000001"))


FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "manifest.json", "trainer/state.json",
    "trainer/value.safetensors", "trainer/optimizer-policy.safetensors",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "emptied", "one bit changed", "removed"])
def test_every_damaged_file_is_named(copied: Path, name: str, damage: str) -> None:
    path = copied / name
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) * 9 // 10])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "removed":
        path.unlink()
    else:
        # In the manifest a bit of the first digest; elsewhere one in the middle.
        place = content.index(b'"sha256": "') + 12 if name == "manifest.json" else len(content) // 2
        content[place] ^= 1
        path.write_bytes(content)
    for load in (resolve, load_model, lambda p: load_trainer(p, {}, {})):
        with pytest.raises(CheckpointError) as raised:
            load(copied)
        # A changed digest accuses the file that it belongs to.
        assert ("config.json" if name == "manifest.json" and "bit" in damage else name) in str(raised.value)
        assert "use another checkpoint" in str(raised.value)


def rewrite(directory: Path) -> None:
    """Make the manifest agree with changed files, as a tool that edits checkpoints would."""
    (directory / "manifest.json").unlink()
    write_manifest(directory)


def test_missing_tensor(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copied / "model.safetensors")
    tensors["h.0.extra"] = tensors.pop("h.0.ln_1.weight")
    save_file(tensors, copied / "model.safetensors")
    rewrite(copied)
    with pytest.raises(CheckpointError, match=r"1 missing \['h\.0\.ln_1\.weight'\] and 1 unexpected \['h\.0\.extra'\]"):
        load_model(copied)


def test_wrong_shape(copied: Path) -> None:
    described = json.loads((copied / "config.json").read_text())
    described["model"]["n_positions"] = 12
    (copied / "config.json").write_text(json.dumps(described))
    rewrite(copied)
    with pytest.raises(CheckpointError, match=r"wpe\.weight.*\(12, 8\), got torch.float32 \(16, 8\)"):
        load_model(copied)


def test_wrong_vocabulary(copied: Path) -> None:
    Tokenizer.train(["another text with other words"] * 3, 275).save(copied)
    rewrite(copied)
    with pytest.raises(CheckpointError, match="vocabulary of model and tokenizer"):
        load_model(copied)


@pytest.mark.parametrize("content", ["{}", '{"kind": "gpt"}', "[]", '{"kind": "other", "model": {}}'])
def test_a_config_that_describes_no_model(copied: Path, content: str) -> None:
    (copied / "config.json").write_text(content)
    rewrite(copied)
    with pytest.raises(CheckpointError, match="must describe a model"):
        load_model(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": "other"}, "must be a checkpoint's manifest"), ({"version": 99}, "must be of version 1, got 99")],
)
def test_foreign_manifest(copied: Path, change: dict, message: str) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_model(copied)


def test_paths_that_are_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in ((tmp_path, "got none"), (tmp_path / "no", "got nothing"), (tmp_path / "file", "got a file")):
        with pytest.raises(CheckpointError, match=message):
            resolve(path)


def run_of(saved: Path, directory: Path, steps: tuple[int, ...], broken: tuple[int, ...] = ()) -> Path:
    for step in steps:
        path = Path(shutil.copytree(saved, directory / f"checkpoint-{step}"))
        if step in broken:
            (path / "model.safetensors").write_bytes(b"damaged")
    return directory


def test_the_newest_is_found_by_number(saved: Path, tmp_path: Path) -> None:
    run = run_of(saved, tmp_path, (9, 10, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve(run).name == "checkpoint-10"
    assert [path.name for path in checkpoints_of(run)] == ["checkpoint-10", "checkpoint-9", "checkpoint-2"]


def test_a_damaged_newest_is_passed_over_out_loud(saved: Path, tmp_path: Path) -> None:
    run = run_of(saved, tmp_path, (1, 2, 3, 4), broken=(3, 4))
    with pytest.warns(UserWarning, match=r"using .*checkpoint-2.*newer ones are damaged.*checkpoint-4.*checkpoint-3"):
        assert resolve(run).name == "checkpoint-2"
    with pytest.raises(CheckpointError, match="must have"):
        resolve(run / "checkpoint-4")


def test_a_run_with_nothing_whole(saved: Path, tmp_path: Path) -> None:
    run = run_of(saved, tmp_path, (1, 2), broken=(1, 2))
    with pytest.raises(CheckpointError, match=r"got none: .*checkpoint-2.*checkpoint-1"):
        resolve(run)


def test_keep_last(saved: Path, tmp_path: Path) -> None:
    run = run_of(saved, tmp_path, (1, 2, 3, 4, 5), broken=(4, 5))
    assert [path.name for path in keep_last(run, 2)] == ["checkpoint-2", "checkpoint-1"]
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-3", "checkpoint-4", "checkpoint-5"]
    assert keep_last(run, 9) == []
    with pytest.raises(CheckpointError, match="at least one"):
        keep_last(run, 0)


def test_what_a_killed_process_left_is_swept_and_a_living_one_is_spared(saved: Path, tmp_path: Path) -> None:
    run = run_of(saved, tmp_path, (1, 2))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = run / f".checkpoint-3.tmp-{dead.pid}"
    busy = run / f".checkpoint-3.tmp-{os.getpid()}"
    for folder in (left, busy):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    assert keep_last(run, 2) == []
    assert not left.exists()
    assert busy.exists()


def test_unwritable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="a file stands where a directory is needed"):
        SmallRun(0).save(tmp_path / "file" / "checkpoint-1")


def in_another_process(code: str, *arguments: object) -> str:
    """Run code that may be killed, and return what it printed. It forks, so torch is imported once."""
    script = "import os, resource, signal, sys\nfrom pathlib import Path\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kill_9_at_every_point_of_a_save(tmp_path: Path) -> None:
    """Each forked child is killed at its k-th step on the file system, for k = 1, 2, ... until a save gets through.

    The checkpoint being saved exists already (a resumed run writes the same step again), so the moment between
    moving the old one away and the new one into its place is among the points.
    """
    out = in_another_process(
        """
        from python_tests.checkpoint.small_run import SmallRun
        from instructgpt_fast.checkpoint import load_model, resolve
        run, directory = SmallRun(0), Path(sys.argv[1])
        run.save(directory / "checkpoint-1")
        run.save(directory / "checkpoint-2")
        old = run.policy.wte.weight[0, 0].item()
        run.policy.wte.weight.data.add_(1.0)

        def killed_at(point):
            calls = 0
            def counted(function):
                def call(*args, **kwargs):
                    nonlocal calls
                    calls += 1
                    if calls == point:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*args, **kwargs)
                return call
            for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
                setattr(os, name, counted(getattr(os, name)))
            run.save(directory / "checkpoint-2")

        points, states = 0, []
        while True:
            points += 1
            child = os.fork()
            if child == 0:
                killed_at(points)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            found = resolve(directory)
            weight = load_model(found).model.wte.weight[0, 0].item()
            assert found.name in ("checkpoint-2", ".checkpoint-2.old"), found
            states.append("old" if weight == old else "new")
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
        assert sorted(p.name for p in directory.iterdir()) == ["checkpoint-1", "checkpoint-2"]
        print(points, "".join(state[0] for state in states))
        """,
        tmp_path,
    )
    points, states = out.split()
    # About ten files and their directories are synced, then two renames: a save has at least 15 such points.
    assert int(points) > 15
    assert "o" in states
    assert states.rstrip("n").strip("o") == "", f"once the new checkpoint is in place it stays: {states}"
    assert states.endswith("n")


def test_kill_9_at_any_time(tmp_path: Path) -> None:
    """The same without choosing the point: children that save on and on are killed after a random while."""
    in_another_process(
        """
        import random, time
        from python_tests.checkpoint.small_run import SmallRun
        from instructgpt_fast.checkpoint import load_trainer, resolve
        run, directory = SmallRun(0), Path(sys.argv[1])
        run.save(directory / "checkpoint-0")
        random.seed(0)
        for attempt in range(12):
            child = os.fork()
            if child == 0:
                for step in range(100000):
                    run.counters["step"] = step
                    run.save(directory / f"checkpoint-{step}")
            time.sleep(random.uniform(0.0, 0.15))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            counters = load_trainer(resolve(directory), run.modules, run.optimizers)
            assert resolve(directory).name.removesuffix(".old").endswith(f"checkpoint-{counters['step']}")
        """,
        tmp_path,
    )


def test_full_disk(tmp_path: Path) -> None:
    """A limit on the size of a file fails a write in its middle, as a full disk does."""
    out = in_another_process(
        """
        from python_tests.checkpoint.small_run import SmallRun
        from instructgpt_fast.checkpoint import resolve
        from instructgpt_fast.errors import CheckpointError
        run, directory = SmallRun(0), Path(sys.argv[1])
        first = run.save(directory / "checkpoint-1")
        largest = max(path.stat().st_size for path in first.rglob("*") if path.is_file())
        # From nothing at all to just one byte too little: each file of a checkpoint is once the one that fails.
        for limit in [0, 100, 1000, 3000, largest // 2, largest - 1]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                run.save(directory / "checkpoint-2")
            except CheckpointError as error:
                print(error)
            else:
                raise SystemExit(f"no error at a limit of {limit} bytes")
            assert [path.name for path in directory.iterdir()] == ["checkpoint-1"], list(directory.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert resolve(directory) == first
        assert resolve(run.save(directory / "checkpoint-2")).name == "checkpoint-2"
        """,
        tmp_path,
    )
    assert out.count("File too large") == 6, out


def test_a_full_disk_is_said_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own words for a full disk become ours."""
    from safetensors import SafetensorError

    from instructgpt_fast.checkpoint import tensors

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    run = SmallRun(0)
    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(CheckpointError, match=r"checkpoint-1.*No space left on device: the disk is full; free some"):
        run.save(tmp_path / "checkpoint-1")
    assert list(tmp_path.iterdir()) == []
    assert isinstance(run.policy.lm_weight, torch.Tensor)

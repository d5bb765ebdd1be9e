"""A run that is killed at any of its writes goes on and ends with the bytes of a run that was not."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.data.hygiene import folder as run_folder
from instructgpt_fast.data.hygiene import plan, prepare
from instructgpt_fast.data.hygiene import run as pipeline
from instructgpt_fast.errors import ConfigError, DataError, InstructGPTError

from .files import outputs, write_jsonl

WORDS = ["sea", "sky", "sun", "moon", "star", "cloud", "rain", "wind", "storm", "harbour", "ship", "sail"]


def records(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Prompts with duplicates of every sort, users, private data and evaluation text."""
    draw = random.Random(seed)
    found: list[dict[str, Any]] = []
    for number in range(count):
        prompt = " ".join(draw.choice(WORDS) for _ in range(draw.randrange(4, 40)))
        if found and number % 4 == 1:
            prompt = draw.choice(found)["prompt"] + draw.choice(["", " ", " ship", " of the sea"])
        if number % 9 == 2:
            prompt += f" write to name{number}@gmail.com"
        found.append({"prompt": prompt, "user": f"user {draw.randrange(12)}"})
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("resume")
    write_jsonl(folder / "eval.jsonl", records(120)[::20])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CHUNK_BYTES", 4000)
        yield write_jsonl(folder / "in.jsonl", records(120))


def run(source: Path, out: Path, **options: Any) -> Any:
    return prepare(data=source, output_dir=out, contamination=source.with_name("eval.jsonl"), max_per_user=8,
                   progress=False, **options)


def killed_at(write: int, source: Path, out: Path, *, before: bool) -> bool:
    """Run in a process that kills itself at its n-th file, before or after its renaming; whether it came so far."""
    process = os.fork()
    if process == 0:
        rename = os.replace
        count = 0

        def replace(one: Any, other: Any) -> None:
            nonlocal count
            count += 1
            if count == write and before:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(one, other)
            if count == write:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace
        try:
            run(source, out)
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def test_killed_at_every_write(source: Path, tmp_path: Path) -> None:
    """One folder is killed again and again, four times at each write that is new to it; others once."""
    expected = outputs(run(source, tmp_path / "whole").output_dir)
    again = tmp_path / "again"
    kills = 0
    while killed_at(1 + kills // 4, source, again, before=kills % 2 == 0):
        kills += 1
        if kills == 3:
            with pytest.raises(ConfigError, match="unfinished run with other options"):
                run(source, again, seed=5)
    assert kills >= 16, "at the first four writes"
    assert outputs(again) == expected
    writes = 0
    for write in (2, 6, 9, 12, 15, 18, 21):
        out = tmp_path / f"once-{write}"
        writes += killed_at(write, source, out, before=False)
        resumed = run(source, out)
        assert outputs(resumed.output_dir) == expected
        assert sorted(path.name for path in out.iterdir()) == sorted(expected), "nothing is left behind"
    assert writes >= 6


def test_a_run_is_begun_again_on_request(source: Path, tmp_path: Path) -> None:
    assert killed_at(6, source, tmp_path / "out", before=True)
    other = run(source, tmp_path / "out", seed=5, resume=False)
    assert outputs(other.output_dir) == outputs(run(source, tmp_path / "whole", seed=5).output_dir)
    assert not other.content["timing"]["resumed"]


def test_input_that_changed_is_another_run(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "in.jsonl"
    copy.write_bytes(source.read_bytes())
    (tmp_path / "eval.jsonl").write_bytes(source.with_name("eval.jsonl").read_bytes())
    assert killed_at(6, copy, tmp_path / "out", before=True)
    copy.write_bytes(source.read_bytes() + b'{"prompt": "more"}\n')
    with pytest.raises(ConfigError, match="unfinished run with other options or other input"):
        run(copy, tmp_path / "out")


@pytest.mark.parametrize("part, change, message", [
    ("first pass", lambda path: os.truncate(path, 0), "must not change while it is read, got a shorter one"),
    ("user_limit", lambda path: os.truncate(path, 9000), "must not change while it is read, got a shorter one"),
    ("user_limit", lambda path: path.write_bytes(path.read_bytes() * 3), "must not change .*, got it written to"),
    ("user_limit", os.unlink, "cannot read the file"),
])
def test_input_that_changes_during_the_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, change: Any, message: str
) -> None:
    copy = tmp_path / "in.jsonl"
    copy.write_bytes(source.read_bytes())
    (tmp_path / "eval.jsonl").write_bytes(source.with_name("eval.jsonl").read_bytes())
    timed = pipeline._Run._timed

    def changing(self: Any, name: str, work: Any) -> Any:
        if name == part:
            change(copy)
        return timed(self, name, work)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline._Run, "_timed", changing)
        with pytest.raises(DataError, match=rf"in.jsonl: .*{message}"):
            run(copy, tmp_path / "out")
    assert not (tmp_path / "out" / "train.jsonl").exists()
    copy.write_bytes(source.read_bytes())
    assert run(copy, tmp_path / "out").records == 120, "what was made of other bytes is not gone on with"


def test_one_process_works_in_a_folder(source: Path, tmp_path: Path) -> None:
    with run_folder.RunFolder(str(tmp_path / "out"), "one", resume=True), \
            pytest.raises(ConfigError, match="another process is at work"):
        run_folder.RunFolder(str(tmp_path / "out"), "one", resume=True)
    with run_folder.RunFolder(str(tmp_path / "out"), "one", resume=True):
        pass


def test_an_error_leaves_what_was_done(source: Path, tmp_path: Path) -> None:
    """A wrong line stops the run; with the line mended the input is another, and the folder says so."""
    bad = tmp_path / "in.jsonl"
    bad.write_bytes(source.read_bytes() + b"bad\n")
    (tmp_path / "eval.jsonl").write_bytes(source.with_name("eval.jsonl").read_bytes())
    with pytest.raises(DataError, match=r"in.jsonl:121: "):
        run(bad, tmp_path / "out")
    bad.write_bytes(source.read_bytes())
    with pytest.raises(ConfigError, match="resume=False"):
        run(bad, tmp_path / "out")
    assert run(bad, tmp_path / "out", resume=False).records == 120


def test_several_processes_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    """Errors too come in the order of the input, and a worker that dies is told."""
    expected = outputs(run(source, tmp_path / "one").output_dir)
    assert outputs(run(source, tmp_path / "two", processes=2).output_dir) == expected


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    from instructgpt_fast.data.hygiene.workers import Workers

    with Workers(1) as here:
        assert list(here.map(abs, [-1, 2, -3])) == [1, 2, 3]
    with Workers(2) as workers:
        assert list(workers.map(os.path.basename, [f"a/{n}" for n in range(7)])) == [str(n) for n in range(7)]
        with pytest.raises(FileNotFoundError):
            list(workers.map(os.listdir, [str(tmp_path), str(tmp_path / "none"), str(tmp_path)]))
    with Workers(2) as workers, pytest.raises(InstructGPTError, match="ended with status 3"):
        list(workers.map(os._exit, [3, 3]))


SCRIPT = """
import sys
from instructgpt_fast.data.hygiene import plan, prepare
from instructgpt_fast.data.hygiene import run as pipeline
source, out, evaluation = sys.argv[1:]
prepare(data=source, output_dir=out, contamination=evaluation, max_per_user=8, progress=False, processes=2)
"""


def at_work(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The workers of a run, as soon as there are any; none of one that has ended before."""
    while process.poll() is None:
        found = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        if len(found) >= 2:
            return found
        time.sleep(0.01)
    return []


@pytest.mark.slow
def test_killed_from_outside_with_its_workers_at_work(tmp_path: Path) -> None:
    """SIGKILL at arbitrary moments; the workers end by themselves, and the bytes are those of one process."""
    source = write_jsonl(tmp_path / "in.jsonl", records(12_000))
    write_jsonl(tmp_path / "eval.jsonl", records(200)[::20])
    expected = outputs(run(source, tmp_path / "whole").output_dir)
    command = [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "out"), str(tmp_path / "eval.jsonl")]
    draw = random.Random(3)
    for kills in itertools.count():  # later each time, so that one of them comes to the end
        with subprocess.Popen(command) as process:
            workers = workers_of(process)
            try:
                process.wait(timeout=(0.5 + draw.random()) * kills)
            except subprocess.TimeoutExpired:
                process.kill()
                deadline = time.monotonic() + 60
                while any(map(at_work, workers)):
                    assert time.monotonic() < deadline, "workers outlive the run"
                    time.sleep(0.1)
                continue
        assert process.returncode == 0
        break
    assert kills >= 1
    assert outputs(tmp_path / "out") == expected
    assert json.loads((tmp_path / "out" / "report.json").read_text())["timing"]["resumed"]

"""Programs that a model wrote: pass@k by hand, programs that mean harm, and tasks that run only when they may."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import instructgpt_fast as igf
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate import code_sandbox, code_task
from instructgpt_fast.evaluate.code_sandbox import CodeLimits, CodeProblem, Verdict, missing_isolation, run_programs
from instructgpt_fast.evaluate.code_task import program_of
from instructgpt_fast.evaluate.pass_at_k import pass_at_k
from instructgpt_fast.generate import Completion

from ..train.material import Material, write_jsonl

RIGHT = "def f(x):\n    return x + 1\n"
CHECK = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(-1) == 0\n"
SHORT = CodeLimits(seconds=1.5, memory_mb=256)
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
""" + RIGHT


def problem(program: str, tests: str = CHECK, entry_point: str = "f") -> CodeProblem:
    return CodeProblem(program, tests, entry_point)


def jails(path: Path) -> list[str]:
    """Processes of a jail that are still there; those it forked keep its command line."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and str(path).encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def test_pass_at_k_is_the_share_of_draws_with_a_pass() -> None:
    for n, c in itertools.product(range(1, 7), range(7)):
        if c > n:
            continue
        for k in range(1, n + 1):
            draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert pass_at_k(200, 1, 100) == pytest.approx(0.5)
    assert pass_at_k(10**6, 3, 1000) == pytest.approx(1 - math.comb(10**6 - 3, 1000) / math.comb(10**6, 1000))
    for n, c, k in ((1, 0, 2), (1, 0, 0), (2, 3, 1), (2, -1, 1)):
        with pytest.raises(ConfigError, match=r"k must lie in 1\.\.samples and correct in 0\.\.samples"):
            pass_at_k(n, c, k)


def test_right_and_wrong_programs() -> None:
    programs = {
        RIGHT: "passed",
        "def f(x):\n    return x\n": "AssertionError",
        "def f(x)\n": "SyntaxError",
        "def g(x):\n    return x + 1\n": "KeyError: 'f'",
        "def f(x):\n    return f(x)\n": "RecursionError",
        "import numpy\n" + RIGHT: "ModuleNotFoundError",
        "import dataclasses, decimal, socket, typing\nopen('a', 'w').write('b')\n" + RIGHT: "passed",
        "'''\ud800'''\n" + RIGHT: "UnicodeEncodeError",
        "raise ValueError('\U0001f600' * 9999)": "ValueError: \U0001f600",
    }
    verdicts = run_programs([problem(program) for program in programs])
    for verdict, expected in zip(verdicts, programs.values(), strict=True):
        assert verdict.passed == (expected == "passed"), verdict
        assert verdict.passed or verdict.detail.startswith(expected), verdict
    assert run_programs([problem(RIGHT, "assert f(2) == 3", "")]) == [Verdict("passed")]
    assert not run_programs([problem(RIGHT, "assert f(2) == 4", "")])[0].passed
    replaced = "import builtins\nbuiltins.abs = lambda x: 2\ndef f(x):\n    return 0"
    verdict, = run_programs([problem(replaced, "assert abs(f(1)) == 2", "")])
    assert verdict.detail.startswith("AssertionError")  # the tests mean Python's own abs


LEAVING = {
    "leaves before the tests": "import sys\nsys.exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "leaves inside the tests": "import sys\ndef f(x):\n    sys.exit(0)",
    "ends at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n    return 0",
    "replaces what ends": "import os, sys\nos._exit = sys.exit = exit = lambda *a: None\ndef f(x):\n    return 0",
    "replaces the error": "import builtins\nbuiltins.AssertionError = AssertionError = int\ndef f(x):\n    return 0",
    "replaces the run": "import builtins\nbuiltins.exec = builtins.compile = print\ndef f(x):\n    return 0",
    "empties the builtins": "import builtins\nvars(builtins).clear()\ndef f(x):\n    return 0",
    "replaces the tests": "def check(f):\n    pass\ndef f(x):\n    return 0",
    "says so itself": "import os\nfor fd in range(64):\n  try: os.write(fd, b'[true, \"\"]\\n')\n"
                      "  except OSError: pass\ndef f(x):\n    return 0",
    "kills its group": "import os\nos.kill(0, 9)",
    "crashes": "import os\nos.abort()",
    "reads input": "input()",
    "takes memory": "x = bytearray(1 << 40)",
    "fills the disk": "with open('a', 'wb') as file:\n    while True:\n        file.write(bytes(1 << 20))",
    "fills the disk with many": "for i in range(1 << 20):\n    open(str(i), 'wb').write(bytes(1 << 20))",
    "opens files without end": "files = [open('/dev/null') for _ in range(4096)]",
}
ENDLESS = {
    "does not end": "while True:\n    pass",
    "waits": "import time\nwhile True:\n    time.sleep(1)",
    "ignores signals": "import signal\nfor s in range(1, 64):\n  try: signal.signal(s, signal.SIG_IGN)\n"
                       "  except (OSError, ValueError): pass\nwhile True: pass",
    "speaks without end": "while True:\n    print('x' * (1 << 20))",
    "bears without end": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
}


def test_no_way_out_of_the_tests_is_a_pass() -> None:
    verdicts = run_programs([problem(program) for program in LEAVING.values()], CodeLimits(seconds=5, memory_mb=256))
    for name, verdict in zip(LEAVING, verdicts, strict=True):
        assert verdict.outcome == "failed" and verdict.detail, (name, verdict)
    assert jails(code_sandbox._JAIL) == []


def test_what_does_not_end_is_ended() -> None:
    begun = time.monotonic()
    verdicts = run_programs([problem(program) for program in ENDLESS.values()], SHORT, workers=len(ENDLESS))
    for name, verdict in zip(ENDLESS, verdicts, strict=True):
        assert verdict.outcome == "timed_out", (name, verdict)
    assert time.monotonic() - begun < 60  # a bound for a machine under load, not a measurement
    assert jails(code_sandbox._JAIL) == []


def test_nothing_of_ours_is_seen_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing_isolation():
        pytest.skip(f"the kernel here does not cut off: {missing_isolation()}")
    monkeypatch.setenv("A_SECRET", "of ours")
    mine = str(os.getpid())
    programs = [
        "import os\nassert not os.environ\n" + RIGHT,
        f"import os\nassert not os.path.exists('/proc/{mine}') and os.getppid() == 1\n" + RIGHT,
        f"import os\nassert os.getuid() != 0\nfor pid in (os.getppid(), {mine}, -1):\n"
        "  try: os.kill(pid, 9)\n  except OSError: pass\n" + RIGHT,
        "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9), 1)\nexcept ConnectionRefusedError:\n"
        "    raise SystemExit from None\nexcept OSError:\n    pass\n" + RIGHT,
        "import os\nfound = []\nfor fd in range(256):\n  try: os.fstat(fd); found.append(fd)\n  except OSError: pass\n"
        "assert found == [0, 1, 2, 3] and os.listdir('.') == []\n" + RIGHT,
        "import os, time\nn = 0\ntry:\n  while n < 1000:\n    if os.fork() == 0: time.sleep(60)\n    n += 1\n"
        "except BlockingIOError: pass\nassert 0 < n < 16\n" + RIGHT,
        "import threading\nthread = threading.Thread(target=print)\nthread.start()\nthread.join()\n" + RIGHT,
        DAEMON,
    ]
    verdicts = run_programs([problem(each) for each in programs])
    assert [verdict.outcome for verdict in verdicts] == ["passed"] * len(programs), verdicts
    outside = [tmp_path / "file", Path.home() / "igf_escaped", Path("/tmp/igf_escaped"), Path("/dev/shm/igf_escaped")]
    wrote = "\n".join(f"try: open({str(path)!r}, 'w')\nexcept OSError: n += 1" for path in outside)
    assert run_programs([problem(f"n = 0\n{wrote}\nassert n == {len(outside)}\n{RIGHT}")])[0].passed
    assert not any(path.exists() for path in outside)
    assert jails(code_sandbox._JAIL) == []


def test_where_the_kernel_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits, time and the killing of what was left hold without namespaces, and what is missing is said."""
    driver = tmp_path / "jail_without_namespaces.py"
    driver.write_text(
        f"import importlib.util\nspec = importlib.util.spec_from_file_location('jail', {str(code_sandbox._JAIL)!r})\n"
        "jail = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(jail)\n"
        "jail._isolate = lambda folder, size: ['network (refused)']\njail.main()\n"
    )
    monkeypatch.setattr(code_sandbox, "_JAIL", driver)
    hostile = [LEAVING["leaves at once"], LEAVING["kills its group"], ENDLESS["does not end"], DAEMON]
    found = [code_sandbox._run(problem(each), SHORT) for each in [RIGHT, *hostile]]
    # Whether the last may start a process depends on how many its user has.
    assert [verdict.outcome for verdict, _ in found[:-1]] == ["passed", "failed", "failed", "timed_out"]
    assert all(missing == ["network (refused)"] for _, missing in found)
    assert jails(driver) == []


@pytest.mark.slow
def test_programs_end_with_who_ran_them(tmp_path: Path) -> None:
    """Killed without a word, as by the kernel when memory runs out: nothing that was running goes on."""
    program = (
        "from instructgpt_fast.evaluate.code_sandbox import CodeLimits, CodeProblem, run_programs\n"
        "run_programs([CodeProblem('while True: pass', '')] * 3, CodeLimits(seconds=300), workers=3)\n"
    )
    root = Path(igf.__file__).parents[1]
    caller = subprocess.Popen([sys.executable, "-c", program], cwd=root, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        wait_until(lambda: len(jails(code_sandbox._JAIL)) == 9)  # three of each: supervisor, init, candidate
    finally:
        caller.kill()
        caller.wait()
    wait_until(lambda: jails(code_sandbox._JAIL) == [])


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    made = Material(tmp_path_factory.mktemp("material"))
    made.save("dialogue", made.gpt())
    return made


def task(folder: Path, rows: list[dict[str, Any]], **keys: object) -> str:
    write_jsonl(folder / "problems.jsonl", rows)
    lines = ['kind = "code"', 'data = "problems.jsonl"', *(f"{key} = {json.dumps(v)}" for key, v in keys.items())]
    path = folder / "programs.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


ROWS = [
    {"prompt": "The cat", "start": RIGHT, "test": CHECK, "entry_point": "f"},
    {"prompt": "The dog", "start": "def f(x):\n    return 0\n", "test": CHECK, "entry_point": "f"},
]


def test_a_task_from_prompt_to_interval(material: Material, tmp_path: Path) -> None:
    """What a random model writes stands in a comment, so that the outcome is known."""
    path = task(tmp_path, ROWS, before="{start}#", n=2, k=[1, 2], temperature=1.0, max_new_tokens=1, stop=["\n"])
    records = tmp_path / "records.jsonl"
    result = igf.evaluate(
        str(material.folder / "dialogue"), tasks=[path], records=str(records), allow_code_execution=True
    )
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert all(len(line["answers"]) == 2 for line in lines) and lines[1]["outcomes"] == ["failed"] * 2
    assert set(result.metrics) == {"programs/pass@1", "programs/pass@2", "programs/timed_out"}
    assert all(row.interval is not None and row.count == 2 for row in result.rows)
    assert result.about["programs"]["not_cut_off_from"] == list(missing_isolation())


def test_pass_at_k_of_drawn_programs(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = {"The cat": ["return x + 1", "return x", "return x + 1", "max(iter(int, 1))"], "The dog": ["return 0"] * 4}

    def drawn(loaded: Any, prompts: list[str], *, n: int, **_: Any) -> list[list[Completion]]:
        texts = [[f"So:\n```python\ndef f(x): {body}\n```\nDone." for body in bodies[each]] for each in prompts]
        assert n == len(texts[0])
        return [[Completion([1], [0.0], "eos", text) for text in several] for several in texts]

    monkeypatch.setattr(code_task, "complete", drawn)
    path = task(tmp_path, ROWS, before="", n=4, k=[1, 2, 4], temperature=0.8, seconds=1.0)
    metrics = igf.evaluate(str(material.folder / "dialogue"), tasks=[path], allow_code_execution=True).metrics
    wanted = {"pass@1": 0.25, "pass@2": (1 - 1 / 6) / 2, "pass@4": 0.5, "timed_out": 0.125}
    assert metrics == pytest.approx({f"programs/{name}": value for name, value in wanted.items()})


def test_what_an_answer_is() -> None:
    assert program_of("def f(x):\n", "    return x\n", "raw") == "def f(x):\n    return x\n"
    assert program_of("a", "```\nb\n```", "raw") == "a```\nb\n```"
    assert program_of("a", "Sure:\n```python\nb\nc\n```\nor\n```\nd\n```", "dialogue") == "a\nb\nc\n"
    assert program_of("a", "```py\nb", "dialogue") == "a\nb"
    assert program_of("a", "b", "dialogue") == "a\nb"


def test_nothing_runs_unasked(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_task, "run_programs", lambda *_: pytest.fail("it ran"))
    model = str(material.folder / "dialogue")
    with pytest.raises(ConfigError, match="needs allow_code_execution=True, got False; pass --allow-code-execution"):
        igf.evaluate(model, tasks=[task(tmp_path, ROWS)])
    with pytest.raises(ConfigError, match="unknown key 'allow_code_execution'"):
        igf.evaluate(model, tasks=[task(tmp_path, ROWS, allow_code_execution=True)])


@pytest.mark.parametrize(("keys", "words"), [
    ({"n": 2}, "n programs of a problem are all the same at temperature 0"), ({"n": 0}, "n must be at least 1"),
    ({"k": [2]}, r"k must name one or more numbers in 1\.\.n"), ({"k": []}, "k must name"), ({"seconds": 0}, "seconds"),
    ({"memory_mb": 1}, "memory_mb must be at least 64"), ({"top_p": 0.0}, "top_p must be in"),
])
def test_tasks_that_cannot_be(material: Material, tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        igf.evaluate(str(material.folder / "dialogue"), tasks=[task(tmp_path, ROWS, **keys)], allow_code_execution=True)


def test_a_sandbox_that_does_not_work_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.py"
    for program in ("print('{')", 'print(\'{"outcome": "passed", "detail": "", "missing": []}\')'):
        broken.write_text(program)
        monkeypatch.setattr(code_sandbox, "_JAIL", broken)
        missing_isolation.cache_clear()
        with pytest.raises(ConfigError, match="the sandbox must pass a right program and fail a wrong one"):
            run_programs([problem(RIGHT)])
    monkeypatch.undo()
    missing_isolation.cache_clear()
    assert run_programs([problem(RIGHT)])[0].passed

"""Work on several processes, results in order, nothing left behind when the caller is killed.

The processes are fresh interpreters that read tasks from a pipe: a caller needs no `if __name__ == "__main__"`, threads
of the caller do not matter, and a pipe that closes ends them. Each holds one task at a time.
Not covered: results must fit in memory; tasks that write files write them whole or not at all.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, TypeVar

from instructgpt_fast.errors import InstructGPTError

T = TypeVar("T")
R = TypeVar("R")

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Workers:
    """Some processes for `map`; with one, the work is done here."""

    def __init__(self, processes: int) -> None:
        """Start nothing yet."""
        self.processes = processes
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            with contextlib.suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._running.clear()

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Yield function(task) for each task, in their order; an error of a task is raised when its turn comes.

        function: of a module, so that another process finds it by name. Between the processes go pickles, which come
        from these processes alone.
        """
        if self.processes <= 1:
            yield from map(function, tasks)
            return
        if not self._running:
            self._running = [self._start() for _ in range(self.processes)]
        idle = deque(self._running)
        busy: deque[subprocess.Popen[bytes]] = deque()
        for task in tasks:
            if not idle:
                process = busy.popleft()
                result = _receive(process)
                idle.append(process)
                _send(idle[0], (function.__module__, function.__qualname__, task))
                busy.append(idle.popleft())
                yield result
            else:
                _send(idle[0], (function.__module__, function.__qualname__, task))
                busy.append(idle.popleft())
        while busy:
            yield _receive(busy.popleft())

    def _start(self) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {**os.environ, "PYTHONPATH": paths, **dict.fromkeys(_ONE_THREAD, "1")}
        command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _send(process: subprocess.Popen[bytes], task: Any) -> None:
    assert process.stdin is not None
    try:
        pickle.dump(task, process.stdin)
        process.stdin.flush()
    except BrokenPipeError as error:
        raise _ended(process) from error


def _receive(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    try:
        good, result = pickle.load(process.stdout)
    except (EOFError, pickle.UnpicklingError) as error:
        raise _ended(process) from error
    if not good:
        raise result
    return result


def _ended(process: subprocess.Popen[bytes]) -> InstructGPTError:
    return InstructGPTError(
        f"prepare: a worker process ended with status {process.wait()} before its work was done, as it does when "
        "memory runs out; run the same again to go on, with fewer processes"
    )


def serve() -> None:
    """Do tasks from standard input until it closes; results go to where standard output went."""
    tasks = sys.stdin.buffer
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not stand among the results
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        while True:
            _answer(pickle.load(tasks), results)


def _answer(task: tuple[str, str, Any], results: IO[bytes]) -> None:
    module, name, argument = task
    try:
        answer = (True, getattr(importlib.import_module(module), name)(argument))
    except Exception as error:
        answer = (False, error)
    pickle.dump(answer, results)
    results.flush()

"""The process that runs one foreign program with its tests and says whether they passed; standard library only.

Not imported: evaluate/code_sandbox.py starts this file with `python -I -S`, writes one JSON object to its stdin and
reads one from its stdout. Three processes stand one below the other:

    supervisor   enters new namespaces, keeps the time, reports; it is the only one with a way out
    init         first process of the new process namespace: when it ends, the kernel kills everything inside
    candidate    limits itself, gives up root and every capability, runs program and tests, sends one message

Where the kernel refuses namespaces (containers often do), limits, timeout and the killing of descendants remain, and
the report says what is missing.
Not covered: this is no security boundary against someone who means harm. The program runs on the same kernel, can read
what its user may read, and shares the interpreter with its tests: one that looks for it finds how to report a pass.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
import time
import types
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_NEW_USER, _NEW_MOUNTS, _NEW_IPC, _NEW_PROCESSES, _NEW_NETWORK = 0x10000000, 0x20000, 0x8000000, 0x20000000, 0x40000000
_SYS_MOUNT_SETATTR, _AT_RECURSIVE, _ATTR_READ_ONLY = 442, 0x8000, 1
_MS_READ_ONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 32, 4096, 0x4000, 1 << 18
_CAPABILITY_VERSION_3 = 0x20080522
_MESSAGE_AT_MOST = 4096  # bytes that a pipe takes whole
_DETAIL_AT_MOST = 300  # characters, of which JSON makes up to 12 bytes each
_OPEN_FILES = 64


def main() -> None:
    """Read what to run, run it, report."""
    asked = json.load(sys.stdin.buffer)
    os.umask(0o077)
    if os.geteuid() == 0:
        os.chown(asked["folder"], asked["user"], asked["user"])
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    missing = _isolate(asked["folder"], asked["folder_bytes"])
    os.chdir(asked["folder"])
    receiver, sender = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(receiver)
        _init(sender, asked)
    os.close(sender)
    verdict = _await(init, receiver, asked)
    _kill_descendants(init)
    sys.stdout.write(json.dumps({**verdict, "missing": missing}))


def _isolate(folder: str, size: int) -> list[str]:
    """Cut off network, processes and files; returns what the kernel refused, with its reason."""
    uid, gid = os.geteuid(), os.getegid()
    kinds = _NEW_NETWORK | _NEW_PROCESSES | _NEW_MOUNTS | _NEW_IPC
    try:
        _call(_libc.unshare, kinds if uid == 0 else kinds | _NEW_USER)
        if uid != 0:
            for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(line)
    except OSError as error:
        return [f"network, processes, files ({error.strerror})"]
    try:
        _call(_libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        attributes = struct.pack("QQQQ", _ATTR_READ_ONLY, 0, 0, 0)
        _call(_libc.syscall, _SYS_MOUNT_SETATTR, -100, b"/", _AT_RECURSIVE, attributes, len(attributes))
        options = f"size={size},mode=777".encode()
        _call(_libc.mount, b"none", folder.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options)
        # The other processes of the machine stand in /proc, with what they were started with.
        _call(_libc.mount, b"none", b"/proc", b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=755")
        if uid == 0:
            _move_library("/proc/python")
        _call(_libc.mount, b"none", b"/proc", None, _MS_REMOUNT | _MS_READ_ONLY | _MS_NOSUID | _MS_NODEV, None)
    except OSError as error:
        return [f"files ({error.strerror})"]
    return []


def _move_library(place: str) -> None:
    """Show Python's library at `place` too: a Python in root's home is out of reach once the candidate is not root."""
    old = os.path.dirname(os.__file__)
    os.mkdir(place, 0o755)
    _call(_libc.mount, old.encode(), place.encode(), None, _MS_BIND, None)
    sys.path[:] = [path.replace(old, place, 1) for path in sys.path]
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        if hasattr(module, "__path__"):
            module.__path__ = [path.replace(old, place, 1) for path in module.__path__]


def _init(sender: int, asked: dict[str, Any]) -> None:
    """Wait for the candidate and end as it did. Of its own session: what it sends to its group stays there."""
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    candidate = os.fork()
    if candidate == 0:
        os.setsid()
        _candidate(sender, asked)
    os.close(sender)
    while True:
        ended, status = os.wait()
        if ended == candidate:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _candidate(sender: int, asked: dict[str, Any]) -> None:
    """Limit this process, run program and tests, and tell in one message."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    if sender != 3:
        os.dup2(sender, 3)
    os.closerange(4, 65536)
    os.environ.clear()
    if os.geteuid() == 0:
        # Limits on processes do not bind root. A user number of its own: another program's processes do not count.
        os.setgroups([])
        os.setresgid(asked["user"], asked["user"], asked["user"])
        os.setresuid(asked["user"], asked["user"], asked["user"])
    cpu = asked["cpu_seconds"]
    limits = (
        (resource.RLIMIT_AS, asked["memory_bytes"]), (resource.RLIMIT_FSIZE, asked["folder_bytes"]),
        (resource.RLIMIT_NOFILE, _OPEN_FILES), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, asked["processes"]),
    )
    for limit, value in limits:
        resource.setrlimit(limit, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))  # a signal that tells why first, then the one that kills
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _call(_libc.capset, struct.pack("II", _CAPABILITY_VERSION_3, 0), bytes(24))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _judge(asked, _sender(asked["token"]))
    os._exit(0)


def _sender(token: str) -> Callable[[bool, str], None]:
    """How the candidate tells its result; made before the program runs, which may replace what os and json hold."""
    write, dumps, most = os.write, json.JSONEncoder().encode, _DETAIL_AT_MOST

    def send(passed: bool, detail: str) -> None:
        write(3, f"{token}{dumps([passed, detail[:most]])}\n".encode())

    return send


def _judge(asked: dict[str, Any], send: Callable[[bool, str], None]) -> None:
    """Run the program, then its tests in the same module; a pass is told only behind the last of them."""
    run, leave, table, kept = exec, os._exit, vars(builtins), dict(vars(builtins))
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    space = vars(module)
    try:
        tests = compile(asked["tests"], "<tests>", "exec")
        run(compile(asked["program"], "<program>", "exec"), space)
        table.clear()  # the tests mean Python's own abs and len
        table.update(kept)
        space["__builtins__"] = builtins
        run(tests, space)
        if asked["entry_point"]:
            space["check"](space[asked["entry_point"]])
    except BaseException as error:  # SystemExit too: who leaves before the tests are over has not passed them
        try:
            detail = f"{type(error).__name__}: {error}"
        except BaseException:
            detail = "an error that cannot be written"
        send(False, detail)
        leave(1)
    send(True, "")
    leave(0)


def _await(init: int, receiver: int, asked: dict[str, Any]) -> dict[str, Any]:
    """The candidate's message, or why there is none."""
    ended = os.pidfd_open(init)
    poll = select.poll()
    poll.register(receiver, select.POLLIN)
    poll.register(ended, select.POLLIN)
    deadline = time.monotonic() + asked["seconds"]
    ready = {number for number, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
    if not ready:
        return {"outcome": "timed_out", "detail": f"not over after {asked['seconds']} s"}
    os.set_blocking(receiver, False)
    try:
        message = os.read(receiver, _MESSAGE_AT_MOST)
    except BlockingIOError:
        message = b""
    token = asked["token"].encode()
    if message.startswith(token):
        try:
            passed, detail = json.loads(message[len(token):])
        except ValueError:
            return {"outcome": "failed", "detail": "a broken report"}
        return {"outcome": "passed" if passed is True else "failed", "detail": str(detail)}
    if message:
        return {"outcome": "failed", "detail": "a forged report"}
    poll.unregister(receiver)
    poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    return _without_message(init, asked)


def _without_message(init: int, asked: dict[str, Any]) -> dict[str, Any]:
    found, status = os.waitpid(init, os.WNOHANG)
    if found == 0:
        return {"outcome": "timed_out", "detail": f"not over after {asked['seconds']} s"}
    code = os.waitstatus_to_exitcode(status)
    by_signal = code - 128 if code > 128 else max(-code, 0)
    if by_signal == signal.SIGXCPU:
        return {"outcome": "timed_out", "detail": f"more than {asked['cpu_seconds']} s of CPU time"}
    how = f"its process was ended by signal {by_signal}" if by_signal else "its process ended"
    return {"outcome": "failed", "detail": f"{how} before the tests were over"}


def _kill_descendants(init: int) -> None:
    """Kill init, which in a process namespace kills all; elsewhere orphans come to this process one by one."""
    _kill(init)
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if ended == 0:
            for child in _children():
                _kill(child)
            time.sleep(0.001)


def _children() -> list[int]:
    """Processes whose parent this is; none where /proc is hidden, for then the kernel has killed them."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == os.getpid():
                found.append(int(name))
    return found


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _prctl(option: int, value: int) -> None:
    _call(_libc.prctl, option, value, 0, 0, 0)


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()

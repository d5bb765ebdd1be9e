"""What `make browser` does: finds the Chromium that the chat page is tested with, or installs it.

    python tools/find_or_install_browser.py

Found: the one that INSTRUCTGPT_FAST_CHROMIUM names, one on PATH, or Playwright's own. Where there is none, root on
Debian gets the distribution's package; everybody else is told what to do. Prints the path; exit status 1 when none is
there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from python_tests.serve.browser import VARIABLE, find  # noqa: E402

QUIET = {"DEBIAN_FRONTEND": "noninteractive"}
# Another apt may be at work on the same machine; a mirror may be slow once.
APT = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=2")
ADVICE = (
    "make browser: no Chromium that starts was found, so the chat page cannot be tested in one; install the package "
    f"chromium, or run `.venv/bin/playwright install chromium`, or name a browser with {VARIABLE}=/path/to/chromium."
)

Run = Callable[[Sequence[str], Mapping[str, str]], int]
"""Runs a command with an environment; returns its exit status."""


def execute(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The Run that runs; what the command says goes to stderr, so that stdout holds the path alone."""
    return subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode


def main(environment: Mapping[str, str], run: Run, is_root: bool) -> int:
    """Find, install, find again; what is found is printed."""
    found = find(environment)
    may_install = is_root and not environment.get(VARIABLE) and shutil.which("apt-get", path=environment.get("PATH"))
    if found is None and may_install:
        sys.stderr.write("Installing the package chromium: about half a minute\n")
        with_quiet = {**environment, **QUIET}
        if run([*APT, "update"], with_quiet) == 0:
            run([*APT, "install", "--yes", "--no-install-recommends", "chromium"], with_quiet)
        found = find(environment)
    if found is None:
        named = environment.get(VARIABLE)
        sys.stderr.write(f"make browser: {VARIABLE} names {named}, which does not start.\n" if named else "")
        sys.stderr.write(ADVICE + "\n")
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ, execute, os.geteuid() == 0))

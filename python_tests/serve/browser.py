"""The Chromium that the page is tested with: where it is, and how it is started. Imports nothing outside Python's own.

Not covered: other browsers, and Chromiums of more than a year ago.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "INSTRUCTGPT_FAST_CHROMIUM"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
STARTS_WITHIN = 60.0  # seconds for --version; the first start after an installation reads 300 MB from the disk

# It draws without a GPU and speaks with nobody but the page's server.
FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def flags() -> list[str]:
    """What Chromium is started with; its sandbox does not work for root."""
    return [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else list(FLAGS)


def find(environment: Mapping[str, str] = os.environ) -> str | None:
    """The first Chromium that starts: the one that INSTRUCTGPT_FAST_CHROMIUM names, alone; else one on PATH, else the
    one that `playwright install chromium` has put into its folder. None when there is none."""
    named = environment.get(VARIABLE)
    if named:
        return named if starts(named) else None
    on_path = [shutil.which(program, path=environment.get("PATH")) for program in PROGRAMS]
    home = Path(environment.get("HOME", "/"))
    folder = Path(environment.get("PLAYWRIGHT_BROWSERS_PATH") or home / ".cache" / "ms-playwright")
    downloaded = sorted(map(str, folder.glob("chromium-*/chrome-linux*/chrome")), reverse=True)
    return next((program for program in [*on_path, *downloaded] if program and starts(program)), None)


def starts(program: str) -> bool:
    """Whether it runs and says that it is Chromium or Chrome; a placeholder that asks for a snap does not."""
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=STARTS_WITHIN
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.returncode == 0 and "Chrom" in said.stdout

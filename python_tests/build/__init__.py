"""Tests of the build: what is found, what is made of it, and that every way to install works."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The build's own modules are no part of the package; pip puts their folder on the path in the same way.
sys.path.append(str(ROOT / "buildtools"))

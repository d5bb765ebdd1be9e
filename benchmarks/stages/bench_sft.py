"""Tokens per second and peak memory at sft, ours against plain PyTorch and its peers; see compare.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.stages.compare import main

if __name__ == "__main__":
    main("sft")

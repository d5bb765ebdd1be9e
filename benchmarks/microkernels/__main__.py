"""Runs every micro-kernel and compares its output with golden.json: `python -m benchmarks.microkernels --device simt`.

With `--device cuda` the outputs of the GPU are then written as the confirmed ones, whatever they are: where they differ
from the emulator's, the emulator has misread the documents, and this command ends with 1 and says where. With `--device
simt` the emulator is compared; `--write` writes what it says, unless a GPU has spoken.
"""

from __future__ import annotations

import argparse
import sys

import torch

from benchmarks.microkernels import golden, run
from benchmarks.microkernels.cases import CASES


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.microkernels", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "simt"), required=True)
    parser.add_argument("--write", action="store_true", help="with simt: write golden.json from the emulator")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here; --device simt runs the emulator")
    found, left_out = run.all_cases(options.device)
    known = golden.read()
    expected = {} if known is None else known.outputs
    lines = [line for name, words in found.items() if name in expected
             for line in golden.differences(CASES[name], expected[name], words)]
    missing = sorted(CASES.keys() - expected.keys())
    print(f"{len(found)} micro-kernels ran on {options.device}, {len(lines)} words differ from golden.json "
          f"({'absent' if known is None else known.source})")
    for name in left_out:
        print(f"{name}: left out, this GPU has no such instruction")
    if options.device == "cuda":
        # What this GPU lacks keeps what was there.
        kept = {name: words for name, words in expected.items() if name in left_out}
        golden.write(golden.Golden(run.gpu_source(left_out), {**found, **kept}))
        print("golden.json is of this GPU now: commit it")
    elif options.write:
        if known is not None and known.confirmed:
            sys.exit(f"golden.json is of a GPU ({known.source}); the emulator must follow it")
        golden.write(golden.Golden(golden.EMULATOR, found))
    elif missing:
        lines.append(f"golden.json lacks {', '.join(missing)}, or has them for other inputs: run with --write")
    if lines and not options.write:
        sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()

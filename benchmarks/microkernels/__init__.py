"""Kernels of one instruction each, run on a GPU or by the emulator, against committed outputs: csrc/microkernels."""

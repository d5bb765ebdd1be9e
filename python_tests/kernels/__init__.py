"""Tests of the CUDA kernels themselves, in the emulator: what they move, and that broken ones are found."""

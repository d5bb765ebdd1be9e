"""Tests of the emulator: what it finds, what it counts, how Python drives it."""

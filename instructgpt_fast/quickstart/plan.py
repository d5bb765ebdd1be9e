"""Sizes of a quickstart run, chosen by measuring on two cores."""

from __future__ import annotations

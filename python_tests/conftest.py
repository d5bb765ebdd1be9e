"""Loads the package before torch, so that torch's threads wait politely on a shared machine (see its __init__)."""

import instructgpt_fast  # noqa: F401

"""Loads the package before torch, so that torch's threads wait politely when the machine is shared (see its __init__)."""

import instructgpt_fast  # noqa: F401

"""Packages that carry the name of their main function: `instructgpt_fast.train` is a package, and can be called.

Python binds a submodule to its parent under its own name, so a function of that name in the parent would be
replaced by whichever import comes last. A module that can be called serves both uses, whatever the order.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any


class CallableModule(types.ModuleType):
    """A module whose call is a call of its main function."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the main function."""
        return self.__dict__["__main_function__"](*args, **options)


def make_callable(module_name: str, function: Callable[..., Any]) -> None:
    """Let the module `module_name` be called as `function` is, with its signature for help and editors."""
    module = sys.modules[module_name]
    module.__dict__["__main_function__"] = function
    module.__dict__["__signature__"] = inspect.signature(function)
    module.__class__ = CallableModule

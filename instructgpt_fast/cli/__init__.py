"""The command line: `instructgpt-fast COMMAND`, or `python -m instructgpt_fast COMMAND`."""

from instructgpt_fast.cli.command_line import main

__all__ = ["main"]

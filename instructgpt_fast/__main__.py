"""Runs the command line as `python -m instructgpt_fast`."""

import sys

from instructgpt_fast.cli import main

sys.exit(main())

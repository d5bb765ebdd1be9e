"""The names of `import instructgpt_fast as igf`: fast to import, the same in whatever order modules are imported."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import instructgpt_fast as igf

ROOT = Path(__file__).resolve().parents[1]


def in_a_fresh_python(script: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_name_is_there() -> None:
    for name in igf.__all__:
        assert getattr(igf, name) is not None
    assert set(igf.__all__) <= set(dir(igf))
    with pytest.raises(AttributeError, match="has no attribute 'tran'"):
        igf.tran  # noqa: B018


def test_import_is_light() -> None:
    in_a_fresh_python(
        "import sys, instructgpt_fast\n"
        "assert not {'torch', 'numpy', 'tokenizers', 'rich', 'tyro'} & set(sys.modules)"
    )


@pytest.mark.parametrize("before", [
    "import instructgpt_fast.train.sft, instructgpt_fast.evaluate.tasks, instructgpt_fast.generate.text",
    "from instructgpt_fast import evaluate; import instructgpt_fast.doctor as doctor",
])
def test_packages_named_like_functions_are_both(before: str) -> None:
    in_a_fresh_python(
        f"{before}\n"
        "import instructgpt_fast as igf\n"
        "import instructgpt_fast.train.loop as loop, instructgpt_fast.evaluate.scoring as scoring\n"
        "assert callable(igf.train) and callable(igf.generate) and callable(igf.evaluate) and callable(igf.doctor)\n"
        "assert igf.train.loop is loop and igf.evaluate.scoring is scoring\n"
        "from instructgpt_fast.train import train\n"
        "try:\n    igf.train('nothing')\n"
        "except igf.ConfigError as error:\n    assert 'stage must be one of' in str(error)\n"
        "else:\n    raise AssertionError('no error')"
    )


def test_help_shows_the_functions_signature() -> None:
    assert str(inspect.signature(igf.train)).startswith("(config:")
    assert "checkpoint" in inspect.signature(igf.evaluate).parameters

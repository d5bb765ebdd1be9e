"""Material made once for all tests of the stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from instructgpt_fast.model import ScalarModel

from .material import Material


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """The models are too small to be shared out among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="package")
def base(material: Material) -> str:
    """A checkpoint of an untrained language model."""
    return material.save("base", material.gpt())


@pytest.fixture(scope="package")
def reward_model(material: Material) -> str:
    """A checkpoint of an untrained reward model."""
    return material.save("reward", ScalarModel.from_gpt(material.gpt(seed=1)))


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    return str(tmp_path / "run")

"""Options of the server: limits, names, the key; and what is said when a server cannot begin."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import instructgpt_fast as igf
from instructgpt_fast.errors import BackendError, CheckpointError, ConfigError
from instructgpt_fast.serve.options import KEY_VARIABLE, ServeConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("options", "told"), [
    ({"checkpoint": ()}, "give at least one checkpoint"), ({"port": 65536}, r"port must be in 0\.\.65535"),
    ({"max_rows": 0}, "max_rows must be at least 1"), ({"max_queue": -1}, "max_queue must not be negative"),
    ({"cache_tokens": 0}, "cache_tokens must be at least 1 or none"), ({"request_seconds": 0}, "must be positive"),
    ({"max_connections": 0}, "max_connections must be at least 1"),
    ({"allowed_hosts": ("example.org:80",)}, "without port or path"),
    ({"names": ("a", "b")}, "names must be one a checkpoint"), ({"checkpoint": ("x/a", "y/a")}, "names must differ"),
    ({"names": ("../a",)}, "a name must begin with a letter or digit"), ({"names": ("a b",)}, "a name must begin"),
    ({"allowed_origins": ("example.org",)}, "like https://example.org"), ({"api_key": "x"}, "unknown option 'api_key'"),
    ({"allowed_origins": ("https://example.org/page",)}, "without a path"), ({"dtype": "fp8"}, "dtype must be one of"),
])
def test_wrong_options(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ServeConfig(**{"checkpoint": ("runs/ppo",), **options})


def test_names_of_models() -> None:
    config = ServeConfig(checkpoint=("runs/sft/", "runs/ppo/checkpoint-500"))
    assert config.model_names() == ("sft", "ppo")
    assert ServeConfig(checkpoint=("a", "b"), names=("org/one:v2", "two")).model_names() == ("org/one:v2", "two")


def test_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    file = tmp_path / "key"
    named = ServeConfig(checkpoint=("a",), api_key_file=str(file))
    plain = ServeConfig(checkpoint=("a",))
    assert plain.api_key() is None
    with pytest.raises(ConfigError, match="cannot read the API key from"):
        named.api_key()
    file.write_text("from-the-file\n")
    monkeypatch.setenv(KEY_VARIABLE, "from-the-environment")
    assert (named.api_key(), plain.api_key()) == (b"from-the-file", b"from-the-environment")
    # An empty variable is a mistake in a script: it must not open the server.
    for wrong in ("", "short", "two words here", "schlüssel-wort", "line\nline-two"):
        monkeypatch.setenv(KEY_VARIABLE, wrong)
        with pytest.raises(ConfigError, match="one line of at least 8 printable ASCII characters") as raised:
            plain.api_key()
        assert not wrong or wrong not in str(raised.value), "a key must not stand in a message"


def test_no_key_on_the_command_line() -> None:
    assert not any(name.endswith("key") for name in ServeConfig.__dataclass_fields__)  # type: ignore[attr-defined]


def test_missing_web_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with pytest.raises(ConfigError, match=r"got no uvicorn; run: pip install 'instructgpt_fast\[serve\]'"):
        igf.serve("anything")


def test_importing_the_package_needs_no_web_packages() -> None:
    script = (
        "import sys; import instructgpt_fast as igf; igf.serve, igf.ServeConfig; import instructgpt_fast.cli.serve\n"
        "assert not {'fastapi', 'uvicorn', 'starlette', 'prometheus_client', 'pydantic'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_what_cannot_be_served(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    with pytest.raises(CheckpointError, match="must be a checkpoint or a run directory, got nothing"):
        igf.serve(tmp_path / "absent", port=0)
    with pytest.raises(ConfigError, match="unknown option 'prot', did you mean 'port'"):
        igf.serve(tmp_path, prot=1)
    with pytest.raises(BackendError, match="device"):
        igf.serve(tmp_path, port=0, device="tpu")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            igf.serve(tmp_path, port=port)
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid"):
        igf.serve(tmp_path, host="no.such.host.invalid", port=0)


def test_a_reward_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    from instructgpt_fast.checkpoint import save_checkpoint
    from instructgpt_fast.model import GPTConfig, ScalarModel

    from .served import tokenizer

    shape = GPTConfig(vocab_size=tokenizer().vocab_size, n_positions=16, n_layer=1, n_head=2, d_model=8)
    path = save_checkpoint(
        tmp_path / "rm", model=ScalarModel(shape), tokenizer=tokenizer(), prompt_format="dialogue", stage="reward"
    )
    with pytest.raises(CheckpointError, match="must hold a language model, got the scalar model of stage 'reward'"):
        igf.serve(path, port=0)

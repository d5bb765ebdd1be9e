"""Models of others: a Hugging Face folder of GPT-2 or GPT-Neo becomes a model and a tokenizer of this package.

Not covered: whether the tensors' numbers are the ones their author stored; these folders carry no checksums.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from instructgpt_fast.checkpoint.hugging_face_config import Described, read_config
from instructgpt_fast.checkpoint.hugging_face_folder import (
    CONFIG,
    TOKENIZER_CONFIG,
    StoredTensors,
    chat_template,
    check_tokenizer_files,
    inner_file,
    is_mask,
    read_object,
)
from instructgpt_fast.checkpoint.hugging_face_template import CHAT_TEMPLATE
from instructgpt_fast.checkpoint.hugging_face_weights import foreign_shapes, from_foreign
from instructgpt_fast.errors import CheckpointError, DataError
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.tokenizer import PromptFormat, Tokenizer

IMPORTED = "imported"


class Imported(NamedTuple):
    """What a folder holds, in this package's terms; `stage` is "imported" unless this package exported it."""

    model: GPT | ScalarModel
    tokenizer: Tokenizer
    prompt_format: PromptFormat
    stage: str


def read_hugging_face(
    folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Imported:
    """Read a folder with config.json, safetensors and a tokenizer; nothing in it is run, nothing is downloaded.

    dtype: None keeps the one of the token embedding (f32, bf16, f16). A classifier with one label is a reward model.
    The tokenizer gets PAD and role tokens where it lacks them; their embeddings are the mean of the others, so that
    by Jensen's inequality each new token takes a probability of at most 1 / (n + k) of n old and k new tokens
    (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"). Rows of the embedding beyond
    the tokenizer's last token, which pad it to a round size, are dropped. Residual dropout is 0: stages set it.
    Raises CheckpointError, naming file, key and value, for anything that cannot be served exactly.
    """
    described = read_config(read_object(folder, CONFIG), inner_file(folder, CONFIG))
    with _telling_of_memory(folder):
        stored = StoredTensors(folder)
        _check_tensors(folder, described, stored)
        tokenizer = _read_tokenizer(folder, described)
        config = _with_vocabulary(described.config, tokenizer.vocab_size)
        dtype = dtype or stored.dtype("wte.weight")
        model: GPT | ScalarModel = (ScalarModel if described.scalar else GPT)(config, device="meta", dtype=dtype)
        memory: dict[str, Tensor] = {
            name: torch.empty(t.shape, dtype=t.dtype, device=device) for name, t in model.state_dict().items()
        }
        _fill(memory, described, stored, tokenizer)
    model.load_state_dict(memory, assign=True)
    stage = described.stage or IMPORTED
    return Imported(model.eval(), tokenizer, _prompt_format(folder, described), stage)


@contextlib.contextmanager
def _telling_of_memory(folder: Path) -> Iterator[None]:
    """Turn a lack of memory into a CheckpointError; files with holes can promise more than any machine has."""
    try:
        yield
    except (MemoryError, RuntimeError) as cause:
        # PyTorch has no class of its own for a lack of memory on the CPU.
        if isinstance(cause, RuntimeError) and "memory" not in str(cause):
            raise
        raise CheckpointError(
            f"import: the model of {folder} must fit into memory, got: {cause}; free some, ask for a dtype of half "
            "precision, or check the shapes in its config.json."
        ) from cause


def _check_tensors(folder: Path, described: Described, stored: StoredTensors) -> None:
    """Compare the headers with what config.json promises, before any memory is taken."""
    expected = foreign_shapes(described.config, described.family, scalar=described.scalar)
    found = {name for name in stored if not is_mask(name)}
    if not described.scalar and "lm_head.weight" in found:
        found.remove("lm_head.weight")
        wte = stored.get("wte.weight")
        if wte is None or not torch.equal(stored["lm_head.weight"], wte):
            raise CheckpointError(
                f"import: lm_head.weight in {stored.file('lm_head.weight')} must equal wte.weight, got another "
                "output layer; models with untied embeddings are not served."
            )
    elif not described.tied and not described.scalar:
        raise CheckpointError(
            f"import: tie_word_embeddings in {folder / CONFIG} must be True, got False and no lm_head.weight; models "
            "with untied embeddings are not served."
        )
    missing, unexpected = sorted(expected.keys() - found), sorted(found - expected.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"import: {folder} must hold the {len(expected)} tensors of its {CONFIG}, got {len(missing)} missing "
            f"{missing[:3]} and {len(unexpected)} unexpected {unexpected[:3]}; copy the folder again."
        )
    for name, shape in expected.items():
        if stored.shape(name) != shape:
            raise CheckpointError(
                f"import: {name} in {stored.file(name)} must be {shape} by {CONFIG}, got {stored.shape(name)}; "
                "bring the files of one model together."
            )


def _read_tokenizer(folder: Path, described: Described) -> Tokenizer:
    check_tokenizer_files(folder)
    if (folder / TOKENIZER_CONFIG).exists() and read_object(folder, TOKENIZER_CONFIG).get("auto_map"):
        raise CheckpointError(
            f"import: auto_map in {folder / TOKENIZER_CONFIG} must be left out, because the folder's own code is "
            "never run; remove the entry if the tokenizer's files say everything."
        )
    try:
        tokenizer = Tokenizer.load(folder)
    except DataError as cause:
        raise CheckpointError(f"import: the tokenizer of {folder} cannot be used: {cause}") from cause
    rows = described.config.vocab_size
    largest = max(set(range(tokenizer.vocab_size)) - tokenizer.added_ids)
    if largest >= rows:
        raise CheckpointError(
            f"import: the tokenizer of {folder} must have an embedding for each token, got {rows} rows and a token "
            f"with id {largest}; bring model and tokenizer of one folder together."
        )
    if described.eos_ids and tokenizer.eos_id not in described.eos_ids:
        warnings.warn(
            f"import: {folder / CONFIG} ends texts with id {described.eos_ids}, the tokenizer with "
            f"{tokenizer.eos_token} = {tokenizer.eos_id}; using the tokenizer's.", stacklevel=5,
        )
    return tokenizer


def _with_vocabulary(config: GPTConfig, vocab_size: int) -> GPTConfig:
    return GPTConfig.from_dict({**config.to_dict(), "vocab_size": vocab_size})


def _fill(memory: dict[str, Tensor], described: Described, stored: StoredTensors, tokenizer: Tokenizer) -> None:
    trunk = "trunk." if described.scalar else ""
    for name, target in memory.items():
        if name == f"{trunk}wte.weight":
            _copy_embedding(target, stored["wte.weight"], tokenizer)
        elif name == "head.weight":
            target.copy_(stored["score.weight"])
        elif name in ("head.bias", "bias_shift"):
            target.zero_()  # the class has no bias
        else:
            target.copy_(from_foreign(name.removeprefix(trunk), stored, described.config, described.family))


def _copy_embedding(target: Tensor, rows: Tensor, tokenizer: Tokenizer) -> None:
    """Copy the rows of known tokens and give the added ones their mean."""
    common = min(len(target), len(rows))
    target[:common].copy_(rows[:common])
    if not tokenizer.added_ids:
        return
    added = torch.tensor(sorted(tokenizer.added_ids))
    known = torch.ones(len(target), dtype=torch.bool)
    known[added] = False
    mean = rows[:common][known[:common]].mean(0, dtype=torch.float32)
    target[added.to(target.device)] = mean.to(target.dtype).to(target.device)


def _prompt_format(folder: Path, described: Described) -> PromptFormat:
    template = chat_template(folder)
    if described.prompt_format == "dialogue" or (template is not None and template.strip() == CHAT_TEMPLATE.strip()):
        return "dialogue"
    if template is not None and described.prompt_format is None:
        warnings.warn(
            f"import: the chat template of {folder} is not this package's and is not followed; prompts are encoded as "
            "plain text (prompt_format 'raw').", stacklevel=4,
        )
    return "raw"

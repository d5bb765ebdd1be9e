"""config.json between Hugging Face's GPT-2 and GPT-Neo and this package: what is understood, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instructgpt_fast.errors import CheckpointError, ConfigError
from instructgpt_fast.model import GPTConfig

Family = Literal["gpt2", "gpt_neo"]

OWN_KEY = "instructgpt_fast"
"""The key of an exported config.json under which this package keeps what the classes of others have no word for."""

_MOST_LAYERS = 10_000
_ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh")
_ARCHITECTURES: dict[Family, tuple[tuple[str, ...], str]] = {
    # Of a language model, and of a reward model.
    "gpt2": (("GPT2LMHeadModel", "GPT2Model"), "GPT2ForSequenceClassification"),
    "gpt_neo": (("GPTNeoForCausalLM", "GPTNeoModel"), "GPTNeoForSequenceClassification"),
}
# What both must be, or may leave out, because anything else is another model.
_FIXED: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,), "is_encoder_decoder": (False,), "pruned_heads": ({}, None),
    "quantization_config": (None,), "auto_map": ({}, None),
}
_FIXED_GPT2: dict[str, tuple[Any, ...]] = {
    "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
    # Sums scores in f32, as attention here always does: True is understood.
    "reorder_and_upcast_attn": (False, True),
}
_WHY = {
    "auto_map": "the folder's own code would compute it, which is never run; remove the entry if the weights are "
    "the class's own",
    "quantization_config": "quantized weights are not read; export the weights in f32, bf16 or f16",
}


@dataclass(frozen=True)
class Described:
    """What a config.json says: the family of its names, whether it is a reward model, its shape.

    config: vocab_size counts the embedding's rows, which may be more than the tokenizer has tokens.
    eos_ids: the ids that end a text, where given. stage, prompt_format: as this package exported them, else None.
    """

    family: Family
    scalar: bool
    config: GPTConfig
    eos_ids: tuple[int, ...]
    tied: bool
    stage: str | None
    prompt_format: str | None


def read_config(values: Mapping[str, Any], path: Path) -> Described:
    """Understand a config.json; raises CheckpointError naming `path`, the key and the value that is not served."""
    family = values.get("model_type")
    if not isinstance(family, str) or family not in _ARCHITECTURES:
        raise CheckpointError(f"import: model_type in {path} must be one of gpt2, gpt_neo, got {family!r:.80}.")
    read = _Reader(values, path)
    for name, allowed in {**_FIXED, **(_FIXED_GPT2 if family == "gpt2" else {})}.items():
        read.one_of(name, allowed, default=allowed[0], why=_WHY.get(name))
    read.one_of("activation_function", _ACTIVATIONS, default="gelu_new", why="another function of the feed-forward "
                "layer gives another model")
    tied = read.one_of("tie_word_embeddings", (True, False), default=True)
    scalar = _is_scalar(family, read)
    try:
        config = _gpt2_shape(read) if family == "gpt2" else _gpt_neo_shape(read)
    except ConfigError as cause:
        raise CheckpointError(f"import: {path} must describe a GPT, got: {cause}") from cause
    own = values.get(OWN_KEY)
    own = own if isinstance(own, dict) else {}
    eos = values.get("eos_token_id")
    eos_ids = tuple(number for number in (eos if isinstance(eos, list) else [eos]) if type(number) is int)
    stage = own.get("stage")
    return Described(
        family, scalar, config, eos_ids, bool(tied), stage if isinstance(stage, str) else None,
        own.get("prompt_format") if own.get("prompt_format") in ("raw", "dialogue") else None,
    )


def write_config(
    config: GPTConfig, family: Family, *, scalar: bool, eos_id: int, pad_id: int, dtype: str, own: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the config.json of an export. dtype: "float32", "bfloat16" or "float16"."""
    shared: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[family][1] if scalar else _ARCHITECTURES[family][0][0]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.layer_norm_eps,
        "bos_token_id": eos_id, "eos_token_id": eos_id, "pad_token_id": pad_id,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": dtype, "torch_dtype": dtype,  # the newer name and the older
        OWN_KEY: dict(own),
    }
    if scalar:
        shared |= {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    drop = config.residual_dropout
    if family == "gpt2":
        return shared | {
            "n_positions": config.n_positions, "n_ctx": config.n_positions, "n_embd": config.d_model,
            "n_layer": config.n_layer, "n_head": config.n_head, "n_inner": config.d_ff,
            "resid_pdrop": drop, "embd_pdrop": drop, "attn_pdrop": 0.0,
        }
    kinds = ["local" if config.window(layer) else "global" for layer in range(config.n_layer)]
    return shared | {
        "max_position_embeddings": config.n_positions, "hidden_size": config.d_model, "num_layers": config.n_layer,
        "num_heads": config.n_head, "intermediate_size": config.d_ff, "window_size": config.band_width,
        "attention_types": [[[kind], 1] for kind in kinds], "attention_layers": kinds,
        "resid_dropout": drop, "embed_dropout": drop, "attention_dropout": 0.0,
    }


class _Reader:
    """Takes values out of a config.json, with the defaults of transformers' classes for what is left out."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values, self.path = values, path

    def refuse(self, name: str, rule: str, why: str | None = None) -> CheckpointError:
        reason = f"; {why}" if why else ""
        return CheckpointError(f"import: {name} in {self.path} {rule}, got {self.values.get(name)!r:.80}{reason}.")

    def one_of(self, name: str, allowed: tuple[Any, ...], *, default: Any, why: str | None = None) -> Any:
        value = self.values.get(name, default)
        if not any(value == item and type(value) is type(item) for item in allowed):
            names = " or ".join(repr(item) for item in allowed if item not in (None, {})) or "left out"
            raise self.refuse(name, f"must be {names}", why)
        return value

    def count(self, name: str, default: int, largest: int = (1 << 31) - 1) -> int:
        value = self.values.get(name, default)
        if type(value) is not int or not 1 <= value <= largest:
            raise self.refuse(name, f"must be a whole number in 1..{largest}")
        return value

    def width(self, name: str) -> int | None:
        return None if self.values.get(name) is None else self.count(name, 1)

    def epsilon(self) -> float:
        value = self.values.get("layer_norm_epsilon", 1e-5)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise self.refuse("layer_norm_epsilon", "must be a number between 0 and 1")
        return float(value)


def _is_scalar(family: Family, read: _Reader) -> bool:
    language, reward = _ARCHITECTURES[family]
    given = read.values.get("architectures")
    if given in (None, []):
        return False
    if given == [reward]:
        labels = read.values.get("id2label")
        number = len(labels) if isinstance(labels, dict) else read.values.get("num_labels", 2)
        if number != 1:
            raise CheckpointError(
                f"import: a classifier in {read.path} must have one label to be a reward model, got {number!r:.20}."
            )
        return True
    if not isinstance(given, list) or len(given) != 1 or given[0] not in language:
        raise read.refuse("architectures", f"must be one of {', '.join((*language, reward))}")
    return False


def _gpt2_shape(read: _Reader) -> GPTConfig:
    width = read.count("n_embd", 768)
    return GPTConfig(
        vocab_size=read.count("vocab_size", 50257), n_positions=read.count("n_positions", 1024),
        n_layer=read.count("n_layer", 12, _MOST_LAYERS), n_head=read.count("n_head", 12), d_model=width,
        d_ff=_unless_default(read.width("n_inner"), width), layer_norm_eps=read.epsilon(),
    )


def _gpt_neo_shape(read: _Reader) -> GPTConfig:
    width, layers = read.count("hidden_size", 2048), read.count("num_layers", 24, _MOST_LAYERS)
    return GPTConfig(
        vocab_size=read.count("vocab_size", 50257), n_positions=read.count("max_position_embeddings", 2048),
        n_layer=layers, n_head=read.count("num_heads", 16), d_model=width,
        d_ff=_unless_default(read.width("intermediate_size"), width), layer_norm_eps=read.epsilon(),
        band_width=_band(read, layers),
    )


def _band(read: _Reader, layers: int) -> int | None:
    """The window of layers 1, 3, 5, ... or None when all are global; any other order of layers is refused."""
    given: Any = read.values.get("attention_types")
    if given is None:
        given = [[["global", "local"], 12]]
    kinds: list[Any] = []
    try:
        for group, times in given:
            # Bounded: a hostile number of repetitions must not fill the memory.
            for _ in range(min(times, layers - len(kinds) + 1) if group else 0):
                kinds += group[: layers + 1]
    except (TypeError, ValueError, KeyError) as cause:  # KeyError: a slice of an object, since Python 3.12
        raise read.refuse("attention_types", "must be a list of [[names], times]") from cause
    if kinds == ["global"] * layers:
        return None
    if kinds != ["local" if layer % 2 else "global" for layer in range(layers)]:
        raise read.refuse("attention_types", f"must give {layers} layers that are global and local in turn")
    return read.count("window_size", 256)


def _unless_default(width: int | None, d_model: int) -> int | None:
    return None if width == 4 * d_model else width

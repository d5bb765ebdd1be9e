"""Names and layouts of weights between this package and Hugging Face's GPT-2 and GPT-Neo.

GPT-2's class stores the weights of its layers as [in, out], GPT-Neo's and this package's are [out, in]. GPT-Neo has
queries, keys and values apart, without biases, and does not divide scores by sqrt(d_head): its queries carry that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from instructgpt_fast.checkpoint.hugging_face_config import Family
from instructgpt_fast.model import GPTConfig

_ATTENTION = re.compile(r"(h\.\d+\.attn)\.(c_attn|c_proj)\.(weight|bias)")


def foreign_shapes(config: GPTConfig, family: Family, *, scalar: bool) -> dict[str, tuple[int, ...]]:
    """Name without the prefix "transformer." -> shape of every tensor that a folder must hold."""
    d, f = config.d_model, config.feed_forward
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, d), "wpe.weight": (config.n_positions, d),
        "ln_f.weight": (d,), "ln_f.bias": (d,),
    }
    for layer in range(config.n_layer):
        if family == "gpt2":
            block = {"attn.c_attn.weight": (d, 3 * d), "attn.c_attn.bias": (3 * d,), "attn.c_proj.weight": (d, d),
                     "attn.c_proj.bias": (d,), "mlp.c_fc.weight": (d, f), "mlp.c_proj.weight": (f, d)}
        else:
            block = {f"attn.attention.{name}.weight": (d, d) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
            block |= {"attn.attention.out_proj.bias": (d,), "mlp.c_fc.weight": (f, d), "mlp.c_proj.weight": (d, f)}
        block |= {"mlp.c_fc.bias": (f,), "mlp.c_proj.bias": (d,)}
        block |= {f"{norm}.{kind}": (d,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        shapes |= {f"h.{layer}.{name}": shape for name, shape in block.items()}
    if scalar:
        shapes["score.weight"] = (1, d)
    return shapes


def from_foreign(name: str, stored: Mapping[str, Tensor], config: GPTConfig, family: Family) -> Tensor:
    """Return the tensor that a `GPT` of this package calls `name`, from a folder's tensors."""
    if family == "gpt2":
        return stored[name].T if _is_matrix(name) else stored[name]
    match = _ATTENTION.fullmatch(name)
    if match is None:
        return stored[name]
    place, layer, kind = f"{match[1]}.attention", match[2], match[3]
    if layer == "c_proj":
        return stored[f"{place}.out_proj.{kind}"]
    if kind == "bias":
        return torch.zeros(3 * config.d_model)
    query = stored[f"{place}.q_proj.weight"].float() * math.sqrt(config.d_head)
    return torch.cat([query, stored[f"{place}.k_proj.weight"].float(), stored[f"{place}.v_proj.weight"].float()])


def to_foreign(weights: Mapping[str, Tensor], family: Family) -> dict[str, Callable[[], Tensor]]:
    """Return, by foreign name without prefix, how to make each tensor from a `GPT`'s weights.

    For GPT-Neo the weights must be folded already (`hugging_face_bands`): their biases of queries, keys and values
    are left out, and their scores are not scaled.
    """
    made: dict[str, Callable[[], Tensor]] = {}
    for name, tensor in weights.items():
        match = _ATTENTION.fullmatch(name)
        if family == "gpt2" or match is None:
            made[name] = _transposed(tensor) if family == "gpt2" and _is_matrix(name) else _as_is(tensor)
        elif match[2] == "c_proj":
            made[f"{match[1]}.attention.out_proj.{match[3]}"] = _as_is(tensor)
        elif match[3] == "weight":
            for kind, part in zip("qkv", tensor.chunk(3), strict=True):
                made[f"{match[1]}.attention.{kind}_proj.weight"] = _copied(part)
    return made


def _is_matrix(name: str) -> bool:
    return name.startswith("h.") and re.search(r"\.(c_attn|c_proj|c_fc)\.weight$", name) is not None


def _as_is(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


def _copied(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor.clone()  # a file holds no views of one memory


def _transposed(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor.T.contiguous()

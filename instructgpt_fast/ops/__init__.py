"""The operators: each module is one op with its oracle in plain torch, over the native library of csrc/ops."""

from instructgpt_fast.ops.bias_gelu import bias_gelu, bias_gelu_oracle
from instructgpt_fast.ops.embedding import embedding, embedding_oracle
from instructgpt_fast.ops.layer_norm import layer_norm, layer_norm_oracle

__all__ = [
    "bias_gelu",
    "bias_gelu_oracle",
    "embedding",
    "embedding_oracle",
    "layer_norm",
    "layer_norm_oracle",
]

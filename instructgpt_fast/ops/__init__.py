"""The operators: each module is one op with its oracle in plain torch, over the native library of csrc/ops."""

from instructgpt_fast.errors import BackendError

try:
    from instructgpt_fast.ops.adamw import adamw, adamw_oracle
    from instructgpt_fast.ops.attention import attention, attention_oracle
    from instructgpt_fast.ops.attention_decode import attention_decode, attention_decode_oracle
    from instructgpt_fast.ops.bias_gelu import bias_gelu, bias_gelu_oracle
    from instructgpt_fast.ops.embedding import embedding, embedding_oracle
    from instructgpt_fast.ops.gae import ShapedGae, gae, gae_oracle, shaped_gae, shaped_gae_oracle
    from instructgpt_fast.ops.grad_norm import grad_norm, grad_norm_oracle
    from instructgpt_fast.ops.invariant_linear import invariant_linear, invariant_linear_oracle
    from instructgpt_fast.ops.layer_norm import layer_norm, layer_norm_oracle
    from instructgpt_fast.ops.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_oracle
    from instructgpt_fast.ops.masked_whiten import masked_whiten, masked_whiten_oracle
    from instructgpt_fast.ops.ppo_loss import PpoLoss, ppo_loss, ppo_loss_oracle
    from instructgpt_fast.ops.ranking_loss import RankingLoss, ranking_loss, ranking_loss_oracle
    from instructgpt_fast.ops.sample_token import sample_token, sample_token_oracle
    from instructgpt_fast.ops.token_logprobs import token_logprobs, token_logprobs_oracle
except AttributeError as error:  # torch knows no operator of that name
    raise BackendError(
        "instructgpt_fast.ops: the native libraries are older than the Python part; build again with `pip install .`, "
        f"or in place with `python setup.py build_ext --inplace` ({error})"
    ) from error

__all__ = [
    "PpoLoss",
    "RankingLoss",
    "ShapedGae",
    "adamw",
    "adamw_oracle",
    "attention",
    "attention_decode",
    "attention_decode_oracle",
    "attention_oracle",
    "bias_gelu",
    "bias_gelu_oracle",
    "embedding",
    "embedding_oracle",
    "gae",
    "gae_oracle",
    "grad_norm",
    "grad_norm_oracle",
    "invariant_linear",
    "invariant_linear_oracle",
    "layer_norm",
    "layer_norm_oracle",
    "linear_cross_entropy",
    "linear_cross_entropy_oracle",
    "masked_whiten",
    "masked_whiten_oracle",
    "ppo_loss",
    "ppo_loss_oracle",
    "ranking_loss",
    "ranking_loss_oracle",
    "sample_token",
    "sample_token_oracle",
    "shaped_gae",
    "shaped_gae_oracle",
    "token_logprobs",
    "token_logprobs_oracle",
]

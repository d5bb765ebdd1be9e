"""GPT-2/GPT-3 models: shapes and presets, the transformer, its KV cache, scalar heads, and the token shift."""

from instructgpt_fast.model.config import GPTConfig
from instructgpt_fast.model.heads import ScalarModel, scores_at_last
from instructgpt_fast.model.inference import Chunk, Decoder
from instructgpt_fast.model.kv_cache import PAGE_SIZE, KVCache
from instructgpt_fast.model.presets import MODEL_PRESETS, ModelPreset, model_config, model_preset
from instructgpt_fast.model.shift import counted_rows, rows_before_ends, shift_packed
from instructgpt_fast.model.transformer import GPT

__all__ = [
    "GPT",
    "MODEL_PRESETS",
    "Chunk",
    "Decoder",
    "GPTConfig",
    "KVCache",
    "ModelPreset",
    "PAGE_SIZE",
    "ScalarModel",
    "counted_rows",
    "model_config",
    "model_preset",
    "rows_before_ends",
    "scores_at_last",
    "shift_packed",
]

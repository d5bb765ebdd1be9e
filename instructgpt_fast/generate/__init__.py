"""Generation: `generate`, `complete`, `stream` for text; `sample`, `beam_search`, `Engine` for token ids."""

from instructgpt_fast.callable_module import make_callable
from instructgpt_fast.generate.beam import beam_search
from instructgpt_fast.generate.engine import Engine, EngineStats, sample
from instructgpt_fast.generate.requests import Drawn, Request
from instructgpt_fast.generate.sampling import Completion, FinishReason, SamplingConfig, default_seeds
from instructgpt_fast.generate.text import complete, generate, stream
from instructgpt_fast.tokenizer.few_shot import FewShot

__all__ = [
    "Completion",
    "Drawn",
    "Engine",
    "EngineStats",
    "FewShot",
    "FinishReason",
    "Request",
    "SamplingConfig",
    "beam_search",
    "complete",
    "default_seeds",
    "generate",
    "sample",
    "stream",
]

make_callable(__name__, generate)

"""Generation: `generate` and `stream` for text, `sample` for token ids with their log-probabilities."""

from instructgpt_fast.callable_module import make_callable
from instructgpt_fast.generate.engine import Engine, EngineStats, sample
from instructgpt_fast.generate.requests import Drawn, Request
from instructgpt_fast.generate.sampling import Completion, SamplingConfig, default_seeds
from instructgpt_fast.generate.text import generate, stream

__all__ = [
    "Completion",
    "Drawn",
    "Engine",
    "EngineStats",
    "Request",
    "SamplingConfig",
    "default_seeds",
    "generate",
    "sample",
    "stream",
]

make_callable(__name__, generate)

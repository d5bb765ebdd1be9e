"""Generation: `generate` and `stream` for text, `sample` for token ids with their log-probabilities."""

from instructgpt_fast.callable_module import make_callable
from instructgpt_fast.generate.engine import Engine, sample
from instructgpt_fast.generate.sampling import Completion, SamplingConfig, default_seeds
from instructgpt_fast.generate.text import generate, stream

__all__ = ["Completion", "Engine", "SamplingConfig", "default_seeds", "generate", "sample", "stream"]

make_callable(__name__, generate)

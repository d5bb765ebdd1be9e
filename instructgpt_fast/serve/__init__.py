"""The HTTP server: OpenAI-style routes over the decoding engine; `serve` starts it.

The web packages are the extra `[serve]`: nothing here imports them before `serve` or an app is asked for.
"""

from instructgpt_fast.callable_module import make_callable
from instructgpt_fast.serve.options import ServeConfig
from instructgpt_fast.serve.start import serve

__all__ = ["ServeConfig", "serve"]

make_callable(__name__, serve)

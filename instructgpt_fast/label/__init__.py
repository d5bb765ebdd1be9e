"""Labelling: a page on SQLite where people write demonstrations and rank answers; agreement; export for training.

The web packages are the extra `[label]`: nothing here imports them before `label` or an app is asked for.
"""

from instructgpt_fast.callable_module import make_callable
from instructgpt_fast.label.agreement import Agreement, agreement
from instructgpt_fast.label.export import Exported, export
from instructgpt_fast.label.options import LabelConfig
from instructgpt_fast.label.start import label

__all__ = ["Agreement", "Exported", "LabelConfig", "agreement", "export", "label"]

make_callable(__name__, label)

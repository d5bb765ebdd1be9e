"""Checkpoints: safetensors and JSON, whole, verified, resumable to the bit, never pickle; Hugging Face's in and out."""

from instructgpt_fast.checkpoint.directory import checkpoints_of, keep_last, resolve
from instructgpt_fast.checkpoint.hugging_face import import_hugging_face
from instructgpt_fast.checkpoint.hugging_face_export import export_hugging_face
from instructgpt_fast.checkpoint.load import Loaded, load_model, load_trainer, require_same_vocabulary
from instructgpt_fast.checkpoint.manifest import verify
from instructgpt_fast.checkpoint.result import RESULT, result_of, write_result
from instructgpt_fast.checkpoint.save import TrainerState, save_checkpoint
from instructgpt_fast.files import atomic_write

__all__ = [
    "RESULT",
    "Loaded",
    "TrainerState",
    "atomic_write",
    "checkpoints_of",
    "export_hugging_face",
    "import_hugging_face",
    "keep_last",
    "load_model",
    "load_trainer",
    "require_same_vocabulary",
    "resolve",
    "result_of",
    "save_checkpoint",
    "verify",
    "write_result",
]

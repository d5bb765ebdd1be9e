"""Reading a Hugging Face folder that nobody vouches for: its JSON and its tensors, never a line of its code.

Not covered: damage inside a tensor's bytes that leaves finite numbers; these folders carry no checksums.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from instructgpt_fast.checkpoint.manifest import MANIFEST
from instructgpt_fast.errors import CheckpointError
from instructgpt_fast.tokenizer import TOKENIZER_FILES

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_CONFIG, CHAT_TEMPLATE = "tokenizer_config.json", "chat_template.jinja"

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_LARGEST_JSON = 1 << 26  # bytes; an index of ten thousand tensors has a megabyte
_LARGEST_TOKENIZER = 1 << 28
_UNSAFE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl)(\.index\.json)?")
_OTHER_WEIGHTS = re.compile(r".*\.(h5|msgpack|gguf|onnx)|adapter_model\.safetensors")


def is_hugging_face(path: Path) -> bool:
    """Whether `path` looks like a folder in Hugging Face's layout and not like a checkpoint of this package."""
    if not (path / CONFIG).is_file() or (path / MANIFEST).exists():
        return False
    try:
        described = json.loads((path / CONFIG).read_bytes()) if _size(path / CONFIG) <= _LARGEST_JSON else None
    except (OSError, ValueError, RecursionError):
        return re.fullmatch(r"checkpoint-\d+", path.name) is None
    return not (isinstance(described, dict) and {"kind", "model", "prompt_format"} <= described.keys())


def inner_file(folder: Path, name: str, *, largest: int | None = None) -> Path:
    """Return the path of a file of the folder; raises CheckpointError when it is none, too large, or lies outside.

    A link may lead to another file of the folder, and from a snapshot in Hugging Face's cache to that cache's blobs.
    """
    path = folder / name
    if Path(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
        raise CheckpointError(
            f"import: {folder} must name files of its own, got {name!r}; a name that leads elsewhere is not followed."
        )
    if not path.is_file():
        found = "something that is no plain file" if path.exists() or path.is_symlink() else "nothing"
        raise CheckpointError(f"import: {path} must be a file, got {found}; copy the folder again.")
    allowed = [folder.resolve()]
    above = folder.absolute().parent
    if above.name == "snapshots":
        allowed.append((above.parent / "blobs").resolve())
    if path.resolve().parent not in allowed:
        raise CheckpointError(
            f"import: {path} must lie in its folder, got a link to {path.resolve()}; copy the file itself there."
        )
    if largest is not None and _size(path) > largest:
        raise CheckpointError(f"import: {path} must have at most {largest:,} bytes, got {_size(path):,}.")
    return path


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of the folder. Raises CheckpointError naming the file."""
    path = inner_file(folder, name, largest=_LARGEST_JSON)
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as cause:
        raise CheckpointError(
            f"import: {path} must be JSON, got: {type(cause).__name__}: {cause}; copy the folder again."
        ) from cause
    if not isinstance(found, dict):
        raise CheckpointError(f"import: {path} must hold one JSON object, got {type(found).__name__}.")
    return found


def check_tokenizer_files(folder: Path) -> None:
    """Apply the rules of `inner_file` to what the tokenizer is about to read."""
    for name in TOKENIZER_FILES:
        if (folder / name).exists() or (folder / name).is_symlink():
            inner_file(folder, name, largest=_LARGEST_TOKENIZER)


def chat_template(folder: Path) -> str | None:
    """Return the folder's chat template as text that nobody runs, or None."""
    if (folder / CHAT_TEMPLATE).exists():
        path = inner_file(folder, CHAT_TEMPLATE, largest=_LARGEST_JSON)
        return path.read_bytes().decode("utf-8", "replace")
    if not (folder / TOKENIZER_CONFIG).exists():
        return None
    found = read_object(folder, TOKENIZER_CONFIG).get("chat_template")
    if isinstance(found, list):  # several by name
        named = [item for item in found if isinstance(item, dict) and item.get("name") == "default"]
        found = named[0].get("template") if named else None
    return found if isinstance(found, str) else None


class _Place(NamedTuple):
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a folder by name; shapes and dtypes come from the headers, each tensor is read when asked for.

    Names lose the prefix "transformer.", which some folders have and others not.
    """

    def __init__(self, folder: Path) -> None:
        """Read the headers; raises CheckpointError for damage, names that disagree, and formats that can run code."""
        self._folder = folder
        self._files: dict[Path, Any] = {}
        self._names: dict[str, str] = {}
        self._places: dict[str, _Place] = {}
        listed = self._read_index()
        files = [inner_file(folder, name) for name in sorted(set(listed.values())) or [self._only_file()]]
        for file in files:
            self._read_header(file, listed)
        missing = sorted(listed.keys() - set(self._names.values()))
        if missing:
            raise CheckpointError(
                f"import: {folder / INDEX} must list what the files hold, got {len(missing)} tensors that they lack: "
                f"{missing[:3]}; copy the folder again."
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._places[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor: f32, f16 or bf16."""
        return self._places[name].dtype

    def file(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._places[name].file

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor to the CPU; raises CheckpointError when it holds a number that is not finite."""
        file = self.file(name)
        try:
            tensor: Tensor = self._files[file].get_tensor(self._names[name])
        except (OSError, SafetensorError, RuntimeError) as cause:
            raise CheckpointError(f"import: {name} in {file} cannot be read: {cause}; copy it again.") from cause
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"import: {name} in {file} must hold finite numbers, got NaN or infinity.")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _only_file(self) -> str:
        if (self._folder / WEIGHTS).exists() or (self._folder / WEIGHTS).is_symlink():
            return WEIGHTS
        names = sorted(path.name for path in self._folder.iterdir())
        unsafe = [name for name in names if _UNSAFE.fullmatch(name)]
        if unsafe:
            raise CheckpointError(
                f"import: {self._folder} must hold {WEIGHTS}, got only {unsafe[0]}, a format that can run code when "
                "it is read; convert it where you trust it: transformers.AutoModelForCausalLM.from_pretrained(FOLDER)"
                ".save_pretrained(NEW_FOLDER)."
            )
        others = [name for name in names if _OTHER_WEIGHTS.fullmatch(name)]
        found = f"only {others[0]}" if others else "neither"
        raise CheckpointError(
            f"import: {self._folder} must hold {WEIGHTS} or {INDEX}, got {found}; convert or copy the weights."
        )

    def _read_index(self) -> dict[str, str]:
        if not (self._folder / INDEX).exists():
            return {}
        listed = read_object(self._folder, INDEX).get("weight_map")
        if not isinstance(listed, dict) or not listed or not all(isinstance(file, str) for file in listed.values()):
            raise CheckpointError(
                f"import: {self._folder / INDEX} must map tensors to files under 'weight_map', got {listed!r:.80}."
            )
        for file in set(listed.values()):
            if not file.endswith(".safetensors"):
                raise CheckpointError(f"import: {self._folder / INDEX} must name safetensors files, got {file!r}.")
        return dict(listed)

    def _read_header(self, path: Path, listed: Mapping[str, str]) -> None:
        try:
            self._files[path] = file = safe_open(path, framework="pt")
            names = list(file.keys())
            headers = {name: file.get_slice(name) for name in names}
            found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in headers.items()}
        except (OSError, SafetensorError, RuntimeError, ValueError) as cause:
            raise CheckpointError(
                f"import: {path} must be a safetensors file, got: {cause}; copy it again."
            ) from cause
        for stored, (shape, dtype) in found.items():
            name = stored.removeprefix("transformer.")
            if listed and listed.get(stored) != path.name:
                raise CheckpointError(f"import: {path} holds {stored}, which {INDEX} does not say; copy it again.")
            if name in self._places:
                raise CheckpointError(f"import: {path} holds {name} a second time; a tensor must be stored once.")
            if dtype not in _DTYPES and not is_mask(name):
                raise CheckpointError(
                    f"import: {stored} in {path} must be of type {', '.join(_DTYPES)}, got {dtype}; convert the "
                    "weights first."
                )
            self._names[name] = stored
            self._places[name] = _Place(shape, _DTYPES.get(dtype, torch.bool), path)


def is_mask(name: str) -> bool:
    """Whether a tensor is a causal mask, which older versions of transformers stored with the weights."""
    return re.fullmatch(r"h\.\d+\.attn\.(attention\.)?(bias|masked_bias)", name) is not None


def _size(path: Path) -> int:
    return path.stat().st_size

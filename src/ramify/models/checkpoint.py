"""Weights from safetensors files, single or sharded, as views of the memory map wherever the format allows.

Every fault of a file is found when it is opened or asked for, and told with the file's name and what to do. Pickled
weights are never read: loading one runs code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ramify.errors import CheckpointError
from ramify.models.config import read_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
# What older exports left in a checkpoint though it follows from the config.
_DERIVED_SUFFIXES = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", ".masked_bias")
_HEAD_PREFIX = "lm_head."
_LFS_MARK = b"version https://git-lfs"


class Checkpoint:
    """The tensors of one folder. Files open on first use and stay mapped while any tensor of theirs lives.

    Args:
        folder: where the files lie.
        shard_of: tensor name -> file.
    """

    def __init__(self, folder: Path, shard_of: dict[str, Path]) -> None:
        self.folder = folder
        self._shard_of = shard_of
        self._open: dict[Path, Any] = {}
        self._used: set[str] = set()

    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._shard_of)

    def __contains__(self, name: str) -> bool:
        return name in self._shard_of

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """One tensor, in `dtype` (None: as stored) on `device`.

        On the CPU in its stored format it is a view of the memory map: nothing is copied or even read until used. The
        map is private, so writing to the tensor never reaches the file.

        Raises:
            CheckpointError: no such tensor, another shape than `shape`, or not stored as floating-point numbers.
        """
        path = self._shard_of.get(name)
        if path is None:
            raise CheckpointError(f"{self.folder} has no tensor {name}: it is incomplete or of another model")
        handle = self._handle(path)
        stored = self._slice(handle, name, path)
        if list(stored.get_shape()) != list(shape):
            raise CheckpointError(
                f"tensor {name} in {path} has shape {list(stored.get_shape())}; the config asks for {list(shape)}"
            )
        if stored.get_dtype() not in _FLOATS:
            raise CheckpointError(
                f"tensor {name} in {path} is stored as {stored.get_dtype()}; ramify reads {', '.join(_FLOATS)}: "
                "use an unquantised checkpoint"
            )
        self._used.add(name)
        tensor: torch.Tensor = handle.get_tensor(name)
        return tensor.to(device=device, dtype=dtype or tensor.dtype)

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """Number format of a tensor in its file; None if it is no floating-point format."""
        path = self._shard_of[name]
        return _FLOATS.get(self._slice(self._handle(path), name, path).get_dtype())

    def set_aside(self, prefix: str) -> None:
        """Tensors of this prefix are known and not wanted: those of a head that another stands in for."""
        self._used.update(name for name in self._shard_of if name.startswith(prefix))

    def check_all_used(self, prefixes: Sequence[str] = ("model.",)) -> None:
        """Make sure that every tensor of the decoder was asked for: a left-out bias or layer changes all answers.

        Tensors outside of the decoder (other heads, towers) and those that follow from the config are let be.

        Args:
            prefixes: of the decoder's tensors.

        Raises:
            CheckpointError: names the tensors that nothing uses.
        """
        decoder = (*prefixes, _HEAD_PREFIX)
        unused = sorted(name for name in self._shard_of if name not in self._used and _alters_answers(name, decoder))
        if unused:
            shown = ", ".join(unused[:5]) + (f" and {len(unused) - 5} more" if len(unused) > 5 else "")
            raise CheckpointError(
                f"{self.folder} holds tensors that its config does not account for: {shown}; "
                "without them the answers would change, so check config.json (biases, num_hidden_layers, architecture)"
            )

    def close(self) -> None:
        """Let go of the files; tensors handed out stay valid."""
        self._open.clear()

    def _handle(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = _open_file(path)
        return self._open[path]

    def _slice(self, handle: Any, name: str, path: Path) -> Any:
        try:
            return handle.get_slice(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path} lacks the tensor {name}, which {INDEX_FILE} places there") from error


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open the safetensors files of a checkpoint folder: `model.safetensors`, or shards through their index.

    Every file's header is read and checked at once, so a truncated or missing shard is told before any work.

    Raises:
        CheckpointError: no safetensors file, a missing shard, a corrupt or truncated file, a bad index.
    """
    single, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if single.is_file():
        checkpoint = Checkpoint(folder, {})
        handle = checkpoint._handle(single)
        checkpoint._shard_of.update(dict.fromkeys(handle.keys(), single))
    elif index.is_file():
        checkpoint = Checkpoint(folder, _read_index(index))
        for shard in sorted(set(checkpoint._shard_of.values())):
            checkpoint._handle(shard)
    else:
        raise CheckpointError(_no_weights(folder))
    return checkpoint


def _read_index(index: Path) -> dict[str, Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map from tensor names to files: fetch it again")
    shards = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _stays_inside(file):
            raise CheckpointError(f"{index} places tensor {name} in {file!r}, which is outside of its folder")
        shards[name] = index.parent / file
    missing = sorted({path.name for path in shards.values() if not path.is_file()})
    if missing:
        raise CheckpointError(f"{index.parent} lacks {', '.join(missing)}, named in {INDEX_FILE}: fetch these shards")
    return shards


def _stays_inside(file: str) -> bool:
    """Whether a shard's name is a plain relative path on every system; judged as text, since a hub cache links away."""
    posix, windows = PurePosixPath(file), PureWindowsPath(file)
    absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    return file != "" and not absolute and ".." not in windows.parts


def _open_file(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        with path.open("rb") as file:
            if file.read(len(_LFS_MARK)) == _LFS_MARK:
                raise CheckpointError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull`") from error
        raise CheckpointError(f"{path} is corrupt or truncated ({error}): fetch the file again") from error


def _no_weights(folder: Path) -> str:
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        return (
            f"{folder} has only pickled weights ({pickles[0]}), which ramify does not read: loading them runs code; "
            "convert them once where you trust them: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, safe_serialization=True)"
        )
    return f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}: the weights are missing or were not fetched"


def _alters_answers(name: str, decoder: tuple[str, ...]) -> bool:
    return name.startswith(decoder) and not name.endswith(_DERIVED_SUFFIXES)

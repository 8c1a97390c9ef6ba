"""The safetensors files of one folder, single or sharded: which tensor lies where, and each as a view of the map.

Every fault of a file is found when it is opened or asked for, and told with the file's name and what to do. Pickled
weights are never read: loading one runs code.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ramify.errors import CheckpointError
from ramify.models.values import read_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_LFS_MARK = b"version https://git-lfs"


class SafetensorsFiles:
    """The tensors of one folder. Files open on first use and stay mapped while any tensor of theirs lives.

    Args:
        folder: where the files lie.
        shard_of: tensor name -> file.
    """

    def __init__(self, folder: Path, shard_of: dict[str, Path]) -> None:
        self.folder = folder
        self._shard_of = shard_of
        self._open: dict[Path, Any] = {}
        self.used: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._shard_of

    def names(self) -> frozenset[str]:
        """Names of all stored tensors."""
        return frozenset(self._shard_of)

    def stored_as(self, name: str) -> tuple[tuple[int, ...], str]:
        """Shape and number format, as the file spells it ("F32", "I8", "F8_E4M3"), of a tensor.

        Raises:
            CheckpointError: there is no such tensor.
        """
        stored = self._slice(name)
        return tuple(stored.get_shape()), str(stored.get_dtype())

    def take(self, name: str, shape: Sequence[int], kinds: Collection[str], hint: str = "") -> torch.Tensor:
        """One tensor as it is stored: a view of the memory map.

        The map is private, so writing to the tensor never reaches the file.

        Args:
            name: of the tensor.
            shape: that it must have.
            kinds: number formats that it may have, as the file spells them.
            hint: what to do about another format.

        Raises:
            CheckpointError: no such tensor, another shape, or another number format.
        """
        found, kind = self.stored_as(name)
        path = self._shard_of[name]
        if found != tuple(shape):
            raise CheckpointError(f"tensor {name} in {path} has shape {list(found)}; the config asks for {list(shape)}")
        if kind not in kinds:
            raise CheckpointError(f"tensor {name} in {path} is stored as {kind}; ramify reads {', '.join(kinds)}{hint}")
        self.used.add(name)
        tensor: torch.Tensor = self._handle(path).get_tensor(name)
        return tensor

    def close(self) -> None:
        """Let go of the files; tensors handed out stay valid."""
        self._open.clear()

    def _slice(self, name: str) -> Any:
        path = self._shard_of.get(name)
        if path is None:
            raise CheckpointError(f"{self.folder} has no tensor {name}: it is incomplete or of another model")
        try:
            return self._handle(path).get_slice(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path} lacks the tensor {name}, which {INDEX_FILE} places there") from error

    def _handle(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = _open_file(path)
        return self._open[path]

    def _open_all(self) -> None:
        for shard in sorted(set(self._shard_of.values())):
            self._handle(shard)


def open_files(folder: Path) -> SafetensorsFiles:
    """Open the safetensors files of a checkpoint folder: `model.safetensors`, shards through their index, or the one
    file that is there under another name (older GPTQ exports).

    Every file's header is read and checked at once, so a truncated or missing shard is told before any work.

    Raises:
        CheckpointError: no safetensors file, a missing shard, a corrupt or truncated file, a bad index.
    """
    single, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if not single.is_file() and index.is_file():
        files = SafetensorsFiles(folder, _read_index(index))
        files._open_all()
        return files
    if not single.is_file():
        others = sorted(folder.glob("*.safetensors"))
        if len(others) != 1:
            raise CheckpointError(_no_weights(folder, others))
        single = others[0]
    handle = _open_file(single)
    files = SafetensorsFiles(folder, dict.fromkeys(handle.keys(), single))
    files._open[single] = handle
    return files


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
    return file != "" and "\0" not in file and not absolute and ".." not in windows.parts


def _open_file(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        with path.open("rb") as file:
            if file.read(len(_LFS_MARK)) == _LFS_MARK:
                raise CheckpointError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull`") from error
        raise CheckpointError(f"{path} is corrupt or truncated ({error}): fetch the file again") from error


def _no_weights(folder: Path, others: Sequence[Path]) -> str:
    if others:
        return f"{folder} has {len(others)} safetensors files and no {INDEX_FILE} that says what is where: fetch it"
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        return (
            f"{folder} has only pickled weights ({pickles[0]}), which ramify does not read: loading them runs code; "
            "convert them once where you trust them: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, safe_serialization=True)"
        )
    return (
        f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}: the weights are missing or were not fetched; if they "
        "are GGUF files, name one, for example organisation/model:Q4_K_M"
    )

"""`Checkpoint`: the weights of a model under the names of its float form, from safetensors files or a GGUF file.

A weight is floats, or the codes and scales of the file (`quantised`); `tensor` gives either as floats. Every fault is
told with the file's name and what to do, the earlier the better.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch

from ramify.errors import CheckpointError, UnsupportedModelError
from ramify.kernels.packed import PackedMatrix
from ramify.models.safetensors_files import FLOATS, INDEX_FILE, WEIGHTS_FILE, SafetensorsFiles, open_files
from ramify.models.stored.formats import packed_name, read_codes, read_float8
from ramify.models.stored.kinds import Activations, StoredQuantization
from ramify.quantization.packed_file import PACKED_FILE, read_packed
from ramify.quantization.weight import QuantisedWeight

__all__ = ["INDEX_FILE", "WEIGHTS_FILE", "Checkpoint", "SafetensorsCheckpoint", "open_checkpoint"]
# What older exports left in a checkpoint though it follows from the config.
_DERIVED_SUFFIXES = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", ".masked_bias")
# Scales of activations and of a cache that a checkpoint was calibrated for; ramify keeps both in finer formats.
_CALIBRATION_SUFFIXES = (
    ".input_scale",
    ".input_zero_point",
    ".output_scale",
    ".q_scale",
    ".k_scale",
    ".v_scale",
    ".kv_scale",
)
_HEAD_PREFIX = "lm_head."
_INTEGERS = ("I8", "U8")
_FLOAT8 = ("F8_E4M3", "F8_E5M2")
WEIGHT = ".weight"


class Checkpoint(ABC):
    """The tensors of one model.

    Attributes:
        folder: where its files lie, or the file.
        activations: what its quantised weights are multiplied by, by the definition of their format: "float" or
            "int8".
    """

    folder: Path
    activations: Activations = "float"

    @abstractmethod
    def names(self) -> frozenset[str]:
        """Names of all tensors, those of quantised weights as in the float form."""

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    @abstractmethod
    def quantised(self, name: str, shape: Sequence[int]) -> QuantisedWeight | None:
        """The codes and scales of a weight as they are stored; None if it is stored as floats, float8 among them.

        Args:
            name: e.g. "model.layers.0.mlp.up_proj.weight".
            shape: [rows, columns] that it must have.

        Raises:
            CheckpointError: no such tensor, another shape, or numbers that cannot be.
        """

    def packed(self, name: str) -> PackedMatrix | None:
        """A product that is there in the layout of the kernels, e.g. "model.layers.0.self_attn.qkv_proj"; None where
        weights are stored part by part."""
        return None

    @abstractmethod
    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """One tensor as floats, in `dtype` (None: as stored, float32 for quantised ones) on `device`.

        On the CPU in its stored format it is a view of the memory map: nothing is copied or even read until used. The
        map is private, so writing to the tensor never reaches the file.

        Raises:
            CheckpointError: no such tensor, another shape than `shape`, or numbers that cannot be.
        """

    @abstractmethod
    def stored_dtype(self, name: str) -> torch.dtype | None:
        """Number format of a tensor in its file; None if it is stored quantised."""

    @abstractmethod
    def set_aside(self, prefix: str) -> None:
        """Tensors of this prefix are known and not wanted: those of a head that another stands in for."""

    @abstractmethod
    def check_all_used(self, prefixes: Sequence[str] = ("model.",)) -> None:
        """Make sure that every tensor of the decoder was asked for: a left-out bias or layer changes all answers.

        Tensors outside of the decoder (other heads, towers) and those that follow from the config are let be.

        Args:
            prefixes: of the decoder's tensors.

        Raises:
            CheckpointError: names the tensors that nothing uses.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; tensors handed out stay valid."""

    def _refuse_unused(self, unused: Sequence[str]) -> None:
        if unused:
            shown = ", ".join(unused[:5]) + (f" and {len(unused) - 5} more" if len(unused) > 5 else "")
            raise CheckpointError(
                f"{self.folder} holds tensors that its config does not account for: {shown}; "
                "without them the answers would change, so check config.json (biases, num_hidden_layers, architecture)"
            )


class SafetensorsCheckpoint(Checkpoint):
    """The tensors of a folder with safetensors files.

    Args:
        files: of the folder.
        scheme: how its weights are quantised; None if they are not.
    """

    def __init__(self, files: SafetensorsFiles, scheme: StoredQuantization | None = None) -> None:
        self.folder = files.folder
        self.activations = "float" if scheme is None else scheme.activations
        self._files = files
        self._scheme = scheme
        packed = "" if scheme is None else packed_name(scheme, "") or ""
        ends = tuple(name for name in files.names() if packed and name.endswith(packed))
        self._packed = frozenset(name.removesuffix(packed) + WEIGHT for name in ends)
        self._names = files.names() | self._packed

    def names(self) -> frozenset[str]:
        """See `Checkpoint.names`; the tensors of a packed weight are there under their own names too."""
        return self._names

    def quantised(self, name: str, shape: Sequence[int]) -> QuantisedWeight | None:
        """See `Checkpoint.quantised`."""
        scheme = self._scheme
        if scheme is None or len(shape) != 2 or not self._is_quantised(name):
            return None
        if scheme.layout == "float8":
            return None
        return read_codes(self._files, scheme, name.removesuffix(WEIGHT), shape[0], shape[1])

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """See `Checkpoint.tensor`."""
        if self._scheme is not None and len(shape) == 2 and self._is_quantised(name):
            weight = self.quantised(name, shape)
            if weight is None:
                floats = read_float8(self._files, self._scheme, name.removesuffix(WEIGHT), shape[0], shape[1])
            else:
                floats = weight.dequantised()
            return floats.to(device=device, dtype=dtype or floats.dtype)
        hint = ": config.json has no quantization_config that says what the numbers mean; use an unquantised checkpoint"
        tensor = self._files.take(name, shape, FLOATS, hint if self._scheme is None else "")
        return tensor.to(device=device, dtype=dtype or tensor.dtype)

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """See `Checkpoint.stored_dtype`."""
        return None if name in self._packed else FLOATS.get(self._files.stored_as(name)[1])

    def set_aside(self, prefix: str) -> None:
        """See `Checkpoint.set_aside`."""
        self._files.used.update(name for name in self._files.names() if name.startswith(prefix))

    def check_all_used(self, prefixes: Sequence[str] = ("model.",)) -> None:
        """See `Checkpoint.check_all_used`; a bias of zeros, as some GPTQ exports have everywhere, changes nothing."""
        decoder = (*prefixes, _HEAD_PREFIX)
        unused = sorted(self._files.names() - self._files.used)
        self._refuse_unused([name for name in unused if name.startswith(decoder) and self._alters_answers(name)])

    def close(self) -> None:
        """See `Checkpoint.close`."""
        self._files.close()

    def _is_quantised(self, name: str) -> bool:
        """Whether a weight is stored as codes."""
        if name in self._packed and name in self._files:
            raise CheckpointError(f"{self.folder} holds {name} twice, as floats and quantised: the file is corrupt")
        if name in self._packed:
            return True
        if self._scheme is None or name not in self._files or not name.endswith(WEIGHT):
            return False
        kind = self._files.stored_as(name)[1]
        if self._scheme.layout == "int8":
            return kind in _INTEGERS
        return self._scheme.layout == "float8" and kind in _FLOAT8

    def _alters_answers(self, name: str) -> bool:
        if name.endswith(_DERIVED_SUFFIXES):
            return False
        if self._scheme is None:
            return True
        if name.endswith(_CALIBRATION_SUFFIXES):
            return False
        shape, kind = self._files.stored_as(name)
        zeros = name.endswith(".bias") and kind in FLOATS and not self._files.take(name, shape, FLOATS).any()
        return not zeros


def open_checkpoint(path: Path, scheme: StoredQuantization | None = None) -> Checkpoint:
    """Open the weights of a model: the safetensors files of a folder, or a GGUF file.

    Every file's header is read and checked at once, so a truncated or missing shard is told before any work.

    Args:
        path: a checkpoint's folder, or a GGUF file.
        scheme: `ModelConfig.quantization`.

    Raises:
        CheckpointError: no weights, a missing shard, a corrupt or truncated file, a bad index.
        UnsupportedModelError: a number format of a GGUF file that ramify does not read.
    """
    if path.is_file():
        from ramify.models.gguf.checkpoint import open_gguf

        return open_gguf(path)
    if scheme is not None and scheme.layout == "gguf":
        raise UnsupportedModelError(f"{path} is a folder: give the GGUF file in it")
    if scheme is not None and scheme.layout == "ramify":
        from ramify.models.packed_checkpoint import PackedCheckpoint

        return PackedCheckpoint(path, read_packed(path / PACKED_FILE))
    return SafetensorsCheckpoint(open_files(path), scheme)

"""Quantising a model into a folder of its own, which loads by mapping."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ramify.config import EngineConfig
from ramify.engine.loading import load_model
from ramify.engine.packed_weights import bundled_ids, num_product_weights, token_ids, wanted_format
from ramify.errors import ConfigError
from ramify.models.checkpoint import open_checkpoint
from ramify.models.config import CONFIG_FILE, ModelConfig, load_config
from ramify.models.decoder import Decoder
from ramify.models.hub import resolve_model
from ramify.models.packing import Progress, pack_model
from ramify.models.values import read_json
from ramify.quantization.packed_file import LAYOUT_VERSION, PACKED_FILE, PackedModel, write_packed
from ramify.text.tokenizer import Tokenizer, load_tokenizer

_LEFT_OUT = ("model.safetensors.index.json", "quantize_config.json", CONFIG_FILE)
_COPIED = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".md")


@dataclass(frozen=True, slots=True)
class Quantised:
    """A model that was written.

    Attributes:
        source: folder of the checkpoint it was made of.
        folder: where it is.
        config: of the model.
        model: its weights.
        float_bytes: of the source's weights.
    """

    source: Path
    folder: Path
    config: ModelConfig
    model: PackedModel
    float_bytes: int

    @property
    def has_vocabulary(self) -> bool:
        """Whether it gives distributions of tokens, which can be compared."""
        return self.config.head == "vocabulary"

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return load_tokenizer(self.folder)

    def load(self) -> tuple[Decoder, Decoder, Tokenizer]:
        """The float model in float32, this one from its folder, and the tokenizer."""
        options: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
        float_model, _ = load_model(self.source, EngineConfig(**options))
        other, _ = load_model(self.folder, EngineConfig(device="cpu"))
        return float_model, other, self.tokenizer()

    def as_json(self) -> dict[str, Any]:
        """What is known of it, as plain data."""
        calibrated = bool(self.model.about["calibrated"])
        return {
            "model": str(self.source),
            "output_dir": str(self.folder),
            "format": self.model.spec,
            "bytes": self.model.num_bytes,
            "float_bytes": self.float_bytes,
            "bits_per_weight": 8 * self.model.num_bytes / _num_weights(self.config),
            "calibrated": calibrated,
            "error_of": "the product's float output" if calibrated else "the float weight",
            "products": self.model.about["products"],
        }


def quantise_model(
    model: str | os.PathLike[str],
    quantization: str,
    folder: Path,
    calibration: Sequence[str] | None = None,
    revision: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Quantised:
    """Quantise a model; the folder is there when all of it is.

    Args:
        model: a bundled name, a float checkpoint's folder, or a hub id.
        quantization: a format, as `parse_format` reads it.
        folder: to write; new or empty.
        calibration: texts to choose scales by; None takes bundled ones, unless the format is uncalibrated.
        revision: of a hub id.
        progress: see `pack_model`.

    Raises:
        ConfigError: the format, the folder or the texts cannot be used.
        ModelError: the checkpoint or its tokenizer cannot be used.
    """
    _check_empty(folder)
    source = resolve_model(model, revision)
    config = load_config(source)
    wanted = wanted_format(quantization, config, torch.device("cpu"))
    assert wanted is not None
    if source.is_file():
        raise ConfigError(f"{source} is a GGUF file: load it as it is, or quantise the float checkpoint")
    if wanted.calibration == "none" and calibration is not None:
        raise ConfigError(f"{quantization!r} says calibration=none, and a calibration text is given: drop one of them")
    texts: list[list[int]] = []
    if wanted.calibration != "none":
        tokenizer = load_tokenizer(source)
        longest = min(512, config.max_model_len)
        texts = bundled_ids(tokenizer) if calibration is None else token_ids(tokenizer, calibration, longest=longest)
        if not texts:
            raise ConfigError("the calibration text is shorter than two tokens: give more")
    dtype = torch.bfloat16 if config.dtype in ("bfloat16", "float16") else torch.float32
    packed = pack_model(config, open_checkpoint(source, config.quantization), wanted, dtype, texts, progress)
    _write_folder(source, folder, packed)
    float_bytes = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    return Quantised(source, folder, config, packed, float_bytes)


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: give a new folder, or remove it first")


def _num_weights(config: ModelConfig) -> int:
    own_head = config.head == "vocabulary" and not config.tie_word_embeddings
    return num_product_weights(config) + (config.vocab_size * config.hidden_size if own_head else 0)


def _write_folder(source: Path, folder: Path, packed: PackedModel) -> None:
    """Everything but the source's weights, the packed ones, and a configuration that says so."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        for file in sorted(source.rglob("*")):
            place = file.relative_to(source)
            wanted = file.suffix in _COPIED and file.name not in _LEFT_OUT and len(place.parts) <= 2
            if wanted and file.is_file() and not any(part.startswith(".") for part in place.parts):
                (temporary / place).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, temporary / place)
        raw = read_json(source / CONFIG_FILE)
        raw["quantization_config"] = {"quant_method": "ramify", "format": packed.spec, "layout": LAYOUT_VERSION}
        (temporary / CONFIG_FILE).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
        write_packed(temporary / PACKED_FILE, packed)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

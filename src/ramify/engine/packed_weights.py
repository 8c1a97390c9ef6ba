"""Low-bit weights for an engine: found in the cache, or made once and kept there.

Whatever a checkpoint stores, its codes are laid out for the kernels once; a second start maps the file that the first
one wrote.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import torch

from ramify.errors import CheckpointError, ConfigError, ModelError
from ramify.models.checkpoint import Checkpoint
from ramify.models.config import ModelConfig
from ramify.models.packed_checkpoint import PackedCheckpoint
from ramify.models.packing import Progress, has_codes, pack_model
from ramify.models.products import layer_products
from ramify.quantization import cache
from ramify.quantization.formats import WeightFormat, parse_format
from ramify.quantization.packed_file import LAYOUT_VERSION, PackedModel, read_packed, write_packed
from ramify.text.tokenizer import Tokenizer, load_tokenizer

PACKING_VERSION = 5
"""Of what makes the weights; goes up whenever the same checkpoint and format would give other codes."""
CALIBRATED_AT_LOAD = 2**30
"""Weights of a model that is calibrated when it is loaded: minutes at most. Larger ones are by `ramify quantize`."""
MAX_CALIBRATION_TOKENS = 8192
_FEWEST_CALIBRATION_TOKENS = 512
_WEIGHTS_TIMES_TOKENS = 64 * 2**20 * MAX_CALIBRATION_TOKENS // 2
"""At load: half a trillion products, a few seconds, unless the fewest tokens are more. They tell nearly as much."""
_SAYS_EVERY_S = 10.0
_LONGEST_TEXT = 512
_WEIGHTS = ("*.safetensors", "*.gguf", "config.json", "quantize_config.json")
_TOKENIZER = ("tokenizer*", "chat_template*", "vocab*", "merges.txt")
_log = logging.getLogger(__name__)


def wanted_format(quantization: str | None, model: ModelConfig, device: torch.device) -> WeightFormat | None:
    """The format that the options ask for; None if they ask for none.

    Raises:
        ConfigError: no such format, or it does not go with the checkpoint or the device.
    """
    stored = model.quantization
    if quantization is None or (stored is not None and quantization == stored.method):
        return None  # "gptq" for a GPTQ checkpoint, as vLLM's users write it, is what it is anyway
    wanted = parse_format(quantization)
    if device.type != "cpu":
        raise ConfigError(f"quantization={quantization!r} runs on a CPU: use device='cpu', or leave it out")
    if stored is not None and stored.layout == "ramify":
        raise ConfigError(
            f"quantization={quantization!r}: the checkpoint is quantised already, so leave it out, or quantise the "
            "float checkpoint that it was made of"
        )
    return wanted


def packed_checkpoint(
    path: Path, model: ModelConfig, checkpoint: Checkpoint, wanted: WeightFormat | None, dtype: torch.dtype
) -> Checkpoint:
    """The checkpoint with its weights packed, if a format is wanted or codes are stored; else as it is.

    Args:
        path: the checkpoint's folder, or its file.
        wanted: see `wanted_format`.
        dtype: of what stays floats.

    Raises:
        CheckpointError: the weights cannot be used.
        ModelError: calibration is asked for, and there is no tokenizer that reads its text.
    """
    if isinstance(checkpoint, PackedCheckpoint) or (wanted is None and not has_codes(model, checkpoint)):
        return checkpoint
    calibrated = _is_calibrated(model, wanted)
    files = [*_files(path, _WEIGHTS), *(_files(path, _TOKENIZER) if calibrated else [])]
    spec = "as stored" if wanted is None else wanted.spec
    versions = f"packing {PACKING_VERSION}, layout {LAYOUT_VERSION}"
    entry = cache.entry_path(files, spec, str(dtype), model.head, model.architecture, str(calibrated), versions)
    packed = _cached(entry)
    if packed is None:
        _log.info("%s: packing weights (%s); the next start finds them in %s", path, spec, entry.parent)
        texts = calibration_ids(path, wanted, _tokens_at_load(model)) if calibrated else []
        packed = pack_model(model, checkpoint, wanted, dtype, texts, _told(path))
        packed = _kept(entry, packed)
    return PackedCheckpoint(path, packed)


def calibration_ids(
    path: Path, wanted: WeightFormat | None, max_tokens: int = MAX_CALIBRATION_TOKENS
) -> list[list[int]]:
    """The bundled calibration text in a model's tokens; none if it has no tokenizer and the format leaves it open.

    Raises:
        ModelError: there is no tokenizer, and the format insists.
    """
    try:
        return bundled_ids(load_tokenizer(path), max_tokens)
    except ModelError as error:
        if wanted is not None and wanted.calibration == "text":
            raise
        _log.warning("scales are chosen by the error of the weights alone, without a tokenizer for text: %s", error)
        return []


def bundled_ids(tokenizer: Tokenizer, max_tokens: int = MAX_CALIBRATION_TOKENS) -> list[list[int]]:
    """Worked problems of the bundled tasks, as the model's own chat template writes them if it has one."""
    lines = (
        resources.files("ramify.quantization").joinpath("calibration.jsonl").read_text(encoding="utf-8").splitlines()
    )
    return token_ids(tokenizer, (written(tokenizer, **json.loads(line)) for line in lines), max_tokens)


def written(tokenizer: Tokenizer, prompt: str, answer: str) -> str:
    """A problem and its answer as the model's text."""
    if tokenizer.chat_template is None:
        return f"{prompt}\n{answer}\n"
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=False)


def token_ids(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    max_tokens: int = MAX_CALIBRATION_TOKENS,
    longest: int = _LONGEST_TEXT,
) -> list[list[int]]:
    """Texts as token ids, in pieces of at most `longest`, until there are `max_tokens` of them."""
    found: list[list[int]] = []
    left = max_tokens
    for text in texts:
        ids = list(tokenizer.encode(text, add_special_tokens=tokenizer.chat_template is None))
        for start in range(0, len(ids), longest):
            piece = ids[start : start + longest][:left]
            left -= len(piece)
            if len(piece) > 1:
                found.append(piece)
            if left <= 0:
                return found
    return found


def num_product_weights(model: ModelConfig) -> int:
    """Weights of all products, from the configuration."""
    layer = sum(sum(product.widths) * product.columns for product in layer_products(model, ""))
    return layer * model.num_layers + model.vocab_size * model.hidden_size


def _is_calibrated(model: ModelConfig, wanted: WeightFormat | None) -> bool:
    if wanted is None or model.quantization is not None or wanted.calibration == "none":
        return False
    return wanted.calibration == "text" or num_product_weights(model) <= CALIBRATED_AT_LOAD


def _tokens_at_load(model: ModelConfig) -> int:
    """Tokens to calibrate on, so that a start takes not much longer for it."""
    affordable = _WEIGHTS_TIMES_TOKENS // num_product_weights(model)
    return max(_FEWEST_CALIBRATION_TOKENS, min(MAX_CALIBRATION_TOKENS, affordable))


def _told(path: Path) -> Progress:
    """Says in the log how far the packing is, every now and then."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SAYS_EVERY_S:
            last = time.monotonic()
            _log.info("%s: packed %d of %d parts", path, done, total)

    return progress


def _files(path: Path, patterns: Sequence[str]) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})


def _cached(entry: Path) -> PackedModel | None:
    if not entry.is_file():
        return None
    try:
        found = read_packed(entry)
    except CheckpointError as error:
        _log.warning("a cached file is made again: %s", error)
        return None
    cache.touch(entry)
    return found


def _kept(entry: Path, packed: PackedModel) -> PackedModel:
    """The same, mapped from the cache; from memory where it cannot be written."""
    try:
        write_packed(entry, packed)
        cache.trim(entry)
    except OSError as error:
        _log.warning("packed weights are not cached, so the next start makes them again: %s", error)
        return packed
    return read_packed(entry)

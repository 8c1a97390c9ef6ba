"""Checked values of a checkpoint's JSON files: each is what it must be, or the error names it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ramify.errors import CheckpointError

_LARGEST_SIZE = (1 << 31) - 1
_MOST: Mapping[str, int] = {"num_hidden_layers": 10_000, "max_position_embeddings": 1 << 24}
"""Sizes that memory is taken for before a weight is looked at."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `CheckpointError` if it is anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8, and numbers of thousands of digits
        raise CheckpointError(f"{path} is not valid JSON ({error}): fetch the file again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; it must be a JSON object")
    return content


def token_ids(key: str, *sources: Mapping[str, Any]) -> tuple[int, ...]:
    """One or more ids, from the first source that has them; none if no source has.

    Raises:
        CheckpointError: they are something else; and so below.
    """
    for source in sources:
        given = source.get(key)
        if given is None:
            continue
        ids = given if isinstance(given, list) else [given]
        if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids):
            raise CheckpointError(f"config.json or generation_config.json: {key}={given!r}; it must be one or more ids")
        return tuple(dict.fromkeys(ids))
    return ()


def size(raw: Mapping[str, Any], key: str, least: int = 1) -> int:
    """An integer that a model can have as its size."""
    value = raw.get(key)
    if value is None:
        raise CheckpointError(f"config.json: {key} is missing")
    most = _MOST.get(key, _LARGEST_SIZE)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CheckpointError(f"config.json: {key}={value!r}; it must be an integer from {least} to {most}")
    return value


def positive(raw: Mapping[str, Any], key: str) -> float:
    """A positive finite number."""
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise CheckpointError(f"config.json: {key}={value!r}; it must be a positive number")
    return float(value)


def flag(raw: Mapping[str, Any], key: str) -> bool:
    """True or false; null and nothing are false."""
    value = raw.get(key, False)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"config.json: {key}={value!r}; it must be true or false")
    return bool(value)

"""Typed, checked looks into a GGUF file's metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ramify.errors import CheckpointError, UnsupportedModelError
from ramify.models.gguf.reader import GgufFile

ARCHITECTURE_KEY = "general.architecture"
ROPE_FACTORS = "rope_freqs.weight"
"""The tensor of factors that stretches the wavelengths of Llama 3.1 and later."""
TOKENS_KEY = "tokenizer.ggml.tokens"
TOKEN_TYPES_KEY = "tokenizer.ggml.token_type"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens in `TOKEN_TYPES_KEY`."""
_INTERLEAVED = ("llama",)
"""Architectures whose converter puts the two rows of query and key that are rotated together side by side."""


class Metadata:
    """The metadata of a file, by key; ``{arch}`` in a key stands for the architecture.

    Args:
        file: the open file.

    Attributes:
        architecture: e.g. "llama".
    """

    def __init__(self, file: GgufFile) -> None:
        self.path = file.path
        self.raw: Mapping[str, Any] = file.metadata
        self.architecture = ""
        self.architecture = self.text(ARCHITECTURE_KEY)

    def __contains__(self, key: str) -> bool:
        return self._key(key) in self.raw

    def text(self, key: str, default: str | None = None) -> str:
        """A text.

        Raises:
            CheckpointError: it is missing, is something else, or no UTF-8; and so below.
        """
        value = self._get(key, None if default is None else default.encode())
        if not isinstance(value, bytes):
            raise self.wrong(key, value, "a text")
        return self._decoded(key, value)

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer of 0 or more; a list of the same one for every layer counts as that one."""
        value = self._get(key, default)
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]
        elif isinstance(value, list):
            raise UnsupportedModelError(f"{self.path}: {self._key(key)} differs between layers, which is not supported")
        if type(value) is not int or value < 0:
            raise self.wrong(key, value, "an integer of 0 or more")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, value, "a finite number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._get(key, default)
        if type(value) is not bool:
            raise self.wrong(key, value, "true or false")
        return value

    def numbers(self, key: str, kinds: tuple[type, ...]) -> list[Any]:
        """A list of numbers."""
        value = self._get(key, None)
        if not isinstance(value, list) or not all(type(each) in kinds for each in value):
            raise self.wrong(key, value, "a list of numbers")
        return value

    def raw_texts(self, key: str) -> list[bytes]:
        """A list of texts, not decoded."""
        value = self._get(key, None)
        if not isinstance(value, list) or not all(type(each) is bytes for each in value):
            raise self.wrong(key, value, "a list of texts")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        return [self._decoded(key, each) for each in self.raw_texts(key)]

    def wrong(self, key: str, value: Any, must_be: str) -> CheckpointError:
        """The error of a value that cannot be."""
        shown = repr(value)[:60]
        return CheckpointError(
            f"{self.path}: metadata {self._key(key)} is {shown}; it must be {must_be}: convert the model anew"
        )

    def _decoded(self, key: str, value: bytes) -> str:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.wrong(key, value, "valid UTF-8") from error

    def _key(self, key: str) -> str:
        return key.replace("{arch}", self.architecture)

    def _get(self, key: str, default: Any) -> Any:
        name = self._key(key)
        if name not in self.raw and default is None:
            raise CheckpointError(f"{self.path} has no metadata {name}: it is incomplete or no language model")
        return self.raw.get(name, default)


def rotated_heads(metadata: Metadata) -> tuple[int, int] | None:
    """Heads of query and of key whose rows stand interleaved; None where they stand as the decoder has them."""
    if metadata.architecture not in _INTERLEAVED:
        return None
    heads = metadata.integer("{arch}.attention.head_count")
    return heads, metadata.integer("{arch}.attention.head_count_kv", heads)

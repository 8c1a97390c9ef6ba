"""`Vocabulary`: the bytes of every token, and which tokens end an answer. What a constraint is bound to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from ramify.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a model as bytes.

    Attributes:
        pieces: the bytes that each token adds to a text; empty for tokens that are no text.
        end_ids: tokens that end an answer.
        specials: names of tokens that are no text, and their ids.
    """

    pieces: tuple[bytes, ...]
    end_ids: frozenset[int]
    specials: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pieces)

    @classmethod
    def of(cls, tokenizer: Tokenizer, end_ids: Iterable[int] = ()) -> Vocabulary:
        """The vocabulary of a tokenizer; `end_ids` are the model's own, besides the tokenizer's end of sequence."""
        return _of(tokenizer, frozenset(end_ids))


@lru_cache(maxsize=8)
def _of(tokenizer: Tokenizer, end_ids: frozenset[int]) -> Vocabulary:
    own = tokenizer.eos_token_id
    ends = end_ids if own is None else end_ids | {own}
    pieces = tuple(token_bytes(tokenizer, index) for index in range(tokenizer.vocab_size))
    return Vocabulary(pieces, ends, special_names(tokenizer))


def special_names(tokenizer: Tokenizer) -> dict[str, int]:
    """The tokens of a tokenizer that are no text, by name."""
    tokens = tokenizer.backend.get_added_tokens_decoder()
    return {token.content: index for index, token in tokens.items() if token.special}


def token_bytes(tokenizer: Tokenizer, index: int) -> bytes:
    """The bytes of one token inside a text; empty for special tokens and for ids without one."""
    token = tokenizer.backend.id_to_token(index)
    if token is None or index in tokenizer.special_ids:
        return b""
    if index in tokenizer.byte_ids:
        return bytes([int(token[3:-1], 16)])
    if "ByteLevel" in repr(tokenizer.backend.decoder) and all(letter in _BYTE_OF for letter in token):
        return bytes(_BYTE_OF[letter] for letter in token)
    return tokenizer.token_text(index).encode()


def _printable_bytes() -> dict[str, int]:
    """The letters that byte-level tokenizers write bytes as: printable bytes as themselves, the others from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _printable_bytes()

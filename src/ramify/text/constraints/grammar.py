"""Regular expressions, grammars and JSON schemas, through llguidance (``pip install 'ramify[constraints]'``).

Every way to write an allowed text in tokens is allowed: llguidance's habit of forcing one tokenisation where the text
is determined is switched off, for it would change the law of the answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ramify.errors import ConfigError
from ramify.sampling import TokenIds
from ramify.text.constraints.base import BoolArray, NextTokens, end_mask
from ramify.text.constraints.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_NO_FORCING = '%llguidance {"no_forcing": true}\n'


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches a regular expression in the syntax of Rust's regex.

    Attributes:
        pattern: the expression. There is no look-around and no back-reference; ``\\d``, ``\\w``, ``\\s`` are ASCII.
    """

    pattern: str

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """Raises `ConfigError` for a pattern that cannot be read."""
        convert: Callable[[str, str], str] = _llguidance().regex_to_lark
        return _matching(f"start: /{convert(self.pattern, 'dws')}/", vocabulary, f"regex {self.pattern!r}")


@dataclass(frozen=True, slots=True)
class Grammar:
    """The whole answer is derived from the rule `start` of a context-free grammar.

    Attributes:
        lark: the grammar, in llguidance's variant of Lark's syntax.
    """

    lark: str

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """Raises `ConfigError` for a grammar that cannot be read."""
        return _matching(self.lark, vocabulary, "grammar")


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The whole answer is JSON that fits a schema.

    Attributes:
        schema: the schema, as JSON text.
    """

    schema: str

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """Raises `ConfigError` for a schema that cannot be read."""
        try:
            schema = json.dumps(json.loads(self.schema))
        except ValueError as error:
            raise ConfigError(f"the JSON schema is no JSON ({error}): give the schema's own text") from error
        return _matching(f"start: %json {schema}", vocabulary, "JSON schema")


def _matching(lark: str, vocabulary: Vocabulary, what: str) -> NextTokens:
    tokenizer = _tokenizer(vocabulary)
    first: LLMatcher = _llguidance().LLMatcher(tokenizer, _NO_FORCING + lark, log_level=0)
    if first.is_error():
        raise ConfigError(f"the {what} cannot be used: {first.get_error().strip().splitlines()[0]}")
    end = end_mask(vocabulary)
    nothing = np.zeros(len(vocabulary), dtype=np.bool_)

    @lru_cache(maxsize=4096)
    def after(tokens: TokenIds) -> LLMatcher | None:
        """The matcher that has read some tokens; None where they do not match."""
        if not tokens:
            return first
        above = after(tokens[:-1])
        if above is None or tokens[-1] in vocabulary.end_ids:
            return None
        matcher: LLMatcher = above.deep_copy()
        return matcher if matcher.consume_token(tokens[-1]) else None

    @lru_cache(maxsize=4096)
    def allowed(tokens: TokenIds) -> BoolArray:
        for length in range(0, len(tokens), _STRIDE):
            after(tokens[:length])  # keeps the recursion shallow
        matcher = after(tokens)
        if matcher is None:
            return nothing
        bits = np.frombuffer(matcher.deep_copy().compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little")[: len(vocabulary)].astype(np.bool_) & ~end
        return mask | end if matcher.is_accepting() else mask

    return allowed


_STRIDE = 256


@lru_cache(maxsize=8)
def _tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    library = _llguidance()
    made: LLTokenizer = library.LLTokenizer(library.TokenizerWrapper(_Pieces(vocabulary)), slices=[])
    return made


class _Pieces:
    """A vocabulary in the form that llguidance asks for."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [piece or b"\xff<%d>" % index for index, piece in enumerate(vocabulary.pieces)]
        self.special_token_ids = [index for index, piece in enumerate(vocabulary.pieces) if not piece]
        self.eos_token_id = min(vocabulary.end_ids)

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokens of a text: only asked for where one tokenisation is forced, which is switched off."""
        return []


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ConfigError(
            "regular expressions, grammars and JSON schemas need llguidance: pip install 'ramify[constraints]'"
        ) from error
    return llguidance

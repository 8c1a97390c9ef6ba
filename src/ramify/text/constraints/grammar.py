"""Regular expressions, grammars, JSON schemas and choices as grammars of llguidance, and as constraints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ramify.errors import ConfigError
from ramify.sampling import TokenIds
from ramify.text.constraints.base import BoolArray, NextTokens, end_mask
from ramify.text.constraints.compiled import CompiledGrammar, Follower, compile_grammar
from ramify.text.constraints.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches a regular expression in the syntax of Rust's regex.

    Attributes:
        pattern: the expression. There is no look-around and no back-reference; ``\\d``, ``\\w``, ``\\s`` are ASCII.
    """

    pattern: str

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """Raises `ConfigError` for a pattern that cannot be read."""
        return _next_tokens(compile_grammar(regex_lark(self.pattern), vocabulary, f"regex {self.pattern[:80]!r}"))


@dataclass(frozen=True, slots=True)
class Grammar:
    """The whole answer is derived from the rule `start` of a context-free grammar.

    Attributes:
        lark: the grammar, in llguidance's variant of Lark's syntax.
    """

    lark: str

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """Raises `ConfigError` for a grammar that cannot be read."""
        return _next_tokens(compile_grammar(self.lark, vocabulary, "grammar"))


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
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the JSON schema is no JSON ({error}): give the schema's own text") from error
        return _next_tokens(compile_grammar(f"start: %json {schema}", vocabulary, "JSON schema"))


def regex_lark(pattern: str) -> str:
    """The grammar of the texts that a regular expression matches."""
    import llguidance

    return f"start: /{llguidance.regex_to_lark(pattern, 'dws')}/"


def lark_text(text: str, specials: Mapping[str, int]) -> str:
    """A fixed text in a grammar; a special token's own text is that token."""
    parts: list[str] = []
    while text:
        places = [(text.find(name), -len(name), name) for name in specials if name in text]
        place, _, name = min(places, default=(len(text), 0, ""))
        if place:
            parts.append(json.dumps(text[:place], ensure_ascii=False))
        if name:
            parts.append(f"<[{specials[name]}]>")
        text = text[place + len(name) :]
    return " ".join(parts)


def _next_tokens(grammar: CompiledGrammar) -> NextTokens:
    vocabulary = grammar.vocabulary
    end = end_mask(vocabulary)
    nothing = np.zeros(len(vocabulary), dtype=np.bool_)

    @lru_cache(maxsize=4096)
    def after(tokens: TokenIds) -> Follower | None:
        """What has read some tokens; None where they do not match."""
        if not tokens:
            return grammar.follow()
        above = after(tokens[:-1])
        if above is None or tokens[-1] in vocabulary.end_ids:
            return None
        follower = above.copy()
        return follower if follower.read(tokens[-1:]) else None

    @lru_cache(maxsize=4096)
    def allowed(tokens: TokenIds) -> BoolArray:
        for length in range(0, len(tokens), _STRIDE):
            after(tokens[:length])  # keeps the recursion shallow
        follower = after(tokens)
        if follower is None:
            return nothing
        mask = follower.copy().allowed()
        return mask | end if follower.complete else mask

    return allowed


_STRIDE = 256

"""Step splitters: where one step of reasoning ends. A plug-in gives a `StepEnd`, which the backend applies to ids."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ramify import registry
from ramify.backends.base import StepEnd
from ramify.errors import ConfigError
from ramify.registry import register
from ramify.strategies.spec_text import escape, unescape

THINKING_MARKERS = ("Wait", "Hmm", "Alternatively", "But", "However", "Actually")
"""Words with which models that think aloud turn round; one of them begins a line and is followed by a mark or space."""
_BEHIND_MARKER = (" ", ",", ".")
_CODE_BEGINS = ("```", "def ", "async def ", "class ", "@")

_PAGE = "techniques/steps.md"
_PART = re.compile(r"\s*('(?:[^'\\]|\\.)*'|[^+']+)\s*(\+|$)")


@dataclass(frozen=True, slots=True)
class StepSplitter:
    """Where a step ends: the first of the given strings, ids or number of tokens. What ends it belongs to it.

    Attributes:
        stop: strings that end a step.
        stop_token_ids: ids that end a step.
        max_tokens: longest step, in tokens; None means that only the answer's own limits hold.

    Raises:
        ConfigError: nothing would end a step.
    """

    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if not (self.stop or self.stop_token_ids or self.max_tokens):
            raise ConfigError("a step splitter needs a stop string, a stop id or a number of tokens")
        if "" in self.stop or (self.max_tokens is not None and self.max_tokens < 1):
            raise ConfigError(f"{self!r} would make empty steps: use non-empty strings and max_tokens of 1 or more")

    def __str__(self) -> str:
        """As in a spec: a name where its strings have one, else the strings; ids; the number of tokens."""
        name = next((name for name, stop in _NAMED.items() if stop == self.stop), None)
        strings = [name] if name else [_quoted(text) for text in self.stop]
        ids = [f"#{token}" for token in self.stop_token_ids]
        return "+".join([*strings, *ids, *([] if self.max_tokens is None else [str(self.max_tokens)])])

    @property
    def step_end(self) -> StepEnd:
        """The form that backends take."""
        return StepEnd(self.stop, self.stop_token_ids, self.max_tokens)


@register("line", kind="splitter", trade="distribution", page=_PAGE)
def lines() -> StepSplitter:
    """A step is a line."""
    return StepSplitter(stop=("\n",))


@register("paragraph", kind="splitter", trade="distribution", page=_PAGE)
def paragraphs() -> StepSplitter:
    """A step ends at an empty line."""
    return StepSplitter(stop=("\n\n",))


@register("tokens", kind="splitter", trade="distribution", page=_PAGE)
def tokens(k: int = 32) -> StepSplitter:
    """A step is k tokens."""
    return StepSplitter(max_tokens=k)


@register("thinking", kind="splitter", trade="distribution", page=_PAGE)
def thinking() -> StepSplitter:
    """A step ends at an empty line, or behind a word such as "Wait" at a line's beginning.

    Behind the word, for there the model has decided to turn round and not yet where to: that is what another
    continuation decides differently.
    """
    turns = tuple(f"\n{word}{mark}" for word in THINKING_MARKERS for mark in _BEHIND_MARKER)
    return StepSplitter(stop=("\n\n", *turns))


@register("code", kind="splitter", trade="distribution", page=_PAGE)
def code() -> StepSplitter:
    """A step ends at an empty line, at the fence of a code block, or where a top-level definition begins."""
    return StepSplitter(stop=("\n\n", *(f"\n{start}" for start in _CODE_BEGINS)))


def parse_splitter(text: str) -> StepSplitter:
    """The splitter that a spec's ``until=`` names; parts joined by ``+`` end a step, whichever comes first.

    A part is a number of tokens, the name of a registered splitter, a stop string in single quotes (``'\\n###'``, with
    ``\\x2c`` for a comma), or ``#`` and a token's id.

    Raises:
        ConfigError: a part is none of these.
    """
    parts = [_part(part) for part in _parts(text)]
    limits = [part.max_tokens for part in parts if part.max_tokens is not None]
    stop = tuple(dict.fromkeys(string for part in parts for string in part.stop))
    ids = tuple(dict.fromkeys(token for part in parts for token in part.stop_token_ids))
    return StepSplitter(stop, ids, min(limits, default=None))


def _parts(text: str) -> list[str]:
    found: list[str] = []
    place = 0
    while place < len(text) or not found:
        match = _PART.match(text, place)
        if match is None or (match.group(2) and match.end() == len(text)):
            raise ConfigError(f"until={text!r} cannot be read: join parts with +, and put strings in single quotes")
        found.append(match.group(1).strip())
        place = match.end()
    return found


def _part(text: str) -> StepSplitter:
    if text.startswith("'"):
        return StepSplitter(stop=(unescape(text[1:-1]),))
    if text.isdecimal():
        return StepSplitter(max_tokens=int(text))
    if text.startswith("#") and text[1:].isdecimal():
        return StepSplitter(stop_token_ids=(int(text[1:]),))
    made = registry.build("splitter", text)
    assert isinstance(made, StepSplitter)
    return made


def _quoted(text: str) -> str:
    return "'" + escape(text).replace("'", "\\'") + "'"


_NAMED = {"line": lines().stop, "paragraph": paragraphs().stop, "thinking": thinking().stop, "code": code().stop}

"""Step splitters: where one step of reasoning ends. A plug-in gives a `StepEnd`, which the backend applies to ids."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.backends.base import StepEnd
from ramify.errors import ConfigError
from ramify.registry import register

_PAGE = "techniques/steps.md"


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
        """As in a spec, where it is one of the named splitters."""
        named = {StepSplitter(stop=("\n",)): "line", StepSplitter(stop=("\n\n",)): "paragraph"}
        return named.get(self) or (str(self.max_tokens) if not (self.stop or self.stop_token_ids) else repr(self))

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

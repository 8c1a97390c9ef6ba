"""The contract of a tool-call family, and the plain data that passes: tools in, events of calls out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ramify.text.tool_calls.ids import random_id

if TYPE_CHECKING:
    from ramify.text.tool_calls.cursor import Cursor
    from ramify.text.tool_calls.grammar import GrammarWriter

KIND = "tool parser"
PAGE = "guides/tools.md"
T = TypeVar("T")
Reading = Generator[None, str, T]
"""A parser as plain control flow: it yields for the next character, and so may stop anywhere in the text."""


class Malformed(Exception):  # noqa: N818 - a finding about a text rather than a fault
    """What looked like a call is none. The text stays text."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        name: letters, digits, ``_`` and ``-``, 64 at most.
        description: for the model.
        parameters: JSON schema of the arguments, an object.
        strict: the arguments must fit every word of the schema.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False

    def as_openai(self) -> dict[str, Any]:
        """The form that chat templates are given."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Begun:
    """A call of this function begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the JSON text of the arguments."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is whole."""


Event = Begun | Arguments | Ended


class ToolFormat(ABC):
    """How one family writes calls. Implementations are frozen dataclasses without state.

    Attributes:
        name: as it is asked for.
        openers: texts that begin calls wherever they stand in an answer; none is the start of another.
        start_openers: texts that begin calls at the answer's start alone, for families that mark calls by nothing else.
        inner_marks: further texts around calls, which a tokenizer may hold as special tokens.
        between: what stands between two calls that have an opener each; None where one opener is for all calls.
        lists_arguments: arguments are written one by one, so that a grammar needs to know them all.
    """

    name: ClassVar[str]
    openers: ClassVar[tuple[str, ...]] = ()
    start_openers: ClassVar[tuple[str, ...]] = ()
    inner_marks: ClassVar[tuple[str, ...]] = ()
    between: ClassVar[str | None] = None
    lists_arguments: ClassVar[bool] = False

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts that surround calls."""
        return (*self.openers, *self.inner_marks)

    @property
    def usual_opener(self) -> str:
        """What the model is made to begin a call with."""
        return (self.start_openers or self.openers)[0]

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family."""
        return any(opener in template for opener in self.openers)

    def call_id(self, name: str, index: int) -> str:
        """An id for a call of this function, in the form that the family's template takes back."""
        return random_id()

    @abstractmethod
    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """Read calls after their opener, up to where text may follow. Raises `Malformed`."""

    @abstractmethod
    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """A Lark expression for what follows `usual_opener`: one call, or several where one opener is for all."""

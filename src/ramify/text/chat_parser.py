"""`ChatParser`: an answer's text in, thoughts, content and tool calls out as deltas, however the text is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ramify.text.marks import held_back
from ramify.text.reasoning import ReasoningParser
from ramify.text.tool_calls.base import Arguments, Begun, Event, ToolFormat
from ramify.text.tool_calls.parser import ToolCallParser


@dataclass(frozen=True, slots=True)
class CallDelta:
    """News of one tool call.

    Attributes:
        index: 0 for the first call of an answer.
        id, name: given once, with a call's first delta; None later.
        arguments: more of their JSON text.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """News of an answer: exactly one of the three.

    Attributes:
        reasoning: more of the thought.
        content: more of the answer's text.
        call: more of a tool call.
    """

    reasoning: str = ""
    content: str = ""
    call: CallDelta | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of an answer.

    Attributes:
        id: names it in the conversation.
        name: the function.
        arguments: JSON text of an object.
    """

    id: str
    name: str
    arguments: str


class ChatParser:
    """One answer.

    Args:
        reasoning: splits thoughts off; None for models without them.
        tools: splits calls off the rest; None for requests without tools.
        family: whose calls they are; needed with `tools`.
        hidden: texts of special tokens that are shown for the marks' sake and belong to no answer.

    Attributes:
        reasoning: the thought so far.
        content: the text so far.
        calls: the calls so far.
    """

    def __init__(
        self,
        reasoning: ReasoningParser | None = None,
        tools: ToolCallParser | None = None,
        family: ToolFormat | None = None,
        hidden: Sequence[str] = (),
    ) -> None:
        self._reasoning_parser = reasoning
        self._tools = tools
        self._family = family
        self._hidden = tuple(hidden)
        self._unsure = ""
        self._thoughts: list[str] = []
        self._contents: list[str] = []
        self._calls: list[tuple[str, str, list[str]]] = []

    @property
    def reasoning(self) -> str:
        """The thought so far."""
        return "".join(self._thoughts)

    @property
    def content(self) -> str:
        """The text so far."""
        return "".join(self._contents)

    @property
    def calls(self) -> list[ToolCall]:
        """The calls so far."""
        return [ToolCall(call_id, name, "".join(parts)) for call_id, name, parts in self._calls]

    def push(self, text: str) -> list[Delta]:
        """The next piece of the answer."""
        text = self._visible(text) if self._hidden else text
        if self._reasoning_parser is None:
            return self._deltas("", text, last=False)
        thought, answer = self._reasoning_parser.push(text)
        return self._deltas(thought, answer, last=False)

    def finish(self) -> list[Delta]:
        """The answer has ended: what was held back."""
        rest, self._unsure = self._unsure, ""
        if self._reasoning_parser is None:
            return self._deltas("", rest, last=True)
        thought, answer = self._reasoning_parser.push(rest)
        more_thought, more_answer = self._reasoning_parser.finish()
        return self._deltas(thought + more_thought, answer + more_answer, last=True)

    def finish_reason(self, reason: str | None) -> str | None:
        """The reason to tell, given the engine's: an answer that came to its end with calls ended for their sake."""
        return "tool_calls" if reason == "stop" and self._calls else reason

    def _visible(self, text: str) -> str:
        """Without the hidden texts, and without what may become one."""
        text = self._unsure + text
        shown = []
        while True:
            found = [(text.find(hidden), -len(hidden)) for hidden in self._hidden if hidden in text]
            if not found:
                break
            place, length = min(found)
            shown.append(text[:place])
            text = text[place - length :]
        certain = len(text) - held_back(text, self._hidden)
        self._unsure = text[certain:]
        return "".join([*shown, text[:certain]])

    def _deltas(self, thought: str, answer: str, last: bool) -> list[Delta]:
        deltas = [Delta(reasoning=thought)] if thought else []
        self._thoughts += [thought] if thought else []
        if self._tools is None:
            found: list[str | Event] = [answer] if answer else []
        else:
            found = self._tools.push(answer) + (self._tools.finish() if last else [])
        return [*deltas, *map(self._delta, _joined(found))]

    def _delta(self, entry: str | list[Event]) -> Delta:
        if isinstance(entry, str):
            self._contents.append(entry)
            return Delta(content=entry)
        assert self._family is not None
        first = entry[0]
        arguments = "".join(event.text for event in entry if isinstance(event, Arguments))
        if isinstance(first, Begun):
            call_id = self._family.call_id(first.name, len(self._calls))
            self._calls.append((call_id, first.name, [arguments]))
            return Delta(call=CallDelta(len(self._calls) - 1, call_id, first.name, arguments))
        self._calls[-1][2].append(arguments)
        return Delta(call=CallDelta(len(self._calls) - 1, arguments=arguments))


def _joined(found: Sequence[str | Event]) -> list[str | list[Event]]:
    """Texts that follow each other as one, and the events of one call together."""
    joined: list[str | list[Event]] = []
    for entry in found:
        last = joined[-1] if joined else None
        if isinstance(entry, str):
            if isinstance(last, str):
                joined[-1] = last + entry
            else:
                joined.append(entry)
        elif isinstance(entry, Begun) or not isinstance(last, list):
            if isinstance(entry, Begun | Arguments):
                joined.append([entry])
        elif isinstance(entry, Arguments):
            last.append(entry)
    return joined

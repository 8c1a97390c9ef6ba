"""`ChatFormat`: how one model's answers are read and its prompts are made, where thoughts and tool calls are concerned.

One object a model, found from its chat template or named. A request goes through it in this order: `prepare` gives the
messages and names for the template, `structure` the form that the answer is held to, `parser` reads the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ramify.errors import RequestError
from ramify.sampling import StructuredOutputsParams, ThinkingMarks, TokenIds
from ramify.text.chat_parser import ChatParser
from ramify.text.reasoning import (
    Effort,
    ReasoningFormat,
    ReasoningParser,
    count_reasoning_tokens,
    detect_reasoning,
    effort_budget,
    reasoning_format,
)
from ramify.text.tokenizer import Tokenizer
from ramify.text.tool_calls import Tool, ToolCallParser, ToolFormat, detect_tools, tool_format
from ramify.text.tool_calls.families import Generic
from ramify.text.tool_calls.grammar import GrammarWriter
from ramify.text.tool_calls.history import for_template, takes_objects

OFF = "none"
"""The name of no parser at all."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of one request.

    Attributes:
        tools: the functions.
        choice: whether the answer may, must, or must to one function, be a call.
        several: more than one call in an answer is welcome.
        name: of the function that must be called, for "named".
    """

    tools: tuple[Tool, ...]
    choice: Literal["auto", "required", "named"] = "auto"
    several: bool = True
    name: str | None = None

    @property
    def forced(self) -> bool:
        """Whether the answer must be a call."""
        return self.choice != "auto"

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The functions that may be called."""
        return tuple(tool for tool in self.tools if self.choice != "named" or tool.name == self.name)


class ChatFormat:
    """The formats of one model.

    Args:
        tokenizer: of the model, with its chat template.
        reasoning: name of a reasoning parser, "none", or None to find it from the template.
        tools: name of a tool parser, "none", or None to find it from the template.

    Raises:
        ConfigError: there is no parser of that name.
    """

    def __init__(self, tokenizer: Tokenizer, reasoning: str | None = None, tools: str | None = None) -> None:
        self.tokenizer = tokenizer
        template = tokenizer.chat_template
        source = f"{template.source}\n{template.tools_source or ''}" if template is not None else ""
        self._variables = template.variables if template is not None else frozenset()
        self._knows_tools = "tools" in self._variables
        if reasoning is None:
            self.reasoning: ReasoningFormat | None = detect_reasoning(source)
        else:
            self.reasoning = None if reasoning == OFF else reasoning_format(reasoning)
        if tools is None:
            self.tools: ToolFormat | None = detect_tools(source) if self._knows_tools else Generic()
        else:
            self.tools = None if tools == OFF else tool_format(tools)

    def effort(self, effort: str | None) -> Effort:
        """What a request's `reasoning_effort` comes to. Raises `RequestError` where the model cannot follow it."""
        return effort_budget(effort, self._variables, self.reasoning is not None)

    def require_tools(self) -> ToolFormat:
        """The family of the model's calls. Raises `RequestError` if it is unknown."""
        if self.tools is None:
            raise RequestError(
                "tools do not work with this model: how it writes calls is not known from its chat template; the "
                "server's operator can name the format with tool_call_parser"
            )
        return self.tools

    def prepare(
        self, messages: Sequence[Mapping[str, Any]], use: ToolUse | None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """(messages, tools) for the chat template.

        Raises:
            RequestError: a call in the conversation has arguments that are no JSON object.
        """
        return for_template(
            messages, use.tools if use else (), knows_tools=self._knows_tools, objects=self._takes_objects
        )

    def structure(self, use: ToolUse, form: StructuredOutputsParams | None = None) -> StructuredOutputsParams | None:
        """The form that holds an answer to the syntax of its calls; None where it is free.

        Args:
            use: the request's tools.
            form: what an answer without calls must be like.

        Raises:
            RequestError: the family cannot hold to the schema of a tool, or `form` leaves no room for a call.
        """
        family = self.require_tools()
        writer = GrammarWriter(self._special_token, loose=not use.forced)
        if form is not None:
            return self._calls_or(writer, family, use, form)
        if use.forced:
            several = use.several and use.choice == "required"
            return StructuredOutputsParams(grammar=writer.forced(family, use.callable, several))
        if not self.holds(use):
            return None
        return StructuredOutputsParams(grammar=writer.free(family, use.callable, use.several))

    def _calls_or(
        self, writer: GrammarWriter, family: ToolFormat, use: ToolUse, form: StructuredOutputsParams
    ) -> StructuredOutputsParams:
        schema = json.loads(str(form.json)) if form.json is not None else {"type": "object"}
        if use.forced or not (form.json is not None or form.json_object):
            raise RequestError(
                "tool_choice asks for a call and response_format (or structured_outputs) for another form: choose one"
            )
        other = writer.json(schema, strict=True)
        return StructuredOutputsParams(grammar=writer.forced(family, use.callable, use.several, other))

    def holds(self, use: ToolUse) -> bool:
        """Whether calls are held to their form, so that they can be handed on while they are written.

        Where the answer may be text as well, the opener must be sure. Strict functions are held to their schemas too;
        those of others need not be such as a grammar can follow.
        """
        family = self.require_tools()
        known = not family.lists_arguments or all(tool.strict for tool in use.tools)
        return use.forced or (bool(family.openers) and not family.start_openers and known)

    def thinking_marks(self, prompt: str, continued: str = "") -> ThinkingMarks | None:
        """Where thoughts stand, for `SamplingParams.thinking_marks`; None for models without them.

        Args:
            prompt: its text.
            continued: text of the assistant's message that the answer goes on with.
        """
        if self.reasoning is None:
            return None
        return self.reasoning.marks(self.tokenizer, self.reasoning.opened_by(prompt, continued))

    def needs_special_tokens(self, use: ToolUse | None) -> bool:
        """Whether marks are special tokens, so that the text must be asked for with ``skip_special_tokens=False``."""
        return any(mark in self._special_texts for mark in self._marks(use))

    def parser(
        self, prompt: str, use: ToolUse | None = None, *, continued: str = "", hide_special_tokens: bool = True
    ) -> ChatParser:
        """The reader of one answer; one for each of `n`.

        Args:
            prompt: its text.
            use: the request's tools.
            continued: text of the assistant's message that the answer goes on with.
            hide_special_tokens: leave special tokens that are no marks out of the answer.
        """
        reasoning = None
        if self.reasoning is not None:
            inside = self.reasoning.opened_by(prompt, continued)
            reasoning = None if inside is None else ReasoningParser(self.reasoning, inside)
        family = self.require_tools() if use is not None else None
        live = use is not None and self.holds(use)
        calls = None if use is None or family is None else ToolCallParser(family, use.callable, live)
        marks = self._marks(use)
        shown = hide_special_tokens and any(mark in self._special_texts for mark in marks)
        hidden = [text for text in self._special_texts if text not in marks] if shown else []
        return ChatParser(reasoning, calls, family, hidden)

    def count_reasoning_tokens(self, token_ids: TokenIds, prompt: str, continued: str = "") -> int:
        """How many tokens of an answer were thought."""
        if self.reasoning is None:
            return 0
        inside = self.reasoning.opened_by(prompt, continued)
        return 0 if inside is None else count_reasoning_tokens(self.tokenizer, token_ids, self.reasoning, inside)

    def _marks(self, use: ToolUse | None) -> tuple[str, ...]:
        """Texts that the parsers of an answer look for."""
        thoughts = () if self.reasoning is None else (*self.reasoning.starts, *self.reasoning.ends)
        return (*thoughts, *(self.require_tools().marks if use is not None else ()))

    @cached_property
    def _special_texts(self) -> tuple[str, ...]:
        texts = (self.tokenizer.backend.id_to_token(index) for index in sorted(self.tokenizer.special_ids))
        return tuple(text for text in texts if text)

    @cached_property
    def _takes_objects(self) -> bool:
        template = self.tokenizer.chat_template
        return template is None or takes_objects(template)

    def _special_token(self, mark: str) -> int | None:
        index = self.tokenizer.backend.token_to_id(mark)
        return index if index in self.tokenizer.special_ids else None

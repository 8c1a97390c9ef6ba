"""Streams of chat completions: the answer piece by piece.

A stream's events add up to the whole answer of the same seed. An event holds all that is new, so a client that is
behind gets several tokens at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ramify.engine.outputs import CompletionOutput, RequestOutput
from ramify.serving import sse
from ramify.serving.auth import Caller
from ramify.serving.chat import AskedChat, asked_chat, logprobs_of
from ramify.serving.methods.answer import ramify_field
from ramify.serving.methods.run import MethodProgress
from ramify.serving.protocol.chat import ChatRequest
from ramify.serving.server import Server
from ramify.text.chat_parser import CallDelta, Delta

CHUNK = "chat.completion.chunk"
_GENERATED = ("content", "reasoning_content", "tool_calls")


async def stream_chat(server: Server, caller: Caller, body: ChatRequest, request_id: str) -> AsyncGenerator[bytes]:
    """The events of a stream, encoded.

    Raises:
        ApiError, RequestError, SamplingParamsError, EngineError: see `asked_chat` and `run`.
    """
    async with aclosing(chat_chunks(server, caller, body, request_id)) as news:
        async for chunks in news:
            events = b"".join(map(sse.event, chunks))
            yield sse.TextEvents(events) if any(map(_has_text, chunks)) else events
    yield sse.DONE


async def chat_chunks(
    server: Server, caller: Caller, body: ChatRequest, request_id: str
) -> AsyncGenerator[list[dict[str, Any]]]:
    """The chunks of a streamed answer, as many at once as are new.

    Raises:
        ApiError, RequestError, SamplingParamsError, EngineError: see `asked_chat` and `run`.
    """
    async with (
        asked_chat(server, caller, body, request_id, CHUNK) as asked,
        aclosing(asked.outputs) as outputs,
    ):
        choices: list[_StreamedChoice] = []
        state: RequestOutput | None = None
        async for _, state in outputs:
            chunks = []
            if not choices:
                choices = [_StreamedChoice(asked, answer.index) for answer in state.outputs]
                chunks = [_chunk(asked, choice.begin(), state, asked.extras(state)) for choice in choices]
            for choice, answer in zip(choices, state.outputs, strict=True):
                chunks += [_chunk(asked, news, state, _told(asked, news)) for news in choice.news(answer)]
            if isinstance(state, MethodProgress) and state.events:
                chunks.append(_chunk(asked, choices[0].nothing(), state, {"ramify": {"events": state.events}}))
            if chunks:
                yield chunks
        if body.include_usage and state is not None:
            yield [{**asked.head, "choices": [], "usage": asked.usage(state, True)}]


def _has_text(chunk: dict[str, Any]) -> bool:
    """Whether it holds what was generated: text, reasoning, or of a tool call."""
    return any(any(choice["delta"].get(name) for name in _GENERATED) for choice in chunk["choices"])


def _told(asked: AskedChat, choice: dict[str, Any]) -> dict[str, Any]:
    """With the end of the answer: what is told of the method behind it."""
    ended = asked.method is not None and choice["finish_reason"] is not None
    return {"ramify": ramify_field(asked.method)} if ended and asked.method is not None else {}


def _chunk(
    asked: AskedChat, choice: dict[str, Any], output: RequestOutput, extras: dict[str, Any] | None = None
) -> dict[str, Any]:
    chunk = {**asked.head, "choices": [choice], **(extras or {})}
    if asked.body.continuous_usage:
        chunk["usage"] = asked.usage(output, False)
    elif asked.body.include_usage:
        chunk["usage"] = None
    return chunk


class _StreamedChoice:
    """One answer of a stream: what is new of it since the last time."""

    def __init__(self, asked: AskedChat, index: int) -> None:
        self._asked = asked
        self._index = index
        self._parser = asked.parser()
        self._parses = asked.parses
        self._characters = 0
        self._tokens = 0
        self._ended = False

    def begin(self) -> dict[str, Any]:
        """The first event's choice: who speaks."""
        return self._choice({"role": "assistant", "content": ""})

    def nothing(self) -> dict[str, Any]:
        """A choice that adds nothing."""
        return self._choice({})

    def news(self, answer: CompletionOutput) -> list[dict[str, Any]]:
        """The choices of the events that tell what is new."""
        if self._ended:
            return []
        text = answer.text[self._characters :]
        if self._parses:
            choices = self._parsed(text, answer.finished)
        else:
            choices = [self._choice({"content": text})] if text else []
        if len(answer.token_ids) > self._tokens:
            self._add_tokens(choices, answer)
        self._characters, self._tokens = len(answer.text), len(answer.token_ids)
        if answer.finished:
            self._ended = True
            choices.append(self._choice({}, self._parser.finish_reason(answer.finish_reason)))
            choices[-1]["stop_reason"] = answer.stop_reason
        return choices

    def _parsed(self, text: str, finished: bool) -> list[dict[str, Any]]:
        deltas = self._parser.push(text) if text else []
        if finished:
            deltas += self._parser.finish()
        return [self._choice(delta) for delta in map(self._delta, deltas) if delta]

    def _add_tokens(self, choices: list[dict[str, Any]], answer: CompletionOutput) -> None:
        """What is told of the new tokens goes with the first event; it may have no text."""
        told: dict[str, Any] = {}
        if answer.logprobs is not None:
            told["logprobs"] = logprobs_of(self._asked, answer, self._tokens)
        if self._asked.body.return_token_ids:
            told["token_ids"] = answer.token_ids[self._tokens :]
        if told and not choices:
            choices.append(self._choice({"content": ""}))
        if told:
            choices[0].update(told)

    def _choice(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": reason}

    def _delta(self, delta: Delta) -> dict[str, Any]:
        if delta.reasoning:
            if self._asked.body.include_reasoning is False:
                return {}
            return {"reasoning_content": delta.reasoning, "reasoning": delta.reasoning}
        if delta.call is None:
            return {"content": delta.content} if delta.content else {}
        return {"tool_calls": [_call_delta(delta.call)]} if self._asked.welcome(delta.call) else {}


def _call_delta(call: CallDelta) -> dict[str, Any]:
    if call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}

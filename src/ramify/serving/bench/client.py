"""One request of the load: what is asked, and what its answer said when.

While a run goes on only bytes and times are kept; they are read when nothing else is to be done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from ramify.serving.bench.address import Address
from ramify.serving.bench.connection import Exchange

Endpoint = Literal["chat", "completions"]
_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(slots=True)
class Measured:
    """A request as it went. Times are seconds of `time.perf_counter`, or None for what never came.

    Attributes:
        intended_s: when it was to be sent. Latencies count from here: a late generator or a slow connection is not
            left out of them (no coordinated omission).
        sent_s: when it was sent.
        token_times_s: when each piece of generated text came: of the answer, of its reasoning, or of a tool call.
        ended_s: when the answer was whole.
        prompt_tokens, cached_tokens, output_tokens: as the server counts them; 0 where it does not say.
        text: the answer.
        status: of HTTP; None if there was no answer at all.
        error: why it failed; None if it went well.
        request_id: as the server names it, to find the request in its log.
        turn: of its session, from 0.
    """

    intended_s: float
    turn: int = 0
    sent_s: float | None = None
    token_times_s: list[float] = field(default_factory=list)
    ended_s: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    text: str = ""
    status: int | None = None
    error: str | None = None
    request_id: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the answer came whole."""
        return self.error is None and self.ended_s is not None


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked, and how.

    Attributes:
        model: as the server calls it.
        endpoint: chat, or text completions.
        extra_body: fields of every body, such as ``{"ignore_eos": true}``.
    """

    model: str
    endpoint: Endpoint = "chat"
    extra_body: dict[str, Any] = field(default_factory=dict)

    def body(self, said: Sequence[str], max_tokens: int) -> bytes:
        """The request after a conversation: what user and assistant said in turn, the user's last."""
        prompt: dict[str, Any]
        if self.endpoint == "chat":
            roles = ("user", "assistant")
            prompt = {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]}
        else:
            prompt = {"prompt": "\n".join(said)}
        options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": max_tokens}
        return json.dumps({"model": self.model, **prompt, **options, **self.extra_body}).encode()

    def request(self, address: Address, said: Sequence[str], max_tokens: int) -> bytes:
        """The same with its head."""
        return address.request(_PATHS[self.endpoint], self.body(said, max_tokens))


def read_answer(measured: Measured, exchange: Exchange) -> Iterator[None]:
    """Read what came, a little at each step, so that whoever reads can look up in between."""
    measured.sent_s, measured.status, measured.error = exchange.sent_s, exchange.status, exchange.error
    measured.request_id = exchange.headers.get("x-request-id")
    if exchange.status not in (None, 200):
        said = b"".join(data for _, data in exchange.pieces)[:300].decode(errors="replace")
        measured.error = f"HTTP {exchange.status}: {said}"
        return
    for at_s, event in events_of(exchange.pieces):
        if event == b"[DONE]":
            measured.ended_s = at_s
        elif event:
            _read_event(measured, event, at_s)
        yield
    if measured.ended_s is None and measured.error is None:
        measured.error = "the stream ended before its [DONE]"


def events_of(pieces: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The data of server-sent events, each with the time at which its last byte came; empty for a piece without any.

    Lines may end in any of the three ways, events and line ends may be split over pieces, an event may have several
    lines of data, and what ends the stream need not be followed by an empty line.
    """
    rest = b""
    data: list[bytes] = []
    at_s = 0.0
    for at_s, piece in pieces:
        text = rest + piece
        held = text.endswith(b"\r")  # perhaps the first half of a line's end
        *lines, rest = (text[:-1] if held else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest += b"\r" if held else b""
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield at_s, b"\n".join(data)
                data.clear()
        yield at_s, b""
    if rest.startswith(b"data:") and rest[5:].strip() == b"[DONE]":  # what else is cut off there is no event
        data.append(b"[DONE]")
    if data:
        yield at_s, b"\n".join(data)


def _read_event(measured: Measured, data: bytes, at_s: float) -> None:
    try:
        event = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        measured.error = f"an event cannot be read ({error}): {data[:100].decode(errors='replace')}"
        return
    if event.error:
        measured.error = str(event.error.get("message", event.error) if isinstance(event.error, dict) else event.error)
    for choice in event.choices or ():
        delta = choice.delta or _NOTHING
        measured.text += choice.text or delta.content or ""
        if choice.text or delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls:
            measured.token_times_s.append(at_s)
    if usage := event.usage:
        measured.prompt_tokens = usage.prompt_tokens or 0
        measured.output_tokens = usage.completion_tokens or 0
        measured.cached_tokens = (usage.prompt_tokens_details or _Details()).cached_tokens or 0


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Event(msgspec.Struct):
    """What counts in an event of a stream; servers add much else."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_NOTHING = _Delta()
_DECODER = msgspec.json.Decoder(_Event)

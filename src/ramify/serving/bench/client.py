"""One streamed request, timed. While it runs only bytes and times are kept; they are read when it has ended, so that
the generator takes as little of a shared machine as it can."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import httpx2

Endpoint = Literal["chat", "completions"]
_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(slots=True)
class Measured:
    """A request as it went. Times are seconds of `time.perf_counter`, or None for what never came.

    Attributes:
        intended_s: when it was to be sent. Latencies count from here: a late generator or a slow connection is not
            left out of them (no coordinated omission).
        sent_s: when it was sent.
        token_times_s: when each piece of text came.
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


async def send(
    client: httpx2.AsyncClient, target: Target, said: Sequence[str], max_tokens: int, intended_s: float, turn: int = 0
) -> Measured:
    """Send one request and follow its stream to the end. Never raises for what the server does."""
    import httpx2

    measured = Measured(intended_s, turn)
    body = target.body(said, max_tokens)
    pieces: list[tuple[float, bytes]] = []
    measured.sent_s = time.perf_counter()
    try:
        headers = {"content-type": "application/json"}
        async with client.stream("POST", _PATHS[target.endpoint], content=body, headers=headers) as response:
            measured.status = response.status_code
            measured.request_id = response.headers.get("x-request-id")
            pieces.extend([(time.perf_counter(), data) async for data in response.aiter_raw()])
    except (httpx2.HTTPError, TimeoutError, OSError) as error:
        measured.error = f"{type(error).__name__}: {error}"
    if measured.status is not None and measured.status != 200:
        measured.error = (
            f"HTTP {measured.status}: {b''.join(data for _, data in pieces)[:300].decode(errors='replace')}"
        )
    else:
        _read(measured, pieces)
    return measured


def _read(measured: Measured, pieces: Sequence[tuple[float, bytes]]) -> None:
    """Take the events out of what came."""
    rest = b""
    done = False
    for at_s, data in pieces:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            event = line[5:].strip()
            if event == b"[DONE]":
                done, measured.ended_s = True, at_s
                continue
            _read_event(measured, json.loads(event), at_s)
    if not done and measured.error is None:
        measured.error = "the stream ended before its [DONE]"


def _read_event(measured: Measured, event: dict[str, Any], at_s: float) -> None:
    if event.get("error"):
        measured.error = str(event["error"].get("message", event["error"]))
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        text = choice.get("text") or delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
        if text:
            measured.text += text
            measured.token_times_s.append(at_s)
    if usage := event.get("usage"):
        measured.prompt_tokens = usage.get("prompt_tokens") or 0
        measured.output_tokens = usage.get("completion_tokens") or 0
        measured.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0

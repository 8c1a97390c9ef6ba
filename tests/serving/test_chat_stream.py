"""Thoughts, text and calls of a chat's stream add up to the whole answer, wherever the engine's text is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.engine.outputs import CompletionOutput, RequestMetrics, RequestOutput
from ramify.models.hub import resolve_model
from ramify.sampling import SamplingParams
from ramify.serving import chat_stream
from ramify.serving.chat import AskedChat, whole_chat
from ramify.serving.chat_prompts import ChatPrompt, tool_use
from ramify.serving.prompts import GivenPrompt
from ramify.serving.protocol.chat import ChatRequest
from ramify.text.chat_format import ChatFormat
from ramify.text.chat_template import ChatTemplate
from ramify.text.tokenizer import Tokenizer, load_tokenizer

TEMPLATE = (
    "{% for tool in tools %}<tool_call>{{ tool }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}<think>"
)
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2, "x"]}}\n</tool_call>'
ANSWERS = [
    "so, 3 and 4\n</think>\n\nSeven < eight.",
    f"first</think>Calling:\n{CALL}\n{CALL}",
    "never ends",
    f"a</think>{CALL[:40]}",
    "<th</thi</think> <tool_cal not a call </tool_call>",
]
BODY: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "x"}],
    "tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}],
}


class Model:
    """As much of a served model as the texts of answers need."""

    name = "m"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer


@cache
def style() -> ChatFormat:
    plain = load_tokenizer(resolve_model("nano"))
    return ChatFormat(Tokenizer(plain.backend, {}, ChatTemplate(TEMPLATE, {})))


async def outputs(pieces: list[str]) -> AsyncGenerator[tuple[int, RequestOutput]]:
    answer = CompletionOutput(0, "", [])
    output = RequestOutput("r", None, (1, 2), [answer], RequestMetrics(0.0))
    for number, piece in enumerate(pieces):
        answer.text += piece
        answer.token_ids.append(5)
        if number == len(pieces) - 1:
            answer.finish_reason, output.finished = "stop", True
        yield 0, output


def asked(body: ChatRequest, pieces: list[str]) -> AskedChat:
    model: Any = Model(style().tokenizer)
    prompt = ChatPrompt(GivenPrompt((1, 2), "x<think>"), tool_use(body), "")
    return AskedChat(body, model, style(), prompt, SamplingParams(), outputs(pieces), {"id": "i"})


def told(message: dict[str, Any], reason: str | None) -> tuple[Any, ...]:
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return message.get("reasoning_content") or "", message.get("content") or "", calls, reason


async def added_up(body: ChatRequest, pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    @asynccontextmanager
    async def understood(*_: Any) -> Any:
        yield asked(body, pieces)

    monkeypatch.setattr(chat_stream, "asked_chat", understood)
    message: dict[str, Any] = {"reasoning_content": "", "content": "", "tool_calls": []}
    reason = None
    none: Any = None
    async for chunks in chat_stream.chat_chunks(none, none, body, "i"):
        for choice in (choice for chunk in chunks for choice in chunk["choices"]):
            for name in ("reasoning_content", "content"):
                message[name] += choice["delta"].get(name) or ""
            for call in choice["delta"].get("tool_calls") or ():
                if call["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append({"function": {"name": "", "arguments": ""}})
                for name, piece in call["function"].items():
                    message["tool_calls"][call["index"]]["function"][name] += piece
            reason = choice["finish_reason"] or reason
    return told(message, reason)


@settings(max_examples=60, deadline=None)
@given(
    text=st.sampled_from(ANSWERS),
    cuts=st.lists(st.integers(0, 120), max_size=12),
    options=st.fixed_dictionaries({"include_reasoning": st.booleans(), "parallel_tool_calls": st.booleans()}),
)
def test_a_stream_adds_up_wherever_it_is_cut(text: str, cuts: list[int], options: dict[str, bool]) -> None:
    body = ChatRequest.model_validate({**BODY, **options})
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(text)}), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]

    async def run() -> None:
        [choice] = (await whole_chat(asked(body, [text])))["choices"]
        whole = told(choice["message"], choice["finish_reason"])
        with pytest.MonkeyPatch.context() as monkeypatch:
            assert await added_up(body, pieces, monkeypatch) == whole
        assert (whole[0] == "") == (not options["include_reasoning"])
        assert len(whole[2]) <= (2 if options["parallel_tool_calls"] else 1)

    asyncio.run(run())


def test_thoughts_and_calls_are_split_off() -> None:
    body = ChatRequest.model_validate(BODY)
    answer = asyncio.run(whole_chat(asked(body, [ANSWERS[1]])))
    [choice] = answer["choices"]
    arguments = '{"a": 1, "b": [2, "x"]}'
    assert told(choice["message"], choice["finish_reason"]) == (
        "first", "Calling:", [("add", arguments), ("add", arguments)], "tool_calls"
    )  # fmt: skip

"""A request while it runs: its prompts side by side, each a stream of the engine; what it has used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from typing import Any

from ramify import __version__
from ramify.engine.outputs import RequestOutput
from ramify.sampling import SamplingParams
from ramify.serving.auth import Caller
from ramify.serving.errors import ApiError
from ramify.serving.generation import Call, generate
from ramify.serving.models import ServedModel
from ramify.serving.prompts import GivenPrompt
from ramify.serving.protocol.base import SamplingFields
from ramify.serving.server import Server
from ramify.text.chat_format import ChatFormat
from ramify.text.tokenizer import Tokenizer

Outputs = AsyncGenerator[tuple[int, RequestOutput]]
"""Which prompt has news, and the state of its request."""


def call_of(body: SamplingFields, caller: Caller, request_id: str) -> Call:
    """What a request's generations carry besides prompt and parameters."""
    draws = body.ramify
    return Call(
        request_id,
        caller,
        priority=body.priority or 0,
        cache_salt=body.cache_salt or "",
        timeout_s=body.timeout,
        key=None if draws is None else draws.key,
        first_child=0 if draws is None else draws.child,
    )


async def run(
    server: Server, model: ServedModel, prompts: Sequence[GivenPrompt], params: SamplingParams, call: Call
) -> Outputs:
    """Run a request; leaving the loop cancels it.

    Raises:
        ApiError, RequestError: it cannot be served, or was ended from outside.
        EngineError: it failed while it ran.
    """
    streams = [
        generate(
            server,
            model,
            {"prompt_token_ids": prompt.ids},
            params,
            call if len(prompts) == 1 else replace(call, request_id=f"{call.request_id}-{place}"),
        )
        for place, prompt in enumerate(prompts)
    ]
    outputs = _alone(streams[0]) if len(streams) == 1 else _together(streams)
    async with aclosing(outputs):
        async for place, output in outputs:
            _check_whole(output)
            yield place, output


async def last(outputs: Outputs) -> dict[int, RequestOutput]:
    """The final state of every prompt's request."""
    async with aclosing(outputs):
        return {place: output async for place, output in outputs}


async def _alone(stream: AsyncIterator[RequestOutput]) -> Outputs:
    async with aclosing(stream):  # type: ignore[type-var]
        async for output in stream:
            yield 0, output


async def _together(streams: Sequence[AsyncIterator[RequestOutput]]) -> Outputs:
    """News of several streams as they come; of a stream that is ahead of the reader, only its latest state."""
    news: dict[int, RequestOutput] = {}
    changed = asyncio.Event()

    async def follow(place: int, stream: AsyncIterator[RequestOutput]) -> None:
        async with aclosing(stream):  # type: ignore[type-var]
            async for output in stream:
                news[place] = output
                changed.set()

    tasks = [asyncio.create_task(follow(place, stream)) for place, stream in enumerate(streams)]
    everything = asyncio.gather(*tasks)
    everything.add_done_callback(lambda _: changed.set())
    try:
        while not everything.done() or news:
            await changed.wait()
            changed.clear()
            if everything.done():
                everything.result()
            ready = dict(news)
            news.clear()
            for place, output in ready.items():
                yield place, output
    finally:
        everything.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _check_whole(output: RequestOutput) -> None:
    if output.finished and any(each.finish_reason == "abort" for each in output.outputs):
        raise ApiError(503, "the server ended the request before its answer was whole: send it again", code="aborted")


def usage(prompt: int, completion: int, cached: int, reasoning: int = 0) -> dict[str, Any]:
    """Token counts of a request in OpenAI's form."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def fingerprint(server: Server, model: ServedModel) -> str:
    """Names what the answers of one seed depend on besides the request: the version, the model and its options."""
    source = server.config.models.get(model.name, model.name)
    options = sorted(server.config.engine.items())
    return "fp_" + sha256(f"{__version__}\n{source}\n{options}".encode()).hexdigest()[:12]


def chat_style(server: Server, model: ServedModel) -> ChatFormat:
    """How a model's conversations are written and read."""
    return _style(model.tokenizer, server.config.reasoning_parser, server.config.tool_call_parser)


@lru_cache(maxsize=8)
def _style(tokenizer: Tokenizer, reasoning: str | None, tools: str | None) -> ChatFormat:
    return ChatFormat(tokenizer, reasoning, tools)

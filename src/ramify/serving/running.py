"""A request while it runs: its prompts side by side, each a stream of the engine; what it has used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256

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

SIDE_BY_SIDE = 128
"""Prompts of one request that run at once: it may bring thousands, and is not to fill the queue alone."""


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


def run(
    server: Server, model: ServedModel, prompts: Sequence[GivenPrompt], params: SamplingParams, call: Call
) -> Outputs:
    """Run a request; leaving the loop cancels it.

    Raises:
        ApiError, RequestError: it cannot be served, or was ended from outside; once it is iterated.
        EngineError: it failed while it ran.
    """
    return side_by_side(
        [
            generate(
                server,
                model,
                {"prompt_token_ids": prompt.ids},
                params,
                call if len(prompts) == 1 else replace(call, request_id=f"{call.request_id}-{place}"),
            )
            for place, prompt in enumerate(prompts)
        ]
    )


async def side_by_side(streams: Sequence[AsyncGenerator[RequestOutput]]) -> Outputs:
    """News of streams as they come; leaving the loop ends them all.

    Raises:
        ApiError: 503, one was ended from outside.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as stream:
            async for output in stream:
                _check_whole(output)
                yield 0, output
        return
    async with aclosing(_together(streams)) as together:
        async for place, output in together:
            _check_whole(output)
            yield place, output


async def last(outputs: Outputs) -> dict[int, RequestOutput]:
    """The final state of every prompt's request."""
    async with aclosing(outputs):
        return {place: output async for place, output in outputs}


async def _together(streams: Sequence[AsyncGenerator[RequestOutput]]) -> Outputs:
    """News of several streams as they come; of a stream that is ahead of the reader, only its latest state."""
    news: dict[int, RequestOutput] = {}
    changed = asyncio.Event()
    turns = asyncio.Semaphore(SIDE_BY_SIDE)

    async def follow(place: int, stream: AsyncGenerator[RequestOutput]) -> None:
        async with turns, aclosing(stream):
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


def fingerprint(server: Server, model: ServedModel) -> str:
    """Names what the answers of one seed depend on besides the request: the version, the model and its options."""
    source = server.config.models.get(model.name, model.name)
    options = sorted(server.config.engine.items())
    return "fp_" + sha256(f"{__version__}\n{source}\n{options}".encode()).hexdigest()[:12]


def chat_style(server: Server, model: ServedModel) -> ChatFormat:
    """How a model's conversations are written and read."""
    return style_of(model.tokenizer, server.config.reasoning_parser, server.config.tool_call_parser)


@lru_cache(maxsize=8)
def style_of(tokenizer: Tokenizer, reasoning: str | None = None, tools: str | None = None) -> ChatFormat:
    """The same with named parsers; None finds them from the chat template."""
    return ChatFormat(tokenizer, reasoning, tools)

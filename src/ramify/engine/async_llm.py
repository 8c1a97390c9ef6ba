"""`AsyncLLM`: the same model for asyncio programs: streaming, cancelling, many callers in one batch."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncGenerator, Sequence, Sized
from types import TracebackType
from typing import Any, Self

from ramify.config import EngineConfig
from ramify.engine.async_engine import AsyncEngine
from ramify.engine.engine import Engine
from ramify.engine.loading import load_engine
from ramify.engine.outputs import RequestOutput
from ramify.engine.request import EngineRequest, SequenceOutput
from ramify.engine.requests import RunningRequest
from ramify.engine.text_output import start_of
from ramify.errors import RequestError
from ramify.randomness import BranchKey
from ramify.sampling import Message, Prompt, SamplingParams, TokenIds
from ramify.text.tokenizer import Tokenizer, load_tokenizer

_INTERVAL_A_STREAM_S = 0.001
_LONGEST_INTERVAL_S = 0.05
"""Twenty updates a second read as a flow."""


class AsyncLLM:
    """An engine with text in front, for asyncio.

    Args:
        model: a bundled name ("nano", "nano-drafter", "nano-prm"), a checkpoint's folder, or a hub id.
        engine_options: fields of `EngineConfig`.
    """

    def __init__(self, model: str | os.PathLike[str], **engine_options: Any) -> None:
        core, folder = load_engine(model, EngineConfig.from_options(engine_options))
        self._start(AsyncEngine(core), load_tokenizer(folder))

    @classmethod
    def over(cls, engine: Engine, tokenizer: Tokenizer) -> Self:
        """Text in front of an engine that runs already; closing the one closes the other."""
        llm = cls.__new__(cls)
        llm._start(engine, tokenizer)
        return llm

    def _start(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.engine = engine
        self.config = engine.config
        self.tokenizer = tokenizer
        self._numbers = itertools.count()
        self._running: dict[str, _Stream] = {}
        self._pace = _Pace(self._running)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all requests (their streams finish with "abort") and give the engine's thread back."""
        for request_id in list(self._running):
            await self.abort(request_id)
        await self.engine.close()

    async def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        cache_salt: str = "",
        key: BranchKey | None = None,
        first_child: int = 0,
    ) -> AsyncGenerator[RequestOutput]:
        """Stream a request: each item is the same `RequestOutput`, further on. Leaving the loop cancels the request.

        Args:
            priority: lower runs first under the priority policy.
            cache_salt: prefixes are shared only with requests of the same salt.
            key, first_child: name the branch that the draws belong to; of the seed by default.

        Raises:
            RequestError: it cannot be served, or the id is in use.
            EngineError: it failed while it ran.
        """
        params = sampling_params or SamplingParams()
        ids = self.tokenizer.prompt_ids(prompt)
        text = prompt if isinstance(prompt, str) else None
        async for output in self._stream(ids, text, params, request_id, priority, cache_salt, key, first_child):
            yield output

    async def chat(
        self, messages: Sequence[Message], sampling_params: SamplingParams | None = None, request_id: str | None = None
    ) -> AsyncGenerator[RequestOutput]:
        """The same for a conversation, through the model's chat template."""
        text = self.tokenizer.apply_chat_template(messages)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        async for output in self._stream(ids, text, sampling_params or SamplingParams(), request_id):
            yield output

    async def abort(self, request_id: str) -> None:
        """Cancel a request: its blocks are free before the next step. Unknown ids are ignored."""
        stream = self._running.pop(request_id, None)
        if stream is not None:
            self.engine.drop(stream.request.sequence_ids)
            stream.abort()

    async def abort_all(self, request_id: str) -> bool:
        """Cancel a request and its parts ("ID-0", "ID-1", ...); says whether there was any."""
        found = [name for name in self._running if name == request_id or name.startswith(f"{request_id}-")]
        for name in found:
            await self.abort(name)
        return bool(found)

    async def _stream(
        self,
        ids: TokenIds,
        text: str | None,
        params: SamplingParams,
        request_id: str | None,
        priority: int = 0,
        cache_salt: str = "",
        key: BranchKey | None = None,
        first_child: int = 0,
    ) -> AsyncGenerator[RequestOutput]:
        name = request_id if request_id is not None else f"request-{next(self._numbers)}"
        if name in self._running:
            raise RequestError(f"request id {name!r} is in use: choose another, or wait for it to end")
        stream = _Stream(self.engine, self._pace)
        if key is None:
            key = BranchKey.root(params.seed) if params.seed is not None else BranchKey.root(self.config.seed, name)
        request = EngineRequest(ids, params, key, first_child, priority=priority, cache_salt=cache_salt)
        sequence_ids = await self.engine.add(request, stream.push, start_of(params))
        stream.start(RunningRequest(name, text, ids, params, sequence_ids, self.tokenizer))
        self._running[name] = stream
        try:
            while True:
                await stream.news()
                if stream.request.error is not None:
                    raise stream.request.error
                finished = stream.request.output.finished
                yield stream.request.output
                if finished:  # as it was yielded: what came meanwhile is yielded too
                    return
        finally:
            self._running.pop(name, None)
            self.engine.drop(stream.request.sequence_ids)


class _Stream:
    """One caller's view of its request."""

    request: RunningRequest

    def __init__(self, engine: Engine, pace: _Pace) -> None:
        self._engine = engine
        self._pace = pace
        self._changed = asyncio.Event()
        self._told_s = 0.0
        self._early: list[SequenceOutput] | None = []

    def start(self, request: RunningRequest) -> None:
        """The sequences' ids are known now; take what came before."""
        self.request = request
        early, self._early = self._early or [], None
        for output in early:
            self.push(output)

    def push(self, output: SequenceOutput) -> None:
        if self._early is not None:
            self._early.append(output)
            return
        if self.request.output.finished:
            return  # it was aborted while this was on its way, and an end is not taken back
        if self.request.push(output):
            self._engine.finish(output.sequence_id)
        if self.request.output.finished or self.request.error is not None:
            self._changed.set()
        elif not self._changed.is_set():
            self._pace.tell(self, self._told_s)

    def tell(self) -> None:
        """There is news; whoever waits for it gets it now."""
        self._changed.set()

    def abort(self) -> None:
        for completion in self.request.output.outputs:
            completion.finish_reason = completion.finish_reason or "abort"
        self.request.output.finished = True
        self._changed.set()

    async def news(self) -> None:
        await self._changed.wait()
        self._changed.clear()
        self._told_s = time.monotonic()


class _Pace:
    """How often streams hand on their news: each token alone while they are few, some at a time where they are many and
    quick, since waking a reader and writing to its connection cost more than drawing a token of a small model.

    Args:
        running: all streams.
    """

    def __init__(self, running: Sized) -> None:
        self._running = running
        self._late: set[_Stream] = set()

    def tell(self, stream: _Stream, told_s: float) -> None:
        """A stream has news, and handed some on at `told_s` (monotonic clock, 0 for never)."""
        interval_s = min(_LONGEST_INTERVAL_S, _INTERVAL_A_STREAM_S * (len(self._running) - 1))
        if time.monotonic() - told_s >= interval_s:
            stream.tell()
            return
        if not self._late:
            asyncio.get_running_loop().call_later(interval_s, self._tell_late)
        self._late.add(stream)

    def _tell_late(self) -> None:
        late, self._late = self._late, set()
        for stream in late:
            stream.tell()

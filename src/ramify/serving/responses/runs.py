"""`ResponseRuns`: responses while they are made, for the caller that waits and in the background.

Every answer comes out of the chat's own stream: there is no second way to the model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ramify.errors import PromptTooLongError, RequestError
from ramify.serving.auth import Caller
from ramify.serving.errors import ApiError
from ramify.serving.protocol.responses import ResponseRequest
from ramify.serving.responses.background import BackgroundRun
from ramify.serving.responses.items import Item
from ramify.serving.responses.store import ResponseStore
from ramify.serving.responses.turn import Turn, encoded, events_of, failed, new_turn

if TYPE_CHECKING:
    from ramify.serving.server import Server

_log = logging.getLogger(__name__)
BEAT_S = 5.0
"""Seconds between the states that are stored of a background response."""
MAX_REMEMBERED = 64
"""Ended background responses whose events can still be streamed."""
_SHARED_STORAGE = "postgresql"


class ResponseRuns:
    """The responses of a server.

    Args:
        server: whose part this is.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._runs: dict[str, BackgroundRun] = {}
        shared = (server.config.storage_url or "").startswith(_SHARED_STORAGE)
        self._store = ResponseStore(server.storage, shared, self._runs_here)
        self._beating: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """End what runs in the background; it is marked as interrupted."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await asyncio.gather(*(run.stop(interrupted=True) for run in self._runs.values()))

    async def complete(self, caller: Caller, body: ResponseRequest) -> dict[str, Any]:
        """The whole response.

        Raises:
            ApiError, RequestError, RequestValidationError, EngineError: it cannot be served, or failed.
        """
        turn = await new_turn(self._server, self._store, caller, body)
        turn.builder.begin()
        async with aclosing(events_of(self._server, turn)) as news:
            async for _ in news:
                pass
        turn.builder.finish()
        await self._keep(turn)
        return turn.response

    async def stream(self, caller: Caller, body: ResponseRequest) -> AsyncGenerator[bytes]:
        """The events of a response; leaving cancels it. Before the first event errors are raised, then told.

        Raises:
            ApiError, RequestError, RequestValidationError, EngineError: it cannot be served.
        """
        turn = await new_turn(self._server, self._store, caller, body)
        begun = False
        try:
            async with aclosing(events_of(self._server, turn)) as news:
                async for events in news:
                    yield encoded(events if begun else turn.builder.begin() + events)
                    begun = True
            last = turn.builder.finish()
            await self._keep(turn)
        except Exception as error:
            if not begun:
                raise
            last = failed(turn, error)
        yield encoded(last)

    async def start(self, caller: Caller, body: ResponseRequest) -> BackgroundRun:
        """A response in the background.

        Raises:
            ApiError, RequestError, RequestValidationError: it cannot be served.
            QuotaError, StorageError: it cannot be stored.
        """
        running = sum(not run.ended for run in self._runs.values())
        if running >= self._server.config.max_waiting:
            message = f"{running} responses run in the background already: send it again when one has ended"
            raise ApiError(429, message, code="too_many_background_responses", headers={"retry-after": "10"})
        turn = await new_turn(self._server, self._store, caller, body)
        await self._check(turn)
        run = BackgroundRun(self._server, self._store, turn)
        self._runs[turn.id] = run
        try:
            await run.start()
        except BaseException:
            del self._runs[turn.id]
            raise
        self._forget_some()
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())
        return run

    async def get(self, caller: Caller, response_id: str) -> dict[str, Any]:
        """How a response stands. Raises ApiError: 404, there is none."""
        run = self._running(caller, response_id)
        if run is not None:
            return run.turn.builder.snapshot()
        return (await self._store.get(caller.owner, response_id)).response

    def follow(self, caller: Caller, response_id: str, after: int | None) -> AsyncGenerator[bytes]:
        """The events of a background response. Raises ApiError: 404, they are not there (any more)."""
        run = self._runs.get(response_id)
        if run is None or run.turn.caller.owner != caller.owner:
            raise ApiError(
                404,
                f"there are no events of response {response_id[:80]!r}: only a background response has them, until "
                "some time after its end; ask without stream",
                code="not_found",
            )
        return run.follow(after)

    async def cancel(self, caller: Caller, response_id: str) -> dict[str, Any]:
        """End a background response; one that has ended stays as it is.

        Raises:
            ApiError: 404, there is none.
            RequestError: it is no background response.
        """
        run = self._running(caller, response_id)
        if run is not None:
            await run.stop()
        response = (await self._store.get(caller.owner, response_id)).response
        if not response["background"]:
            raise RequestError(f"response {response_id!r} is no background response: end it by closing its connection")
        return response

    async def delete(self, caller: Caller, response_id: str) -> None:
        """Delete a response; it is ended first. Raises ApiError: 404, there is none."""
        run = self._running(caller, response_id)
        if run is not None:
            await run.stop(forget=True)
        await self._store.delete(caller.owner, response_id)
        self._runs.pop(response_id, None)

    async def input_items(self, caller: Caller, response_id: str) -> list[Item]:
        """The whole input of a response, earlier turns included, in order. Raises ApiError: 404, there is none."""
        record = await self._store.get(caller.owner, response_id)
        earlier = await self._store.conversation(caller.owner, record.response["previous_response_id"])
        return [*earlier, *record.items]

    async def _keep(self, turn: Turn) -> None:
        if turn.body.kept:
            await self._store.put(turn.caller.owner, turn.record)

    async def _check(self, turn: Turn) -> None:
        """Find what is wrong with a request before its client is told that it runs."""
        from ramify.serving.chat import asked_chat  # both are made of what takes a Server
        from ramify.serving.generation import check_form

        async with asked_chat(self._server, turn.caller, turn.chat, turn.id, "chat.completion.chunk") as asked:
            length, limit = len(asked.prompt.given.ids), asked.model.max_model_len
            if length >= limit:
                raise PromptTooLongError(
                    f"the conversation has {length:,} tokens; the model's context is {limit:,}, the answer included: "
                    "send less"
                )
            await check_form(self._server, asked.model, asked.params)

    def _running(self, caller: Caller, response_id: str) -> BackgroundRun | None:
        run = self._runs.get(response_id)
        return run if run is not None and run.turn.caller.owner == caller.owner and not run.ended else None

    def _runs_here(self, response_id: str) -> bool:
        return response_id in self._runs and not self._runs[response_id].ended

    def _forget_some(self) -> None:
        ended = [response_id for response_id, run in self._runs.items() if run.ended]
        for response_id in ended[: max(0, len(ended) - MAX_REMEMBERED)]:
            del self._runs[response_id]

    async def _beat(self) -> None:
        """Store how the background responses stand, so that others see that they are alive."""
        while True:
            await asyncio.sleep(BEAT_S)
            for run in [run for run in self._runs.values() if not run.ended]:
                try:
                    await run.save()
                except Exception:
                    _log.exception("the state of a background response could not be stored; it goes on")

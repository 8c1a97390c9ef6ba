"""Stored responses: a response, the input it answers, and the chain of earlier ones that it goes on from."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ramify.errors import RequestError
from ramify.serving.errors import ApiError
from ramify.serving.responses.items import Item
from ramify.serving.storage import Storage

ENDED = frozenset({"completed", "incomplete", "failed", "cancelled"})
STALE_S = 30.0
"""A background response whose server has said nothing for so long is taken for interrupted."""
INTERRUPTED = "the server ended before the response was whole: create it again"
MAX_TURNS = 4096


class Record(msgspec.Struct):
    """What is stored of a response.

    Attributes:
        response: the object.
        items: its own input.
        instance: the server that works on it.
        alive_at: when that server last said so, Unix time.
    """

    response: dict[str, Any]
    items: list[Item]
    instance: str = ""
    alive_at: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.response["status"] in ENDED


class ResponseStore:
    """Responses of all owners.

    Args:
        storage: of the server.
        shared: other servers may be working on the same storage.
        runs_here: whether this server works on a response.
    """

    def __init__(
        self, storage: Storage, shared: bool, runs_here: Callable[[str], bool] = lambda response_id: False
    ) -> None:
        self._runs_here = runs_here
        self.instance = secrets.token_hex(8)
        self._responses = storage.responses
        self._patience_s = STALE_S if shared else 0.0
        self._decoder = msgspec.json.Decoder(Record)

    async def put(self, owner: str, record: Record) -> None:
        """Store a response or its next state.

        Raises:
            QuotaError, StorageError: it cannot be stored.
        """
        record.instance, record.alive_at = self.instance, time.time()
        await self._responses.put(owner, record.response["id"], msgspec.json.encode(record))

    async def get(self, owner: str, response_id: str) -> Record:
        """An owner's response. One that no server works on any more is marked failed.

        Raises:
            ApiError: 404, there is none.
        """
        stored = await self._responses.get(owner, response_id)
        if stored is None:
            raise not_found(response_id)
        record = self._decoder.decode(stored.data)
        if not record.ended and not self._runs_here(response_id) and self._abandoned(record):
            record.response |= {"status": "failed", "error": {"code": "server_error", "message": INTERRUPTED}}
            await self.put(owner, record)
        return record

    async def delete(self, owner: str, response_id: str) -> None:
        """Delete an owner's response. Raises ApiError: 404, there is none."""
        if not await self._responses.delete(owner, response_id):
            raise not_found(response_id)

    async def conversation(self, owner: str, response_id: str | None) -> list[Item]:
        """All items up to a response's end: inputs and outputs of it and of those before it.

        Raises:
            ApiError: 404, one of them is not there (any more).
            RequestError: it has not ended, or the chain is too long.
        """
        turns: list[list[Item]] = []
        while response_id is not None:
            if len(turns) == MAX_TURNS:
                raise RequestError(f"the conversation has more than {MAX_TURNS} turns: start a new one")
            record = await self.get(owner, response_id)
            if not record.ended:
                raise RequestError(f"response {response_id!r} has not ended: wait for it, or cancel it")
            turns.append([*record.items, *filter(_whole, record.response["output"])])
            response_id = record.response["previous_response_id"]
        return [item for turn in reversed(turns) for item in turn]

    def _abandoned(self, record: Record) -> bool:
        return record.instance == self.instance or time.time() - record.alive_at >= self._patience_s


def not_found(response_id: str) -> ApiError:
    """There is no such response, or it is somebody else's."""
    return ApiError(404, f"there is no response {response_id[:80]!r}", code="not_found")


def _whole(item: Item) -> bool:
    """Whether an item can go back to the model: half a call cannot."""
    return bool(item["type"] != "function_call" or item["status"] == "completed")

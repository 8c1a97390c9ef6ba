"""A small OpenAI-compatible server on loopback for tests: answers from a backend, streams, and fails on command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ramify.backends.base import Backend, Node
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams

STATUS = {"429": 429, "500": 500, "503": 503, "400": 400, "401": 401}


@dataclass
class Server:
    """What the server does and has seen.

    Attributes:
        faults: one is taken for each request: a status, "half" (the connection breaks in the middle), "cut" (the stream
            ends too early, politely), "silence" (nothing comes).
        bodies: every request that was read.
        closed: streams that the client left before their end.
    """

    backend: Backend
    faults: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    closed: int = 0
    url: str = ""
    pause_s: float = 0.0

    async def complete(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append(body)
        fault = self.faults.pop(0) if self.faults else ""
        if fault in STATUS:
            return JSONResponse(
                {"error": {"message": f"told to fail with {fault}"}}, STATUS[fault], {"retry-after": "0"}
            )
        if fault == "silence":
            await asyncio.sleep(3)
        chat = "messages" in body
        if body.get("echo"):
            return JSONResponse(await self._echo(body))
        nodes = await self._draw(body, chat)
        return StreamingResponse(self._stream(body, chat, nodes, fault), media_type="text/event-stream")

    async def _draw(self, body: dict[str, Any], chat: bool) -> list[tuple[str, Node]]:
        """The new part of each answer with its node."""
        key, first = BranchKey.root(body.get("seed") or len(self.bodies)), 0
        if "ramify" in body:
            given = body["ramify"]["branch_key"]
            key, first = BranchKey(int(given[:16], 16), int(given[16:], 16)), body["ramify"]["child"]
        messages = tuple(body["messages"]) if chat else body["prompt"]
        before = ""
        if chat and messages[-1]["role"] == "assistant":
            before, messages = messages[-1]["content"], messages[:-1]
        node = await self.backend.root(messages, key)
        if before:
            node = await self.backend.append(node, self.backend.encode(before), key)
        stop = body.get("stop") or ()
        params = SamplingParams(
            temperature=body["temperature"], max_tokens=body.get("max_tokens"), stop=stop, logprobs=0
        )
        drawn = [child async for child in self.backend.extend(node, params, body.get("n", 1), first)]
        self.backend.release([*drawn, node])
        return [(child.text[len(node.text) :], child) for child in drawn]

    async def _stream(
        self, body: dict[str, Any], chat: bool, drawn: list[tuple[str, Node]], fault: str
    ) -> AsyncIterator[bytes]:
        ended = False
        try:
            for index, (text, node) in enumerate(drawn):
                pieces = _pieces(text, node)
                for at, (piece, logprob) in enumerate(pieces):
                    if fault in ("half", "cut") and index == len(drawn) - 1 and at >= len(pieces) // 2:
                        ended = True
                        if fault == "half":
                            raise ConnectionError("told to break off")
                        return
                    yield _event(_choice(chat, index, piece, logprob, bool(body.get("logprobs"))))
                    await asyncio.sleep(self.pause_s)
                yield _event(
                    _choice(chat, index, "", None, False, "length" if node.finish_reason == "length" else "stop")
                )
            usage = {"prompt_tokens": 7, "completion_tokens": sum(node.num_new_tokens for _, node in drawn)}
            yield _event({"choices": [], "usage": {**usage, "total_tokens": 0}})
            yield b"data: [DONE]\n\n"
            ended = True
        finally:
            self.closed += not ended

    async def _echo(self, body: dict[str, Any]) -> dict[str, Any]:
        """Every character is a token of log-probability minus its place."""
        prompt = body["prompt"]
        places = list(range(len(prompt)))
        logprobs = {
            "tokens": list(prompt),
            "text_offset": places,
            "token_logprobs": [None, *(-float(i) for i in places[1:])],
        }
        choice = {"index": 0, "text": prompt, "finish_reason": "length", "logprobs": {**logprobs, "top_logprobs": None}}
        return {"id": "x", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]}


def _pieces(text: str, node: Node) -> list[tuple[str, float | None]]:
    """A text in as many pieces as it has tokens, the first ones a character long."""
    count = node.num_new_tokens
    logprobs = list(node.token_logprobs or ())[-count:] or [None] * count
    texts = [*text[: count - 1], text[count - 1 :]] if count else []
    return list(zip([*texts, *[""] * (count - len(texts))], logprobs, strict=True))


def _choice(
    chat: bool, index: int, piece: str, logprob: float | None, tell: bool, reason: str | None = None
) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": None}
    if chat:
        choice["delta"] = {"content": piece}
        if tell:
            choice["logprobs"] = {"content": [{"token": piece, "logprob": logprob, "bytes": None, "top_logprobs": []}]}
    else:
        choice["text"] = piece
        if tell:
            choice["logprobs"] = {
                "tokens": [piece],
                "token_logprobs": [logprob],
                "top_logprobs": None,
                "text_offset": [0],
            }
    return {"id": "x", "object": "chunk", "created": 0, "model": "m", "choices": [choice]}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"id": "x", "object": "chunk", "created": 0, "model": "m", **data}).encode() + b"\n\n"


@asynccontextmanager
async def serving(backend: Backend, **options: Any) -> AsyncIterator[Server]:
    """The server on a free port of 127.0.0.1."""
    server = Server(backend, **options)
    handler: Callable[..., Any] = server.complete
    routes = [Route(f"/v1/{name}", handler, methods=["POST"]) for name in ("chat/completions", "completions")]
    config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical")
    web = uvicorn.Server(config)
    task = asyncio.create_task(web.serve())
    while not web.started:
        await asyncio.sleep(0.01)
    server.url = f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        web.should_exit = True
        await task

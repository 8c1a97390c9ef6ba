"""Answers without HTTP are those of the endpoints; what a batch cannot have is refused."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError

from ramify.errors import RequestError
from ramify.serving.auth import Caller
from ramify.serving.config import ServerConfig
from ramify.serving.dispatch import CHAT, RESPONSES, TEXT, answer
from ramify.serving.errors import ApiError, as_api_error
from ramify.serving.server import Server

BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]},
    TEXT: {"model": "gpt-9", "prompt": "x"},
    RESPONSES: {"model": "gpt-9", "input": "x"},
}


@pytest.fixture
def server() -> Server:
    """One that was not started: nothing here reaches a model."""
    return Server(ServerConfig({"nano": "nano"}, storage_url=":memory:"))


@pytest.mark.parametrize("endpoint", BODIES)
async def test_a_body_is_read_as_the_endpoint_reads_it(server: Server, endpoint: str) -> None:
    with pytest.raises(RequestValidationError) as caught:
        await answer(server, Caller(), endpoint, {**BODIES[endpoint], "beam_width": 3}, "r")
    assert as_api_error(caught.value).param == "beam_width"
    with pytest.raises(RequestError, match="no streams"):
        await answer(server, Caller(), endpoint, {**BODIES[endpoint], "stream": True}, "r")


async def test_another_endpoint_is_not_found(server: Server) -> None:
    with pytest.raises(ApiError, match="'/v1/audio'") as caught:
        await answer(server, Caller(), "/v1/audio", {}, "r")
    assert caught.value.status == 404

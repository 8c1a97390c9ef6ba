"""The server as the backend of methods that run elsewhere: with branch keys they give what the local engine gives."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ramify import LLM
from ramify.backends.local import LocalBackend
from ramify.backends.openai import OpenAIBackend
from ramify.backends.openai_client import Endpoint
from ramify.randomness import BranchKey
from ramify.scoring import Problem
from ramify.strategies import Result, parse_strategy, solve

QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."


def endpoint(url: str, **more: object) -> Endpoint:
    return Endpoint(f"{url}/v1", "nano", api_key="none", max_model_len=512, retries=0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["self-consistency:n=3", "beam:n=4,m=2,scorer=logprob"])
def test_a_method_on_a_server_gives_what_it_gives_on_the_local_engine(url: str, spec: str) -> None:
    async def far() -> Result:
        place = endpoint(url, branch_keys=True, continuation="continue_final_message")
        async with OpenAIBackend(place) as backend:
            return await solve(parse_strategy(spec), Problem("1", QUESTION), backend, seed=3)

    there = asyncio.run(far())
    with LLM("nano") as llm:
        here = llm.solve(QUESTION, spec, seed=3)
    assert (there.text, there.answer) == (here.text, here.answer)
    # A branch that is dropped runs on until the server hears of it.
    drops = spec.startswith("beam")
    assert there.ledger.generated >= here.ledger.generated
    assert drops or there.ledger.generated == here.ledger.generated


def test_given_text_is_scored_as_on_the_local_engine(url: str) -> None:
    tail = "7 * 3 = 21\n"

    async def far() -> list[float]:
        async with OpenAIBackend(endpoint(url, api="completions", echo=True)) as backend:
            root = await backend.root(f"{QUESTION}\n", BranchKey.root(1))
            return list((await backend.logprobs(root, [backend.encode(tail)]))[0])

    async def here() -> list[float]:
        async with LocalBackend.load("nano") as backend:
            root = await backend.root({"prompt": f"{QUESTION}\n"}, BranchKey.root(1))
            return list((await backend.logprobs(root, [backend.encode(tail)]))[0])

    np.testing.assert_allclose(asyncio.run(far()), asyncio.run(here()), atol=1e-5)

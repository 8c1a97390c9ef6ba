"""A method on a served model draws what it would draw on the model itself."""

from __future__ import annotations

import asyncio
from typing import Any

from ramify.backends.base import StepEnd
from ramify.backends.local import LocalBackend
from ramify.backends.openai import OpenAIBackend
from ramify.backends.openai_client import Endpoint
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams

MESSAGES = ({"role": "user", "content": "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."},)
PARAMS = SamplingParams(temperature=1.0, max_tokens=16)


async def texts_of(backend: Any) -> list[str]:
    """Two levels of branches: three steps, and an answer behind each."""
    root = await backend.root(MESSAGES, BranchKey.root(11, "puzzle"))
    steps = [node async for node in backend.extend(root, PARAMS, 3, 0, StepEnd(stop=("\n",)))]
    found = {node.key: node.text for node in steps}
    for step in steps:
        async for node in backend.extend(step, PARAMS, 1):
            found[node.key] = node.text
    return [text for _, text in sorted(found.items(), key=lambda item: (item[0].high, item[0].low))]


def test_branches_on_the_server_equal_local_ones(url: str) -> None:
    endpoint = Endpoint(f"{url}/v1", "nano", api_key="none", branch_keys=True, continuation="continue_final_message")

    async def run() -> tuple[list[str], list[str]]:
        async with OpenAIBackend(endpoint) as remote:
            served = await texts_of(remote)
        async with LocalBackend.load("nano") as local:
            return served, await texts_of(local)

    served, own = asyncio.run(run())
    assert served == own
    assert len(set(own)) > 2

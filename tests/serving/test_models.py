"""Models of one server: backends on them end without ending them."""

from __future__ import annotations

from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.serving.auth import Caller
from ramify.serving.config import ServerConfig
from ramify.serving.models import Models

DRAW = SamplingParams(max_tokens=6, temperature=1.0, ignore_eos=True)


async def test_a_backend_ends_its_own_branches_and_nobody_elses() -> None:
    models = Models(ServerConfig({"nano": "nano"}, engine={"num_kv_blocks": 100}))
    await models.start()
    try:
        async with models.use("nano", Caller()) as model:
            total = model.engine.stats().blocks_total
            async with models.backend("nano", Caller(), rewards=["nano-prm"], cache_salt="a") as backend:
                root = await backend.root("Tom has 3 apples.", BranchKey.root(0))
                nodes = [node async for node in backend.extend(root, DRAW, 3)]
                (score,) = await backend.reward(nodes[:1], "nano-prm")
                assert score.num_tokens > 0
            assert model.engine.stats().blocks_free == total
            outputs = [output async for output in model.llm.generate("Tom", DRAW)]
            assert outputs[-1].finished
    finally:
        await models.close()

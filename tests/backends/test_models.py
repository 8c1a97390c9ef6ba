"""Several models in one process: each tree runs on its own model, and all free their memory."""

from pathlib import Path

import pytest

from ramify.backends.local import LocalBackend
from ramify.errors import RequestError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from tests.engine.harness import checkpoint

DRAW = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)


async def greedy(backend: LocalBackend, model: str | None) -> tuple[int, ...]:
    root = await backend.root("Tom has 12 apples", BranchKey.root(1), model=model)
    (node,) = [child async for child in backend.extend(root, DRAW, 1)]
    backend.release([node, root])
    return node.tokens


async def test_each_tree_runs_on_its_own_model_and_one_text_carries_over() -> None:
    small: Path = checkpoint("llama3")
    async with LocalBackend.load(checkpoint("llama2"), num_kv_blocks=40) as alone:
        expected = await greedy(alone, None)
    async with LocalBackend.load(small, num_kv_blocks=40) as alone:
        other = await greedy(alone, None)
    async with LocalBackend.load(checkpoint("llama2"), models=[str(small)], num_kv_blocks=40) as backend:
        assert (await greedy(backend, None), await greedy(backend, str(small))) == (expected, other)
        assert expected != other
        root = await backend.root("Tom has 12 apples", BranchKey.root(1), model=str(small))
        (step,) = [child async for child in backend.extend(root, DRAW.with_(max_tokens=3), 1)]
        main = await backend.root("Tom has 12 apples", BranchKey.root(1))
        copied = await backend.append(main, backend.encode(step.text), BranchKey.root(2))
        assert copied.model is None
        assert copied.text == step.text
        backend.release([root, step, main, copied])
        for served in backend._models.values():
            assert served.engine.core.num_free_blocks == served.engine.core.scheduler.pool.num_usable
        with pytest.raises(RequestError, match="no model 'x'"):
            await backend.root("Tom", BranchKey.root(1), model="x")

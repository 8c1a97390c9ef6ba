"""An engine in a process of its own gives what the engine of this process gives: tokens, texts, meters, counters."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ramify.backends.local import LocalBackend, Served
from ramify.engine.async_engine import AsyncEngine
from ramify.engine.async_llm import AsyncLLM
from ramify.engine.core import EngineCore
from ramify.engine.engine import Engine, settle
from ramify.engine.loading import load_engine
from ramify.engine.request import EngineRequest, SequenceOutput, StepEnd
from ramify.errors import PromptTooLongError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.text.tokenizer import load_tokenizer
from tests.engine.harness import checkpoint, prompt
from tests.engine.remote.conftest import OPTIONS
from tests.engine.remote.workload import cancelled, tree

pytestmark = pytest.mark.asyncio(loop_scope="package")


def here() -> tuple[Served, EngineCore]:
    """The same engine in this process."""
    core, folder = load_engine(checkpoint("llama2"), OPTIONS)
    return Served(AsyncEngine(core), load_tokenizer(folder)), core


async def quiet(engine: Engine) -> None:
    """Nothing of earlier tests runs any more."""
    await engine.dropped([])


async def test_trees_are_the_same_alone_and_under_load_and_so_is_every_count(remote: Served) -> None:
    served, _ = here()
    expected = []
    for seed in range(5):  # one after the other, in this process
        backend = LocalBackend.sharing(served)
        expected.append(await tree(backend, seed))
        await backend.close()
    await quiet(remote.engine)
    before = remote.engine.stats()
    backend = LocalBackend.sharing(remote)
    noise = [asyncio.create_task(cancelled(backend, seed)) for seed in range(3)]
    found = await asyncio.gather(*(tree(backend, seed) for seed in range(5)))
    await asyncio.gather(*noise)
    await backend.close()
    for (nodes, usage), (wanted_nodes, wanted_usage) in zip(found, expected, strict=True):
        assert nodes == wanted_nodes
        assert (usage[0], *usage[2:]) == (wanted_usage[0], *wanted_usage[2:])  # what was cached depends on the others
    now = remote.engine.stats()
    assert now.generation_tokens - before.generation_tokens == backend.usage.generated
    assert (now.running, now.waiting, now.parked, now.blocks_used) == (0, 0, 0, 0)
    await served.engine.close()


async def test_nothing_is_drawn_behind_a_stop_string_or_a_step(remote: Served) -> None:
    backend = LocalBackend.sharing(remote)
    await quiet(remote.engine)
    before = remote.engine.stats()
    root = await backend.root("Tom", BranchKey.root(2))
    params = SamplingParams(max_tokens=60, temperature=1.0, ignore_eos=True, stop=("e", "ar"))
    nodes = [node async for node in backend.extend(root, params, 12)]
    await backend.close()
    assert any(node.finish_reason == "stop" for node in nodes)
    drawn = sum(node.num_new_tokens for node in nodes)
    now = remote.engine.stats()
    assert now.generation_tokens - before.generation_tokens == drawn == root.usage.generated
    assert now.prompt_tokens - before.prompt_tokens == root.usage.prompt


async def test_streams_say_what_the_same_streams_say_here(remote: Served) -> None:
    params = SamplingParams(temperature=1.0, max_tokens=24, seed=1, stop=["e", "zzz"], logprobs=2, n=2)
    served, _ = here()
    texts = {}
    for place, each in (("here", served), ("remote", remote)):
        llm = AsyncLLM.over(each.engine, each.tokenizer)

        async def last(number: int, llm: AsyncLLM = llm) -> list[object]:
            output = [each async for each in llm.generate(f"Tom has {number}", params)][-1]
            return [(c.text, c.token_ids, c.finish_reason, c.stop_reason, c.logprobs) for c in output.outputs]

        texts[place] = await asyncio.gather(*map(last, range(6)))
    assert texts["here"] == texts["remote"]
    await served.engine.close()


async def test_scores_of_positions_cross_as_they_are(remote: Served) -> None:
    request = EngineRequest(
        prompt(30, 3), SamplingParams(max_tokens=0), BranchKey.root(0), score_positions=(3, 29), score_token_ids=(7, 9)
    )
    served, _ = here()
    found = []
    for engine in (remote.engine, served.engine):
        done: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
        await engine.add(request, settle(done))
        found.append((await done).scores)
    assert found[0] is not None
    np.testing.assert_array_equal(found[0], found[1])
    await served.engine.close()


async def test_refusals_are_the_same_errors_and_leave_nothing(remote: Served) -> None:
    def nothing(output: SequenceOutput) -> None:
        raise AssertionError(output)

    engine = remote.engine
    params = SamplingParams(max_tokens=4)
    with pytest.raises(PromptTooLongError, match="shorten it by"):
        await engine.add(EngineRequest((5,) * 600, params, BranchKey.root(0)), nothing)
    with pytest.raises(RequestError, match="empty"):
        await engine.add(EngineRequest((), params, BranchKey.root(0)), nothing)
    with pytest.raises(RequestError, match="cannot fork"):
        await engine.fork_and_extend(10**9, BranchKey.root(0), 1, 0, params, nothing)
    with pytest.raises(RequestError, match="cannot append"):
        await engine.append(10**9, (4,))
    with pytest.raises(RequestError, match="handed to the engine"):
        await engine.add(EngineRequest((10**30,), params, BranchKey.root(0)), nothing)
    bent = SamplingParams(max_tokens=4)
    object.__setattr__(bent, "top_p", 7.0)
    with pytest.raises(RequestError, match="top_p"):
        await engine.add(EngineRequest((5,), bent, BranchKey.root(0)), nothing)
    engine.finish(10**9)
    engine.drop([10**9])
    await quiet(engine)
    assert engine.stats().blocks_free == engine.stats().blocks_total


async def test_the_map_of_the_pool_tells_free_cached_held_and_shared_blocks(remote: Served) -> None:
    await quiet(remote.engine)
    for engine in (remote.engine, here()[0].engine):
        total, before = engine.stats().blocks_total, await engine.kv_map()
        assert len(before) == total
        assert set(before) <= {"f", "c"}
        backend = LocalBackend.sharing(Served(engine, remote.tokenizer))
        root = await backend.root(prompt(34, seed=77), BranchKey.root(9))
        params = SamplingParams(max_tokens=4, ignore_eos=True)
        nodes = [node async for node in backend.extend(root, params, n=3, step_end=StepEnd(max_tokens=2))]
        during = await engine.kv_map()
        assert during.count("s") == 34 // engine.config.block_size  # whole blocks of the prompt, under three branches
        assert during.count("h") >= 3
        assert during.count("s") + during.count("h") == engine.stats().blocks_used
        backend.release(nodes)
        await quiet(engine)
        after = await engine.kv_map()
        assert set(after) <= {"f", "c"}
        assert "c" in after

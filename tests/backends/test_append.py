"""Known tokens behind a branch, on both backends: what follows is what the model says behind exactly those tokens."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from ramify.backends.base import Node, kept, path_details
from ramify.backends.local import LocalBackend
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import PromptTooLongError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from tests.engine.harness import checkpoint

DRAW = SamplingParams(max_tokens=6, temperature=1.0, ignore_eos=True, logprobs=3)
FORCED = (7, 9, 11)


@pytest.fixture
async def backend() -> AsyncIterator[LocalBackend]:
    loaded = LocalBackend.load(checkpoint("llama2"), num_kv_blocks=60, max_num_seqs=16)
    async with asyncio.timeout(60), loaded:
        yield loaded


async def draw(backend, node: Node, n: int = 1, **changes) -> list[Node]:
    return [child async for child in backend.extend(node, DRAW.with_(**changes), n)]


async def greedy_behind(backend: LocalBackend, node: Node) -> tuple[int, ...]:
    (child,) = await draw(backend, node, temperature=0)
    return child.tokens


async def plain_run(backend: LocalBackend, prompt_ids, tokens) -> tuple[int, ...]:
    """The same greedy continuation with the forced tokens given as part of a prompt."""
    root = await backend.root((*prompt_ids, *tokens), BranchKey.root(99))
    (child,) = await draw(backend, root, temperature=0)
    return (*tokens, *child.tokens)


@pytest.mark.parametrize("forced", [FORCED, FORCED[:1]])
async def test_what_follows_forced_tokens_is_what_follows_them_in_a_prompt(backend, forced):
    root = await backend.root("Tom has 12 apples", BranchKey.root(1))
    (open_node,) = await draw(backend, root, max_tokens=5)
    for node in (root, open_node):
        added = await backend.append(node, forced, BranchKey.root(5, "a"))
        assert added.tokens == (*node.tokens, *forced)
        assert added.open
        assert added.num_new_tokens == 0
        assert added.token_logprobs is None
        assert await greedy_behind(backend, added) == await plain_run(backend, root.prompt_tokens, added.tokens)


async def test_a_finished_answer_is_cut_and_goes_on_from_the_cut(backend):
    root = await backend.root("Tom has 12 apples", BranchKey.root(1))
    (done,) = await draw(backend, root, max_tokens=8)
    assert done.finish_reason == "length"
    added = await backend.append(done, FORCED, BranchKey.root(5, "b"), keep=3)
    assert added.tokens == (*done.tokens[:3], *FORCED)
    assert added.parent is root
    assert added.num_new_tokens == 3
    assert await greedy_behind(backend, added) == await plain_run(backend, root.prompt_tokens, added.tokens)
    backend.release([added, done, root])
    assert not backend.engine.core._sequences


async def test_the_text_is_that_of_all_tokens_and_prompt_tokens_are_counted(backend):
    root = await backend.root("Tom has 12 apples", BranchKey.root(1))
    ids = backend.encode(" and 3 pears")
    added = await backend.append(root, ids, BranchKey.root(5))
    assert added.text == backend.tokenizer.decode(ids)
    assert root.usage.prompt == len(root.prompt_tokens) + len(ids)
    assert root.usage.generated == 0
    counters = backend.engine.core.counters
    assert counters.prompt + counters.appended == root.usage.prompt


async def test_a_released_branch_does_not_hide_what_is_below_it(backend):
    root = await backend.root("Tom has 12 apples", BranchKey.root(1))
    (first,) = await draw(backend, root, max_tokens=4)
    backend.release([first])
    added = await backend.append(first, FORCED, BranchKey.root(5, "c"))
    assert await greedy_behind(backend, added) == await plain_run(backend, root.prompt_tokens, added.tokens)


async def test_no_room_is_said_before_anything_runs(backend):
    root = await backend.root("Tom", BranchKey.root(1))
    with pytest.raises(PromptTooLongError, match="keep less"):
        await backend.append(root, (5,) * backend.max_model_len, BranchKey.root(5))
    with pytest.raises(RequestError, match="at least one token"):
        await backend.append(root, (), BranchKey.root(5))
    with pytest.raises(RequestError, match="cannot keep 3"):
        kept(root, 3)
    assert root.usage.prompt == 0


async def test_details_tell_the_distribution_that_a_token_was_drawn_from(backend):
    root = await backend.root("Tom has 12 apples", BranchKey.root(1))
    allowed = tuple(range(5, 40))
    (free,) = await draw(backend, root)
    (bound,) = await draw(backend, root, allowed_token_ids=allowed, max_tokens=1, logprobs=0)
    assert [detail.logprob for detail in free.details] == list(free.token_logprobs)
    assert all(len(detail.top) == 3 and detail.log_mass == 0 for detail in free.details)
    logprobs = await backend.logprobs(root, [(token,) for token in allowed])
    assert bound.details[0].log_mass == pytest.approx(np.log(np.exp(np.concatenate(logprobs)).sum()), abs=1e-4)
    (more,) = [node async for node in backend.extend(free, DRAW.with_(max_tokens=2), 1)] if free.open else [free]
    assert path_details(more)[: len(free.details)] == free.details


def test_the_toy_counts_memory_and_puts_tokens_behind_a_node():
    model = ToyModel.random(1)

    async def run():
        backend = ToyBackend(model, memory=20)
        assert ToyBackend(model).free_tokens() is None
        root = await backend.root("xy", BranchKey.root(0))
        assert backend.free_tokens() == 18
        added = await backend.append(root, (1, 1), BranchKey.root(0).child(7))
        assert backend.free_tokens() == 16
        params = SamplingParams(max_tokens=None, logprobs=2, allowed_token_ids=(0, 2))
        drawn = [node async for node in backend.extend(added, params, 8)]
        chances = model.next_token((1, 1))
        for node in drawn:
            assert node.tokens[:2] == (1, 1)
            assert node.details[0].log_mass == pytest.approx(np.log(chances[[0, 2]].sum()))
        backend.release([root, added, *drawn])
        assert backend.free_tokens() == 20

    asyncio.run(run())

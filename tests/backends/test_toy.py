"""The toy model: exact law, exact counts, and a backend whose speeds can be told."""

import asyncio
from collections import Counter
from contextlib import aclosing

import numpy as np
import pytest

from ramify.backends.base import Backend, Capability, StepEnd
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import CapabilityError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams

MODEL = ToyModel.random(0)
PARAMS = SamplingParams(max_tokens=None)


def draw(backend, n=1, params=PARAMS, step_end=None, steps=1, key=0):
    """Continuations of a fresh root, in the order in which they end."""

    async def run():
        node = await backend.root("xyz", BranchKey.root(key))
        for _ in range(steps):
            nodes = [child async for child in backend.extend(node, params, n, 0, step_end)]
            node = nodes[0]
        return nodes

    return asyncio.run(run())


def test_it_is_a_backend_with_every_capability():
    backend = ToyBackend(MODEL)
    assert isinstance(backend, Backend)
    assert backend.capabilities == frozenset(Capability)


def test_draws_follow_the_enumerated_law():
    counts = Counter(node.tokens for node in draw(ToyBackend(MODEL), n=4000))
    for tokens, chance in MODEL.law().items():
        assert abs(counts[tokens] / 4000 - chance) < 4 * np.sqrt(chance / 4000) + 1e-3


def test_log_probabilities_of_drawn_and_of_given_tokens_agree_with_the_law():
    backend = ToyBackend(MODEL)
    law = MODEL.law()

    async def run():
        root = await backend.root("x", BranchKey.root(1))
        params = PARAMS.with_(logprobs=0, temperature=0.5)
        nodes = [node async for node in backend.extend(root, params, 5)]
        for node in nodes:
            assert node.cum_logprob == pytest.approx(np.log(law[node.tokens]))
        given = await backend.logprobs(root, [node.tokens for node in nodes])
        assert [array.sum() for array in given] == pytest.approx([node.cum_logprob for node in nodes])
        assert backend.usage.probe == sum(node.num_tokens for node in nodes)

    asyncio.run(run())


def test_a_branch_draws_the_same_whatever_runs_beside_it():
    alone = {node.key: node.tokens for i in range(3) for node in draw(ToyBackend(MODEL), n=i + 1)}
    crowded = ToyBackend(MODEL, pace=lambda key: key.low % 9, batch_size=2)
    assert {node.key: node.tokens for node in draw(crowded, n=3)} == alone


def test_branches_can_be_made_to_end_in_any_order():
    root = BranchKey.root(0)
    slow_first = {root.child(i): 60 - 20 * i for i in range(3)}
    ended = [node.key for node in draw(ToyBackend(MODEL, pace=slow_first.__getitem__), n=3)]
    assert ended != [root.child(i) for i in range(3)]


def test_a_step_ends_open_and_goes_on_from_there():
    line = StepEnd(stop=("\n",))
    seen = set()
    for key in range(20):
        (node,) = draw(ToyBackend(MODEL), step_end=line, key=key)
        seen.add(node.step_end)
        assert node.step_end == node.open
        if node.open:
            assert node.text.endswith("\n")
            assert node.text.count("\n") == 1
    assert seen == {True, False}
    (node,) = draw(ToyBackend(MODEL), step_end=StepEnd(max_tokens=1), key=1)
    assert node.num_new_tokens == 1


def test_token_limits_and_stop_strings_end_an_answer():
    nodes = draw(ToyBackend(MODEL), n=50, params=PARAMS.with_(max_tokens=1))
    assert {node.finish_reason for node in nodes} == {"length", "stop"}
    stopped = draw(ToyBackend(MODEL), n=50, params=PARAMS.with_(stop="b"))
    assert all("b" not in node.text and node.finish_reason == "stop" for node in stopped)


def test_usage_counts_every_token_of_a_tree_and_of_the_backend():
    backend = ToyBackend(MODEL, {"prm": lambda tokens: 0.5})
    nodes = draw(backend, n=4)
    assert backend.usage.generated == sum(node.num_new_tokens for node in nodes)
    assert (backend.usage.prompt, backend.usage.prompt_cached) == (4 * 3, 3 * 3)
    scores = asyncio.run(backend.reward(nodes, "prm"))
    assert backend.usage.verifier == sum(score.num_tokens for score in scores)
    assert nodes[0].usage == backend.usage


def test_a_reward_is_given_for_each_step_so_far():
    backend = ToyBackend(MODEL, {"prm": lambda tokens: len(tokens) / 4})

    async def run():
        root = await backend.root("x", BranchKey.root(0))
        for node in [node async for node in backend.extend(root, PARAMS, 30)]:
            (score,) = await backend.reward([node], "prm")
            steps = node.text.count("\n") + (not MODEL.texts[node.tokens[-1]].endswith("\n"))
            assert len(score.scores) == steps
            assert score.scores[-1] == node.num_tokens / 4

    asyncio.run(run())


def test_closing_the_stream_cancels_what_runs_and_stops_the_count():
    async def run():
        backend = ToyBackend(MODEL, pace=lambda key: 3)
        root = await backend.root("x", BranchKey.root(0))
        async with aclosing(backend.extend(root, PARAMS, 8)) as stream:
            async for _ in stream:
                break
        counted = backend.usage.generated
        for _ in range(20):
            await asyncio.sleep(0)
        assert backend.usage.generated == counted
        assert backend.cancelled > 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_what_cannot_be_extended_is_refused():
    backend = ToyBackend(MODEL)

    async def run():
        root = await backend.root("x", BranchKey.root(0))
        (done,) = [node async for node in backend.extend(root, PARAMS)]
        with pytest.raises(RequestError, match="finished"):
            [node async for node in backend.extend(done, PARAMS)]
        with pytest.raises(CapabilityError, match="min_p"):
            [node async for node in backend.extend(root, PARAMS.with_(min_p=0.5))]
        backend.release([root, done])
        assert not backend.live
        with pytest.raises(RequestError, match="released"):
            [node async for node in backend.extend(root, PARAMS)]

    asyncio.run(run())


def test_text_is_encoded_as_the_models_tokens():
    backend = ToyBackend(MODEL)
    assert backend.encode("ab\na") == (1, 2, 1)
    with pytest.raises(RequestError, match="no text"):
        backend.encode("z")

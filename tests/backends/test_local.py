"""The local backend: branches are forks, dropping frees at once, meters equal the engine's own count."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

from ramify.backends.base import Backend, Node, StepEnd
from ramify.backends.local import LocalBackend
from ramify.engine.llm import OfflineLLM
from ramify.errors import PromptTooLongError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring.problem import Problem
from ramify.strategies import parse_strategy, solve
from ramify.strategies.kernel.trace import AnyEvent, Grown, Ran
from tests.engine.harness import checkpoint

LINES = StepEnd(stop=("e", "a"))
OPEN_ENDED = SamplingParams(max_tokens=12, temperature=1.0, ignore_eos=True)


@pytest.fixture(scope="module")
def reward_folder() -> Path:
    folder = Path(mkdtemp(prefix="ramify-prm-")) / "prm"
    shutil.copytree(checkpoint("llama2"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["ramify"] = {"kind": "prm", "step_token": "e", "good_token": "<|user|>", "bad_token": "<|system|>"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
async def backend(reward_folder: Path) -> AsyncIterator[LocalBackend]:
    loaded = LocalBackend.load(
        checkpoint("llama2"), reward_models=(str(reward_folder),), num_kv_blocks=60, max_num_seqs=16
    )
    async with asyncio.timeout(60), loaded:
        yield loaded


async def grow(backend: LocalBackend, node: Node, n: int = 1, first: int = 0, **options: object) -> list[Node]:
    params = options.pop("params", OPEN_ENDED)
    nodes = [child async for child in backend.extend(node, params, n, first, **options)]  # type: ignore[arg-type]
    return sorted(nodes, key=lambda child: child.text)


def reward_name(backend: LocalBackend) -> str:
    return next(iter(backend._rewards))


def assert_whole(backend: LocalBackend) -> None:
    for engine in (backend.engine, *(model.engine for model in backend._rewards.values())):
        assert not engine.core._sequences
        assert engine.core.num_free_blocks == engine.core.scheduler.pool.num_usable


def test_it_is_a_backend(reward_folder: Path) -> None:
    assert isinstance(LocalBackend.load(checkpoint("llama2"), num_kv_blocks=8), Backend)


async def test_branches_draw_what_a_single_run_draws(backend: LocalBackend) -> None:
    root = await backend.root("Tom has 12 apples", BranchKey.root(3, "x"))
    together = {node.key: node.tokens async for node in backend.extend(root, OPEN_ENDED, n=5)}
    for index in range(5):
        async for node in backend.extend(root, OPEN_ENDED, n=1, first_child=index):
            assert together[node.key] == node.tokens
            backend.release([node])
    assert len(set(together.values())) == 5
    backend.release([root])
    assert_whole(backend)


async def test_steps_end_where_the_splitter_says_and_go_on_from_there(backend: LocalBackend) -> None:
    root = await backend.root("Tom", BranchKey.root(1))
    (first,) = await grow(backend, root, step_end=StepEnd(max_tokens=3))
    assert first.open
    assert first.step_end
    assert first.num_new_tokens == 3
    (second,) = await grow(backend, first, step_end=StepEnd(max_tokens=4))
    assert second.tokens[:3] == first.tokens
    assert len(second.tokens) == 7
    assert backend.tokenizer.decode(second.tokens).startswith(second.text.rstrip("\ufffd"))
    backend.release([root, first, second])
    assert_whole(backend)


async def test_a_string_that_ends_a_step_stays_in_it(backend: LocalBackend) -> None:
    root = await backend.root("Tom", BranchKey.root(2))
    params = OPEN_ENDED.with_(max_tokens=40)
    for node in await grow(backend, root, n=8, params=params, step_end=LINES):
        if node.step_end:
            last = backend.tokenizer.token_text(node.tokens[-1])
            assert "e" in last or "a" in last
            assert not any("e" in t or "a" in t for t in map(backend.tokenizer.token_text, node.tokens[:-1]))
        else:
            assert node.finish_reason == "length"


async def test_a_stop_string_finishes_and_is_cut_off(backend: LocalBackend) -> None:
    root = await backend.root("Tom", BranchKey.root(2))
    params = OPEN_ENDED.with_(max_tokens=40, stop=("e",))
    nodes = await grow(backend, root, n=8, params=params)
    assert any(node.finish_reason == "stop" for node in nodes)
    assert all("e" not in node.text for node in nodes)


async def test_closing_the_iterator_cancels_the_rest_and_counts_what_ran(backend: LocalBackend) -> None:
    root = await backend.root("Tom has apples", BranchKey.root(5))
    params = OPEN_ENDED.with_(max_tokens=200)
    short = OPEN_ENDED.with_(max_tokens=2)
    waiting = asyncio.ensure_future(grow(backend, root, n=3, first=10, params=params))
    async with aclosing(backend.extend(root, short, n=2)) as nodes:  # type: ignore[type-var]
        async for _ in nodes:
            break
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    backend.release([root])
    assert_whole(backend)
    assert root.usage.generated == backend.engine.core.counters.generated


async def test_releasing_a_node_stops_what_runs_below_it(backend: LocalBackend) -> None:
    root = await backend.root("Tom has apples", BranchKey.root(6))
    waiting = asyncio.ensure_future(grow(backend, root, n=3, params=OPEN_ENDED.with_(max_tokens=300)))
    while backend.engine.core.counters.generated < 5:
        await asyncio.sleep(0)
    backend.release([root])
    with pytest.raises(Exception, match="released"):
        await waiting
    assert_whole(backend)


async def test_meters_add_up_to_the_engines_counters(backend: LocalBackend) -> None:
    roots = [await backend.root(f"Tom has {n} apples", BranchKey.root(n)) for n in range(4)]

    async def work(root: Node) -> None:
        for node in await grow(backend, root, n=3, step_end=StepEnd(max_tokens=4)):
            await grow(backend, node, n=2)

    await asyncio.gather(*map(work, roots))
    counters = backend.engine.core.counters
    for name in ("prompt", "prompt_cached", "generated"):
        assert getattr(backend.usage, name) == getattr(counters, name), name
        assert sum(getattr(root.usage, name) for root in roots) == getattr(counters, name), name


async def test_rewards_do_not_depend_on_how_the_tree_was_scored(backend: LocalBackend) -> None:
    name = reward_name(backend)
    root = await backend.root("Tom has 12 apples", BranchKey.root(7))
    (first,) = await grow(backend, root, step_end=StepEnd(max_tokens=9))
    (second,) = await grow(backend, first, step_end=StepEnd(max_tokens=9))
    stepwise = [(await backend.reward([node], name))[0] for node in (first, second)]
    backend.release([root])
    again = await backend.root("Tom has 12 apples", BranchKey.root(7))
    whole = (await backend.reward([second], name))[0]
    np.testing.assert_array_equal(stepwise[1].scores, whole.scores)
    assert stepwise[0].num_tokens == len(again.prompt_tokens) + 9
    assert stepwise[1].num_tokens == 9
    assert whole.num_tokens == len(again.prompt_tokens) + 18
    assert all(0 <= score <= 1 for score in whole.scores)


async def test_rewards_agree_with_transformers(backend: LocalBackend, reward_folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    name = reward_name(backend)
    root = await backend.root("Tom has 12 apples", BranchKey.root(8))
    (node,) = await grow(backend, root)
    found = (await backend.reward([node], name))[0]
    model = AutoModelForCausalLM.from_pretrained(reward_folder, dtype=torch.float32)
    ids = [*node.prompt_tokens, *node.tokens]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    pair = [backend.tokenizer.token_id(text) for text in ("<|user|>", "<|system|>")]
    start = len(node.prompt_tokens)
    ends = [i for i in range(start, len(ids)) if "e" in backend.tokenizer.token_text(ids[i]) or i == len(ids) - 1]
    expected = [torch.softmax(logits[i, pair], -1)[0].item() for i in ends]
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)


async def test_a_scored_ancestor_serves_its_descendants_also_after_it_was_released(backend: LocalBackend) -> None:
    name = reward_name(backend)
    root = await backend.root("Tom", BranchKey.root(9))
    (first,) = await grow(backend, root, step_end=StepEnd(max_tokens=5))
    await backend.reward([first], name)
    (second,) = await grow(backend, first, step_end=StepEnd(max_tokens=5))
    backend.release([first])
    assert (await backend.reward([second], name))[0].num_tokens == 5
    backend.release([second, root])
    assert_whole(backend)


async def test_two_runs_of_one_problem_at_a_time_do_not_meet(backend: LocalBackend) -> None:
    name = reward_name(backend)

    async def once() -> tuple[tuple[int, ...], tuple[float, ...], int]:
        root = await backend.root("Tom has 12 apples", BranchKey.root(3))
        (node,) = await grow(backend, root, n=1)
        (score,) = await backend.reward([node], name)
        backend.release([node, root])
        return node.tokens, score.scores, score.num_tokens

    first, second = await asyncio.gather(once(), once())
    assert first == second
    assert_whole(backend)


async def test_log_probabilities_of_given_tokens_are_those_of_drawing_them(backend: LocalBackend) -> None:
    root = await backend.root("Tom has", BranchKey.root(10))
    (node,) = await grow(backend, root, params=OPEN_ENDED.with_(logprobs=0))
    (scored,) = await backend.logprobs(root, [node.tokens])
    assert node.token_logprobs is not None
    np.testing.assert_array_equal(scored, np.array(node.token_logprobs))
    assert root.usage.probe == len(node.tokens)


async def test_a_prompt_without_room_for_an_answer_is_refused(backend: LocalBackend) -> None:
    with pytest.raises(PromptTooLongError, match="512"):
        await backend.root(list(range(4, 300)) * 2, BranchKey.root(0))


async def test_an_unknown_reward_model_is_named(backend: LocalBackend) -> None:
    root = await backend.root("Tom", BranchKey.root(0))
    with pytest.raises(RequestError, match="no reward model 'other'"):
        await backend.reward([root], "other")


def test_a_model_without_a_reward_head_is_no_reward_model() -> None:
    with pytest.raises(RequestError, match="no reward model"):
        LocalBackend.load(checkpoint("llama2"), reward_models=(str(checkpoint("llama2")) + "/",), num_kv_blocks=8)


@pytest.mark.parametrize("seed", range(6))
async def test_random_trees_with_cancels_leave_nothing_behind(backend: LocalBackend, seed: int) -> None:
    name = reward_name(backend)
    choices = np.random.default_rng(seed)

    async def tree(number: int) -> None:
        root = await backend.root(f"Problem {number}", BranchKey.root(seed, str(number)))
        nodes = [root]
        for level in range(3):
            children: list[Node] = []
            for node in nodes:
                n = int(choices.integers(1, 4))
                async with aclosing(backend.extend(node, OPEN_ENDED, n, step_end=StepEnd(max_tokens=3))) as drawn:  # type: ignore[type-var]
                    async for child in drawn:
                        children.append(child)
                        if choices.random() < 0.2:
                            break
            if choices.random() < 0.7:
                await backend.reward(children, name)
            kept = [child for child in children if child.open and choices.random() < 0.6]
            backend.release([child for child in children if child not in kept])
            if level:
                backend.release(nodes)
            nodes = kept
            if not nodes:
                break
        backend.release([*nodes, root])

    tasks = [asyncio.create_task(tree(number)) for number in range(6)]
    await asyncio.sleep(0.05)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [error for error in done[1:] if error is not None] == []
    for model in backend._rewards.values():
        for root in list(model._trees):
            model.engine.drop([s.sequence_id for s in model._trees.pop(root).nodes.values() if s.sequence_id])
    await asyncio.sleep(0.05)
    assert backend.usage.generated == backend.engine.core.counters.generated


def test_solving_with_the_offline_engine_gives_its_pool_back() -> None:
    llm = OfflineLLM(checkpoint("llama2"), num_kv_blocks=40)
    llm.generate(["Tom", "Ann"], SamplingParams(max_tokens=3), use_tqdm=False)
    assert llm.core.num_free_blocks == llm.core.scheduler.pool.num_usable


async def test_a_listener_hears_in_which_steps_each_branch_ran_and_the_trace_does_not(backend: LocalBackend) -> None:
    heard: list[AnyEvent] = []
    problem = Problem("1", "alpha beta")
    result = await solve(parse_strategy("self-consistency:n=3"), problem, backend, listener=heard.append)
    grown = {event.node: event.num_tokens for event in heard if isinstance(event, Grown)}
    ran = {event.node: event for event in heard if isinstance(event, Ran)}
    assert set(ran) == set(grown)
    for node, event in ran.items():
        assert event.last_step - event.first_step + 1 >= grown[node]  # a token a step at most
    assert not any(isinstance(event, Ran) for event in result.trace.events)

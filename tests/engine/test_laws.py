"""One answer per seed: whatever shares the batch, however a prompt is chunked, forked, preempted or cached, a
sequence's tokens are the same and their log-probabilities are the same bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from tests.checkpoints import FAMILIES
from tests.engine.harness import Finished, assert_whole, collect, engine, finish, prompt, request, run


def alone(family: str, length: int, seed: int, **params: object) -> tuple[tuple[int, float], ...]:
    """The plain run: one sequence, whole prompt at once, nothing cached."""
    core = engine(family, max_num_batched_tokens=512, enable_prefix_caching=False)
    (result,) = run(core, request(prompt(length, seed), seed, **params))
    return result.trace()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_batch_changes_no_bit_of_any_of_its_sequences(family: str, dtype: str) -> None:
    lengths = [1, 3, 15, 16, 17, 31, 33, 64, 65, 100, 130, 7]
    together = engine(family, dtype=dtype, num_kv_blocks=200, max_num_batched_tokens=48)
    results = run(together, *(request(prompt(n, n), n, temperature=0.9) for n in lengths))
    for length, result in zip(lengths, results, strict=True):
        single = engine(family, dtype=dtype, max_num_batched_tokens=512)
        (expected,) = run(single, request(prompt(length, length), length, temperature=0.9))
        assert result.trace() == expected.trace(), length
    assert_whole(together)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk", [16, 17, 40, 64])
def test_the_size_of_prompt_chunks_changes_nothing(family: str, chunk: int) -> None:
    core = engine(family, max_num_batched_tokens=chunk)
    (result,) = run(core, request(prompt(150, 1), 1, temperature=0.8))
    assert result.trace() == alone(family, 150, 1, temperature=0.8)


def test_the_number_of_threads_changes_nothing() -> None:
    before = torch.get_num_threads()
    traces = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            core = engine("qwen3")
            results = run(core, *(request(prompt(40 + n, n), n, temperature=0.9) for n in range(5)))
            traces.append([result.trace() for result in results])
    finally:
        torch.set_num_threads(before)
    assert traces[0] == traces[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_hit_changes_nothing(family: str) -> None:
    core = engine(family)
    first = run(core, request(prompt(70, 2), 2, temperature=0.7))[0]
    second = run(core, request(prompt(70, 2), 2, temperature=0.7))[0]
    assert first.cached == 0
    assert second.cached == 64
    assert first.trace() == second.trace()


def test_generated_tokens_are_found_in_the_cache_too() -> None:
    core = engine()
    ids = prompt(20, 3)
    first = run(core, request(ids, 3, max_tokens=30))[0]
    longer = (*ids, *first.tokens)
    again = run(core, request(longer, 4))[0]
    assert again.cached == 48
    assert again.trace() == run(engine(), request(longer, 4))[0].trace()


def test_tenants_with_different_salts_share_nothing() -> None:
    core = engine()
    run(core, request(prompt(70, 2), salt="a"))
    assert run(core, request(prompt(70, 2), salt="b"))[0].cached == 0
    assert run(core, request(prompt(70, 2), salt="a"))[0].cached == 64


@pytest.mark.parametrize("family", ["llama2", "mistral"])
def test_preemption_changes_nothing(family: str) -> None:
    core = engine(family, num_kv_blocks=9)
    seeds = range(6)
    results = run(core, *(request(prompt(30, s), s, max_tokens=40, temperature=1.0) for s in seeds))
    assert core.counters.preemptions > 0
    for seed, result in zip(seeds, results, strict=True):
        assert result.trace() == alone(family, 30, seed, max_tokens=40, temperature=1.0)
    assert_whole(core)


@pytest.mark.parametrize("length", [16, 21, 32])
def test_n_continuations_are_the_branches_one_by_one(length: int) -> None:
    core = engine()
    ids = prompt(length, 5)
    forked = run(core, request(ids, 5, n=5, temperature=1.0))
    assert core.counters.prompt == 5 * length
    assert core.counters.prompt_cached == 4 * length
    for child, result in enumerate(forked):
        single = request(ids, 5, temperature=1.0)
        (expected,) = run(engine(), single.__class__(ids, single.params, single.key, first_child=child))
        assert result.trace() == expected.trace()
    assert len({tuple(result.tokens) for result in forked}) > 1
    assert_whole(core)


def test_more_continuations_than_places_all_come_out_right() -> None:
    core = engine(max_num_seqs=3, num_kv_blocks=14)
    ids = prompt(33, 6)
    results = run(core, request(ids, 6, n=10, temperature=1.0, max_tokens=20))
    expected = run(engine(num_kv_blocks=200), request(ids, 6, n=10, temperature=1.0, max_tokens=20))
    assert [r.trace() for r in results] == [e.trace() for e in expected]
    assert_whole(core)


def test_a_parked_sequence_goes_on_as_if_it_had_never_stopped() -> None:
    whole = run(engine(), request(prompt(30, 7), 7, max_tokens=24))[0]
    core = engine()
    (sequence,) = core.add(request(prompt(30, 7), 7, max_tokens=9, keep=True))
    results: dict[int, Finished] = {}
    finish(core, results)
    core.extend(sequence, SamplingParams(max_tokens=15, ignore_eos=True, logprobs=0))
    finish(core, results)
    assert results[sequence].trace() == whole.trace()
    assert core.counters.recomputed == 0
    core.drop([sequence])
    assert_whole(core)


def test_forks_of_a_parked_sequence_share_its_blocks_and_draw_their_own_tokens() -> None:
    core = engine()
    (parent,) = core.add(request(prompt(45, 8), 8, max_tokens=6, keep=True))
    results: dict[int, Finished] = {}
    finish(core, results)
    used = core.scheduler.pool.num_usable - core.num_free_blocks
    key = BranchKey.root(99)
    children = core.fork(parent, key, 4)
    assert core.scheduler.pool.num_usable - core.num_free_blocks == used
    params = SamplingParams(max_tokens=10, ignore_eos=True, logprobs=0)
    for child in children:
        core.extend(child, params)
    finish(core, results)
    tokens = core.tokens(parent)
    for index, child in enumerate(children):
        plain = request(tokens, max_tokens=10)
        (expected,) = run(engine(), plain.__class__(tokens, params, key, first_child=index))
        assert results[child].trace() == expected.trace()
    core.drop([parent, *children])
    assert_whole(core)


def test_a_cut_sequence_never_spoils_the_cached_blocks_it_was_cut_from() -> None:
    core = engine()
    ids = prompt(16, 9)
    (sequence,) = core.add(request(ids, 9, max_tokens=40, keep=True))
    results: dict[int, Finished] = {}
    finish(core, results)
    full = core.tokens(sequence)
    core.finish(sequence, num_tokens=37)
    core.extend(sequence, SamplingParams(max_tokens=12, ignore_eos=True, temperature=0), append=(5, 6, 7))
    finish(core, results)
    core.drop([sequence])
    probe = (*full, 9)
    after = run(core, request(probe, 1))[0]
    assert after.trace() == run(engine(), request(probe, 1))[0].trace()
    assert_whole(core)


workloads = st.lists(
    st.tuples(
        st.integers(1, 90),  # prompt length
        st.integers(1, 25),  # tokens to draw
        st.integers(0, 3),  # seed, and so the prompt's content: equal ones share prefixes
        st.integers(1, 3),  # n
        st.integers(0, 12),  # arrives at this step
        st.booleans(),  # is dropped on the way
        st.sampled_from([0.0, 0.7, 1.3]),
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=25, deadline=None)
@given(
    workload=workloads,
    family=st.sampled_from(["llama2", "mistral", "qwen3"]),
    blocks=st.integers(8, 40),
    chunk=st.integers(8, 64),
    places=st.integers(1, 8),
)
def test_random_workloads_draw_the_tokens_of_the_one_sequence_run(
    workload: list[tuple[int, int, int, int, int, bool, float]], family: str, blocks: int, chunk: int, places: int
) -> None:
    core = engine(family, num_kv_blocks=blocks, max_num_batched_tokens=max(chunk, places), max_num_seqs=places)
    results: dict[int, Finished] = {}
    sequences: dict[int, tuple[int, ...]] = {}
    pending = sorted(enumerate(workload), key=lambda each: each[1][4])
    step = 0
    while pending or core.has_work():
        while pending and (pending[0][1][4] <= step or not core.has_work()):
            index, (length, count, seed, n, _, _, temperature) = pending.pop(0)
            wanted = request(prompt(90, seed)[:length], seed, n=n, max_tokens=count, temperature=temperature)
            sequences[index] = tuple(core.add(wanted))
        collect(results, core.step())
        step += 1
        for index, ids in sequences.items():
            if workload[index][5] and step == workload[index][4] + 4:
                core.drop(ids)
                core.scheduler.pool.check(core.scheduler.tables())
        assert step < 5_000
    assert_whole(core)
    reference = engine(family, num_kv_blocks=400, max_num_batched_tokens=512, enable_prefix_caching=False)
    for index, (length, count, seed, n, _, dropped, temperature) in enumerate(workload):
        wanted = request(prompt(90, seed)[:length], seed, n=n, max_tokens=count, temperature=temperature)
        for sequence, expected in zip(sequences[index], run(reference, wanted), strict=True):
            got = results.get(sequence, Finished()).trace()
            assert got == expected.trace()[: len(got)]
            assert dropped or len(got) == count


@pytest.mark.parametrize("kept", ["float32", "bfloat16", "int8"])
def test_every_kv_format_gives_one_answer_per_seed(kept: str) -> None:
    requests = [request(prompt(5 + 30 * i, i), i) for i in range(3)]
    together = run(engine(kv_cache_dtype=kept), *requests)
    core = engine(kv_cache_dtype=kept, max_num_batched_tokens=16)
    again = [run(core, each)[0].trace() for each in (*requests, *requests)]
    assert again == [each.trace() for each in together] * 2
    model, row_bytes = core.model_config, {"float32": 4, "bfloat16": 2, "int8": 1}[kept] * core.model_config.head_dim
    row_bytes += 4 if kept == "int8" else 0
    assert core.kv_budget.block_bytes == 2 * model.num_layers * model.num_kv_heads * 16 * row_bytes

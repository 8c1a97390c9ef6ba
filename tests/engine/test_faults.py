"""What goes wrong with one request stays with that request; what cannot work is refused with the number that would."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ramify.config import EngineConfig
from ramify.engine.core import EngineCore
from ramify.engine.loading import load_engine, pick_max_model_len
from ramify.engine.request import EngineRequest
from ramify.errors import ConfigError, EngineError, PoolTooSmallError, PromptTooLongError, RequestError
from ramify.models.config import load_config
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from tests.checkpoints import VOCAB_SIZE
from tests.engine.harness import Finished, assert_whole, checkpoint, collect, engine, finish, prompt, request, run

POISON = 77


def poison(core: EngineCore, action: str) -> None:
    """From now on a batch in which the token POISON is computed fails, or gives NaN for that sequence."""
    decoder = core._runner.decoder
    forward = decoder.forward

    def failing(inputs, cache):  # type: ignore[no-untyped-def]
        bad = inputs.token_ids == POISON
        if bad.any() and action == "raise":
            raise RuntimeError("the device caught fire")
        hidden = forward(inputs, cache)
        if action == "nan":
            hidden[bad] = torch.nan
            cache.layers[0].values.flatten(1, 2)[:, inputs.slots[bad]] = torch.nan
        return hidden

    decoder.forward = failing  # type: ignore[method-assign]


@pytest.mark.parametrize("action", ["raise", "nan"])
def test_a_request_that_fails_fails_alone(action: str) -> None:
    seeds = [1, 2, 3, 4]
    expected = [run(engine(), request(prompt(20, s), s))[0].trace() for s in seeds]
    core = engine(num_kv_blocks=24, enable_prefix_caching=False)
    poison(core, action)
    bad = request((*prompt(9, 9), POISON), 9, n=2)
    good = [request(prompt(20, s), s) for s in seeds]
    results = run(core, *good[:2], bad, *good[2:])
    failed, fine = results[2:4], [*results[:2], *results[4:]]
    assert all(isinstance(each.error, EngineError) and each.reason == "error" for each in failed)
    assert "caught fire" in str(failed[0].error) or "not finite" in str(failed[0].error)
    assert [each.trace() for each in fine] == expected
    assert_whole(core)
    again = run(core, *(request(prompt(20, s), s) for s in seeds))
    assert [each.trace() for each in again] == expected


def test_a_failing_logits_processor_fails_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import ramify.engine.logits as logits

    def broken(row: torch.Tensor, state: logits.RowState) -> None:
        raise KeyError("no such bias")

    monkeypatch.setattr(logits, "logit_bias", broken)
    core = engine()
    fine, failed = run(core, request(prompt(8, 1), 1), request(prompt(8, 2), 2, logit_bias={5: 1.0}))
    assert fine.error is None
    assert "no such bias" in str(failed.error)
    assert_whole(core)


def test_a_dropped_sequence_returns_its_blocks_before_the_next_step() -> None:
    core = engine()
    ids = core.add(request(prompt(60, 1), 1, n=3, max_tokens=50))
    results: dict[int, Finished] = {}
    for _ in range(4):
        collect(results, core.step())
    assert core.num_free_blocks < core.scheduler.pool.num_usable
    core.drop(ids)
    assert_whole(core)
    assert not core.has_work()


def test_dropping_the_leader_before_its_prompt_is_done_leaves_its_siblings_running() -> None:
    core = engine(max_num_batched_tokens=16)
    ids = core.add(request(prompt(60, 1), 1, n=3))
    results: dict[int, Finished] = {}
    collect(results, core.step())
    core.drop([ids[0], ids[2]])
    finish(core, results)
    expected = run(engine(), request(prompt(60, 1), 1, n=3))
    assert list(results) == [ids[1]]
    assert results[ids[1]].trace() == expected[1].trace()
    assert_whole(core)


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers() -> None:
    core = engine(max_model_len=64)
    with pytest.raises(PromptTooLongError, match=r"80 tokens and the context is 64: shorten it by 17"):
        core.add(request(prompt(80, 1)))
    with pytest.raises(PromptTooLongError):
        core.add(request(prompt(64, 1)))
    assert run(core, request(prompt(64, 1), max_tokens=0, logprobs=None))[0].reason == "length"


def test_output_ends_at_the_context() -> None:
    core = engine(max_model_len=40)
    (result,) = run(core, request(prompt(30, 1), max_tokens=100))
    assert len(result.tokens) == 10
    assert result.reason == "length"


def test_a_request_larger_than_the_pool_is_refused_with_what_would_fit() -> None:
    core = engine(num_kv_blocks=4)
    with pytest.raises(PoolTooSmallError, match=r"the KV pool holds 64: use max_tokens=24"):
        core.add(request(prompt(40, 1), max_tokens=30))
    (fits,) = run(core, request(prompt(40, 1), max_tokens=24))
    assert len(fits.tokens) == 24
    (open_ended,) = run(core, request(prompt(40, 1), max_tokens=None))
    assert len(open_ended.tokens) == 24


@pytest.mark.parametrize(
    ("ids", "params", "message"),
    [
        ((), {}, "empty"),
        ((5, VOCAB_SIZE), {}, f"token id {VOCAB_SIZE}"),
        ((5, -1), {}, "token id -1"),
        ((5,), {"logit_bias": {VOCAB_SIZE: 1.0}}, "logit_bias"),
        ((5,), {"allowed_token_ids": [VOCAB_SIZE]}, "allowed_token_ids"),
        ((5,), {"stop_token_ids": [-3]}, "stop_token_ids"),
    ],
)
def test_ids_that_do_not_exist_are_refused(ids: tuple[int, ...], params: dict[str, object], message: str) -> None:
    core = engine()
    with pytest.raises(RequestError, match=message):
        core.add(request(ids, **params))
    assert not core.has_work()


def test_only_parked_sequences_can_be_forked_or_extended() -> None:
    core = engine()
    (running,) = core.add(request(prompt(5, 1)))
    with pytest.raises(RequestError, match="it is waiting"):
        core.fork(running, BranchKey.root(0), 2)
    with pytest.raises(RequestError, match="it is unknown"):
        core.extend(12345, SamplingParams())


def test_scores_of_prompt_positions_are_logits_wherever_the_prompt_was_cached() -> None:
    ids = prompt(50, 3)
    plain = EngineRequest(
        ids, SamplingParams(max_tokens=0), BranchKey.root(0), score_positions=(3, 20, 49), score_token_ids=(7, 9)
    )
    fresh = run(engine(), plain)[0].scores
    core = engine(max_num_batched_tokens=16)
    run(core, request(ids, 1))
    np.testing.assert_array_equal(run(core, plain)[0].scores, fresh)
    assert fresh.shape == (3, 2)  # type: ignore[attr-defined]


def test_prompt_logprobs_are_the_same_chunked_and_cached() -> None:
    ids = prompt(70, 4)
    whole = run(engine(max_num_batched_tokens=128), request(ids, prompt_logprobs=3))[0].prompt_logprobs
    core = engine(max_num_batched_tokens=16)
    run(core, request(ids, 1))
    assert run(core, request(ids, prompt_logprobs=3))[0].prompt_logprobs == whole
    assert whole is not None
    assert whole[0] is None
    assert len(whole) == 70
    assert whole[5] is not None
    assert len(whole[5].top) == 3


def test_the_pool_never_exceeds_what_the_limits_can_use() -> None:
    core, _ = load_engine(checkpoint("llama2"), EngineConfig(max_num_seqs=3, max_model_len=100))
    assert core.scheduler.pool.num_usable == 3 * 7
    assert "limited by limits" in str(core.kv_budget)


def test_options_that_cannot_work_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean max_num_seqs"):
        EngineConfig.from_options({"max_nums_seqs": 4})
    with pytest.raises(ConfigError, match="tensor_parallel_size=4 is not supported"):
        EngineConfig.from_options({"tensor_parallel_size": 4})
    assert EngineConfig.from_options({"tensor_parallel_size": 1, "enforce_eager": True}) == EngineConfig()
    with pytest.raises(ConfigError, match="max_model_len=9999 is more than the model's 512"):
        pick_max_model_len(EngineConfig(max_model_len=9999), load_config(checkpoint("llama2")))
    with pytest.raises(ConfigError, match="num_kv_blocks=1000000000"):
        load_engine(checkpoint("llama2"), EngineConfig(num_kv_blocks=1_000_000_000))
    with pytest.raises(ConfigError, match="block_size=13"):
        EngineConfig(block_size=13)


def test_an_urgent_request_overtakes_under_the_priority_policy() -> None:
    core = engine(max_num_seqs=1, scheduling_policy="priority")
    order: list[int] = []
    slow, late, urgent = (
        core.add(EngineRequest(prompt(5, i), SamplingParams(max_tokens=3), BranchKey.root(i), priority=p))[0]
        for i, p in enumerate([0, 5, 1])
    )
    while core.has_work():
        order += [output.sequence_id for output in core.step().outputs if output.finish_reason]
    assert order == [slow, urgent, late]

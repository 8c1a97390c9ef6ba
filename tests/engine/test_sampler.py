"""The sampler draws from the distribution that the parameters describe, row by row, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from ramify.engine.sampler import sample
from ramify.engine.sequence import Sequence
from ramify.kernels import sampling as kernel
from ramify.kernels.sampling import inverse_cdf
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams


def sequence(index: int = 0, tokens: list[int] | None = None, num_prompt: int = 1, **params: object) -> Sequence:
    known = tokens or [1]
    settings = SamplingParams(**params)  # type: ignore[arg-type]
    return Sequence(index, BranchKey.root(index), settings, known, num_prompt, index, frozenset({0}), 100)


def truncate(row: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    return kernel.truncate(row, params.top_k, params.top_p, params.min_p, params.typical_p)


def drawn(logits: torch.Tensor, count: int = 6_000, **params: object) -> np.ndarray:
    rows = [sequence(i, **params) for i in range(count)]
    draws = sample(logits.repeat(count, 1), rows)
    return np.bincount([draw.token for draw in draws], minlength=logits.shape[-1])


@pytest.mark.parametrize("size", [5, 512, 700, 1500])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(size: int, temperature: float) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size)) * 2
    counts = drawn(logits, temperature=temperature)
    expected = torch.softmax(logits.double() / temperature, 0).numpy() * counts.sum()
    common = expected > 5
    observed = [*counts[common], counts[~common].sum()]
    wanted = [*expected[common], expected[~common].sum()]
    if wanted[-1] < 1:
        observed, wanted = observed[:-1], wanted[:-1]
    chi2 = stats.chisquare(observed, np.array(wanted) * np.sum(observed) / np.sum(wanted))
    assert chi2.pvalue > 1e-4


def test_a_token_of_weight_zero_is_never_drawn() -> None:
    weights = torch.zeros(4, 1300)
    weights[0, 3], weights[1, 1299], weights[2, 600], weights[3, 511] = 1.0, 2.0, 1e-30, 5.0
    for draw in (1e-17, 0.5, 1 - 1e-16):
        found = inverse_cdf(weights, torch.full((4,), draw, dtype=torch.float64))
        assert found.tolist() == [3, 1299, 600, 511]


def test_the_inverse_cdf_agrees_with_a_plain_cumulative_sum() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(500, 1111, generator=generator)
    draws = torch.rand(500, generator=generator, dtype=torch.float64)
    exact = weights.double().cumsum(-1)
    plain = torch.searchsorted(exact, (draws * exact[:, -1]).unsqueeze(1), right=True).squeeze(1)
    assert (inverse_cdf(weights, draws) == plain).float().mean() > 0.998  # sums of chunks round in float32


def test_greedy_and_tiny_temperatures_take_the_most_likely_token() -> None:
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(1))
    best = logits.argmax(-1).tolist()
    assert [d.token for d in sample(logits.clone(), [sequence(i, temperature=0) for i in range(8)])] == best
    assert [d.token for d in sample(logits.clone(), [sequence(i, temperature=1e-9) for i in range(8)])] == best


def test_a_rows_draw_does_not_depend_on_the_other_rows() -> None:
    logits = torch.randn(20, 900, generator=torch.Generator().manual_seed(2))
    rows = [sequence(i, temperature=0.3 + 0.1 * i, top_p=0.9 if i % 3 else 1.0) for i in range(20)]
    together = [draw.token for draw in sample(logits.clone(), rows)]
    for i, row in enumerate(rows):
        assert sample(logits[i : i + 1].clone(), [row])[0].token == together[i]


def test_top_k_keeps_k_and_top_p_the_smallest_set_that_reaches_p() -> None:
    logits = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125]))
    assert _kept(truncate(logits, SamplingParams(top_k=2))) == [0, 1]
    assert _kept(truncate(logits, SamplingParams(top_p=0.5))) == [0]
    assert _kept(truncate(logits, SamplingParams(top_p=0.51))) == [0, 1]
    assert _kept(truncate(logits, SamplingParams(min_p=0.5))) == [0, 1]
    assert _kept(truncate(logits, SamplingParams(min_p=0.51))) == [0]
    assert _kept(truncate(logits, SamplingParams(top_k=3, top_p=0.7))) == [0, 1]
    assert _kept(truncate(logits, SamplingParams(top_p=1e-9))) == [0]


def test_typical_sampling_prefers_the_tokens_whose_surprise_is_near_the_entropy() -> None:
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])
    entropy = -(probabilities * probabilities.log()).sum()
    order = (-probabilities.log() - entropy).abs().argsort().tolist()
    assert _kept(truncate(probabilities.log(), SamplingParams(typical_p=0.25))) == [order[0]]
    assert _kept(truncate(probabilities.log(), SamplingParams(typical_p=0.45))) == sorted(order[:2])


def test_truncation_agrees_with_transformers() -> None:
    from transformers.generation import logits_process as reference

    logits = torch.randn(60, 300, generator=torch.Generator().manual_seed(5)) * 3
    ids = torch.zeros(60, 1, dtype=torch.long)
    for params, processor in (
        (SamplingParams(top_k=7), reference.TopKLogitsWarper(7)),
        (SamplingParams(top_p=0.8), reference.TopPLogitsWarper(0.8)),
        (SamplingParams(min_p=0.1), reference.MinPLogitsWarper(0.1)),
        (SamplingParams(typical_p=0.6), reference.TypicalLogitsWarper(0.6)),
    ):
        expected = processor(ids, logits.clone())
        for row in range(60):
            assert torch.equal(truncate(logits[row], params), expected[row]), params


def test_repetition_penalty_agrees_with_transformers() -> None:
    from transformers.generation import logits_process as reference

    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(6))
    seen = [3, 9, 9, 20]
    expected = reference.RepetitionPenaltyLogitsProcessor(1.4)(torch.tensor([seen]), logits.clone()).argmax().item()
    assert sample(logits, [sequence(tokens=seen, temperature=0, repetition_penalty=1.4)])[0].token == expected


def test_presence_and_frequency_count_the_output_only() -> None:
    logits = torch.zeros(1, 6)
    logits[0, 2], logits[0, 3] = 1.0, 0.9
    prompt_only = sequence(tokens=[2, 2, 2], num_prompt=3, temperature=0, presence_penalty=2.0)
    assert sample(logits.clone(), [prompt_only])[0].token == 2
    once = sequence(tokens=[5, 2], num_prompt=1, temperature=0, presence_penalty=0.2)
    assert sample(logits.clone(), [once])[0].token == 3
    twice = sequence(tokens=[5, 2, 2], num_prompt=1, temperature=0, frequency_penalty=0.06)
    assert sample(logits.clone(), [twice])[0].token == 3


def test_bias_allowed_tokens_and_min_tokens_do_what_they_say() -> None:
    logits = torch.tensor([[5.0, 1.0, 2.0, 3.0]])
    assert sample(logits.clone(), [sequence(temperature=0, logit_bias={1: 10.0})])[0].token == 1
    assert sample(logits.clone(), [sequence(temperature=0, allowed_token_ids=[1, 2])])[0].token == 2
    assert sample(logits.clone(), [sequence(temperature=0, min_tokens=1)])[0].token == 3
    enough = sequence(tokens=[1, 2], num_prompt=1, temperature=0, min_tokens=1)
    assert sample(logits.clone(), [enough])[0].token == 0


def test_logprobs_are_of_the_models_own_distribution() -> None:
    logits = torch.randn(1, 30, generator=torch.Generator().manual_seed(8))
    expected = torch.log_softmax(logits, -1)[0]
    draw = sample(logits.clone(), [sequence(temperature=0.2, top_k=3, logprobs=4)])[0]
    assert draw.logprobs is not None
    assert draw.logprobs.logprob == pytest.approx(float(expected[draw.token]))
    values, ids = expected.topk(4)
    assert [token for token, _ in draw.logprobs.top] == ids.tolist()
    assert [value for _, value in draw.logprobs.top] == pytest.approx(values.tolist())
    assert draw.logprobs.rank == int((expected > expected[draw.token]).sum()) + 1


def test_a_row_that_is_not_finite_fails_alone() -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(9))
    clean = [draw.token for draw in sample(logits.clone(), [sequence(i) for i in range(3)])]
    logits[1, 4] = torch.nan
    draws = sample(logits, [sequence(i) for i in range(3)])
    assert "not finite" in str(draws[1].error)
    assert [draws[0].token, draws[2].token] == [clean[0], clean[2]]


def test_forbidding_everything_is_an_error_of_that_row() -> None:
    rows = [sequence(0, allowed_token_ids=[0], min_tokens=3), sequence(1)]
    draws = sample(torch.zeros(2, 5), rows)
    assert "forbid all" in str(draws[0].error)
    assert draws[1].error is None


def _kept(row: torch.Tensor) -> list[int]:
    return torch.nonzero(torch.isfinite(row)).flatten().tolist()

"""Drawing and describing tokens: the operators against their references in torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ramify.kernels.sampling import (
    describe_tokens,
    draw_tokens,
    reference_describe_tokens,
    reference_draw_tokens,
)

OnEveryPath = Callable[[Callable[[], torch.Tensor]], list[torch.Tensor]]
TRUNCATIONS = {
    "none": {},
    "top_k": {"top_k": 7},
    "a large top_k": {"top_k": 600},
    "top_k of everything": {"top_k": 5000},
    "top_p": {"top_p": 0.7},
    "a tiny top_p": {"top_p": 1e-9},
    "a top_p of almost all": {"top_p": 1 - 1e-9},
    "min_p": {"min_p": 0.05},
    "typical_p": {"typical_p": 0.4},
    "all of them": {"top_k": 50, "top_p": 0.91, "min_p": 0.01, "typical_p": 0.8},
}


def parameters(rows: int, temperature: float = 1.0, seed: int = 0, **truncation: float) -> np.ndarray:
    draws = np.random.default_rng(seed).random(rows)
    defaults = {"top_k": 0.0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0} | truncation
    return np.array([[0 if temperature == 0 else 1 / temperature, *defaults.values(), draw] for draw in draws])


def logits_of(rows: int, size: int, spread: float) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(size)) * spread


@pytest.mark.parametrize("size", [1, 512, 1300])
@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("spread", [0.1, 4.0])
def test_tokens_are_those_of_the_reference(size: int, truncation: str, spread: float) -> None:
    logits = logits_of(50, size, spread)
    how = parameters(50, temperature=0.8, **TRUNCATIONS[truncation])
    found, expected = draw_tokens(logits, how), reference_draw_tokens(logits, how)
    # A draw that falls between two tokens up to the rounding of sums may fall on either side.
    assert np.mean(np.array(found) == expected) >= 0.98


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_of_equal_logits_lower_ids_stay(truncation: str) -> None:
    logits = torch.randint(0, 4, (1, 1500), generator=torch.Generator().manual_seed(1)).float().repeat(50, 1)
    how = parameters(50, **TRUNCATIONS[truncation])
    found, expected = draw_tokens(logits, how), reference_draw_tokens(logits, how)
    assert np.mean(np.array(found) == expected) >= 0.98


def test_the_ends_of_the_distribution() -> None:
    logits = torch.full((3, 1300), -torch.inf)
    logits[0, 3], logits[1, 1299], logits[2, 600] = 1.0, -50.0, 1e30
    for draw in (1e-17, 0.5, 1 - 1e-16):
        for temperature in (0.0, 1e-6, 1.0):
            how = parameters(3, temperature, top_p=0.9, top_k=3.0)
            how[:, -1] = draw
            assert draw_tokens(logits, how) == [3, 1299, 600]


def test_the_most_likely_token_and_of_equals_the_first() -> None:
    logits = logits_of(20, 2000, 1.0).round()
    assert draw_tokens(logits, parameters(20, temperature=0)) == logits.argmax(1).tolist()


def test_rows_that_are_not_finite_are_told() -> None:
    logits = logits_of(5, 700, 1.0)
    logits[0, 699], logits[1, 0], logits[2], logits[3, 17] = torch.nan, torch.inf, -torch.inf, -torch.inf
    for temperature in (0.0, 1.0):
        how = parameters(5, temperature, top_p=0.9)
        assert [token >= 0 for token in draw_tokens(logits, how)] == [False, False, False, True, True]
        assert [token >= 0 for token in reference_draw_tokens(logits, how)] == [False, False, False, True, True]
    told = describe_tokens(logits, [0] * 5, 3)
    assert np.isnan(told.logprobs).tolist() == [True, True, True, False, False]


def test_tokens_do_not_depend_on_rows_threads_or_instruction_set(on_every_path: OnEveryPath) -> None:
    logits = logits_of(24, 1111, 3.0)
    each = list(TRUNCATIONS.values())
    how = np.concatenate([parameters(1, seed=i, **each[i % len(each)]) for i in range(24)])
    together = on_every_path(lambda: torch.tensor(draw_tokens(logits, how)))
    alone = on_every_path(lambda: torch.tensor([draw_tokens(logits[i : i + 1], how[i : i + 1])[0] for i in range(24)]))
    assert all(torch.equal(together[0], other) for other in together + alone)


@pytest.mark.parametrize("size", [1, 37, 512, 3000])
@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
def test_descriptions_are_those_of_the_reference(isa: str, threads: int, size: int, num_top: int) -> None:
    logits = logits_of(9, size, 3.0)
    tokens = [i * 7 % size for i in range(9)]
    found, expected = (
        describe_tokens(logits, tokens, num_top),
        reference_describe_tokens(logits, tokens, min(num_top, size)),
    )
    assert found.ranks == expected.ranks
    assert found.top_ids == expected.top_ids
    for name in ("logprobs", "means", "top_logprobs"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-5)


def test_descriptions_are_the_same_bits_alone_and_on_every_path(on_every_path: OnEveryPath) -> None:
    logits, tokens = logits_of(6, 900, 3.0), [3, 800, 0, 899, 511, 512]

    def together() -> torch.Tensor:
        told = describe_tokens(logits, tokens, 2)
        return torch.tensor([told.logprobs, told.means])

    def alone() -> torch.Tensor:
        told = [describe_tokens(logits[i : i + 1], tokens[i : i + 1], 2) for i in range(6)]
        return torch.tensor([[each.logprobs[0] for each in told], [each.means[0] for each in told]])

    found = on_every_path(together) + on_every_path(alone)
    assert all(torch.equal(found[0], other) for other in found)

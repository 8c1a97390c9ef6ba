"""Replaying a pool: what each way of choosing among k samples would have answered, at what cost in tokens.

Nothing is drawn here. A selector with a closed form is estimated exactly over all subsets of k samples, any other
one over seeded subsets; the interval is over problems. What a selector answers is decided by the very function that
its strategy calls (see `selectors`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ramify.errors import ConfigError
from ramify.evals import estimators
from ramify.evals.estimators import Interval, bootstrap_interval
from ramify.evals.pools import Pool, Sample
from ramify.evals.selectors import (
    CUT_PENALTY,
    REPLAYED,
    Estimate,
    ballot_of,
    correct,
    estimate_of,
    keys,
    logprob_of,
    score_of,
    scorer_of,
)
from ramify.scoring.prm import Aggregation, ProcessReward
from ramify.strategies.registry import parse_strategy
from ramify.strategies.selection.self_consistency import majority_of

Selector = Callable[[Sequence[Sample]], Sample | None]
"""Chooses one of some samples, given in the order in which they were drawn; None if it has no answer."""
SOFT_TEMPERATURE = 0.1
"""Of soft best-of-n, on scores in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One method at one k.

    Attributes:
        method: e.g. ``"majority"``.
        k: samples chosen among.
        accuracy: mean over problems with its interval.
        tokens: mean tokens a problem: generated and, where the method scores, the verifier's.
    """

    method: str
    k: int
    accuracy: Interval
    tokens: float


def replay(
    pool: Pool,
    ks: Sequence[int],
    reward_model: str | None = None,
    agg: Aggregation = "last",
    seed: int = 0,
    specs: Sequence[str] = (),
    count: int = REPLAYED,
) -> list[Replayed]:
    """All built-in methods at each k: pass@k, majority, log-probability and, with a reward model, the scored ones.

    Log-probability is left out for a pool that was drawn without. `specs` adds strategies that choose among finished
    answers, each under its own spec: their `n` is k.

    Args:
        pool: where the samples are.
        ks: numbers of samples, each from 1 to `pool.n`.
        reward_model: one of the pool's; None takes the only one, or none if there is none.
        agg: how a sample's step scores become one number.
        seed: of the subsets and intervals.
        specs: e.g. ``"rpc"`` or ``"confidence-vote:window=16,keep=0.5"``.
        count: subsets a problem for strategies without a closed form.

    Raises:
        ConfigError: a k is larger than the pool, the reward model is not in it, or it lacks what a spec chooses by.
    """
    model = _reward_model(pool, reward_model)
    methods = built_in(model, agg, seed)
    if any(sample.logprob is None for samples in pool.samples.values() for sample in samples):
        del methods["logprob"]
    paid = {name: (estimate, model if scored else None) for name, (estimate, scored) in methods.items()}
    for spec in specs:
        strategy = parse_strategy(spec)
        scorer = scorer_of(strategy)
        reader = scorer.model if isinstance(scorer, ProcessReward) else None
        paid[spec] = (estimate_of(strategy, pool, seed, count), reader)
    return [
        Replayed(name, k, accuracy_at_k(pool, estimate, k, seed), tokens_at_k(pool, k, reader))
        for name, (estimate, reader) in paid.items()
        for k in ks
    ]


def built_in(reward_model: str | None, agg: Aggregation, seed: int = 0) -> dict[str, tuple[Estimate, bool]]:
    """Methods by name: the estimate of one problem's accuracy at k, and whether the method pays for scores."""

    def score(sample: Sample) -> float:
        return sample_score(sample, str(reward_model), agg)

    methods: dict[str, tuple[Estimate, bool]] = {
        "pass@k": (lambda s, k: estimators.pass_at_k(len(s), sum(x.correct for x in s), k), False),
        "majority": (lambda s, k: estimators.maj_at_k(keys(s), correct(s), k), False),
        "logprob": (lambda s, k: estimators.best_of_n_at_k([logprob_of(x) for x in s], correct(s), k), False),
    }
    if reward_model is not None:
        methods["best-of-n"] = (
            lambda s, k: estimators.best_of_n_at_k([score(x) for x in s], correct(s), k),
            True,
        )
        methods["weighted"] = (
            lambda s, k: estimators.weighted_at_k(keys(s), [max(0.0, score(x)) for x in s], correct(s), k, seed),
            True,
        )
        methods["soft"] = (
            lambda s, k: estimators.soft_at_k([score(x) for x in s], correct(s), k, SOFT_TEMPERATURE, seed),
            True,
        )
    return methods


def accuracy_at_k(pool: Pool, estimate: Estimate, k: int, seed: int = 0) -> Interval:
    """Mean over the pool's problems of an estimate at k, with its bootstrap interval."""
    return bootstrap_interval([estimate(samples, k) for samples in pool.samples.values()], seed=seed)


def with_selector(selector: Selector, seed: int = 0) -> Estimate:
    """The estimate at k of any selector, over seeded subsets that it sees in random order."""

    def estimate(samples: Sequence[Sample], k: int) -> float:
        picks = [selector([samples[i] for i in subset]) for subset in estimators.subsets(len(samples), k, seed)]
        return float(np.mean([pick is not None and pick.correct for pick in picks]))

    return estimate


def tokens_at_k(pool: Pool, k: int, reward_model: str | None = None) -> float:
    """Mean tokens a problem of k samples; a reward model reads the prompt once and each sample. NaN for no problem."""
    if not pool.samples:
        return float("nan")
    return float(np.mean([_tokens(samples, k, reward_model) for samples in pool.samples.values()]))


def _tokens(samples: Sequence[Sample], k: int, reward_model: str | None) -> float:
    generated = k * float(np.mean([sample.generated for sample in samples]))
    if reward_model is None:
        return generated
    read = k * float(np.mean([sample.verifier[reward_model] for sample in samples]))
    return generated + samples[0].prompt_tokens + read


def majority(samples: Sequence[Sample]) -> Sample | None:
    """The most frequent answer's likeliest sample; ties by summed mean log-probability, then the first seen."""
    winner = majority_of([ballot_of(sample) for sample in samples])
    return None if winner is None else samples[winner]


def best_of_n(reward_model: str, agg: Aggregation = "last") -> Selector:
    """The sample with the highest score; ties to the first."""

    def choose(samples: Sequence[Sample]) -> Sample | None:
        return max(samples, key=lambda sample: sample_score(sample, reward_model, agg), default=None)

    return choose


def sample_score(sample: Sample, reward_model: str, agg: Aggregation) -> float:
    """One number from a sample's step scores; that of a cut answer lies below all those of finished ones.

    Raises:
        ConfigError: the pool was drawn without this reward model.
    """
    score = score_of(ProcessReward(reward_model, agg), sample)
    return score if sample.finish_reason == "stop" else score - CUT_PENALTY


def _reward_model(pool: Pool, name: str | None) -> str | None:
    known = pool.reward_models
    if name is None and len(known) > 1:
        raise ConfigError(f"the pool has scores of {', '.join(known)}: name one reward model")
    if name is not None and name not in known:
        raise ConfigError(f"the pool has no scores of {name!r} (it has {', '.join(known) or 'none'})")
    return name if name is not None else (known[0] if known else None)

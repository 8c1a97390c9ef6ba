"""Selectors over stored samples: what a strategy would choose among some of a problem's, by the function it calls.

A strategy that only draws n answers and chooses is replayed at any k from one pool, with no model; one that needs more
than a pool holds (a judge's calls, fused answers) says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ramify.backends.base import StepScores
from ramify.errors import ConfigError
from ramify.evals import estimators
from ramify.evals.pools import Pool, Sample
from ramify.scoring.confidence import DeepConf, InversePerplexity, SelfCertainty, trace_confidence
from ramify.scoring.logprob import MeanLogprob
from ramify.scoring.prm import ProcessReward, aggregate
from ramify.scoring.scorers import Scorer
from ramify.strategies.registry import Strategy, describe
from ramify.strategies.selection.ballots import Ballot, standing
from ramify.strategies.selection.best_of_n import BestOfN
from ramify.strategies.selection.confidence_vote import ConfidenceVote
from ramify.strategies.selection.mbr import MinimumBayesRisk, least_risk, measure_of, similarities
from ramify.strategies.selection.rpc import PerplexityConsistency, rpc
from ramify.strategies.selection.self_consistency import SelfConsistency, majority_of
from ramify.strategies.selection.shortest_majority import ShortestMajority, shortest_majority
from ramify.strategies.selection.tournament import Tournament, score_tournament
from ramify.strategies.selection.weighted_vote import WeightedVote, weighted_vote
from ramify.strategies.votes import best_of

Chooser = Callable[[Sequence[int]], int | None]
"""Chooses one of a problem's samples among some, both by their places in the pool; None if there is no answer."""
Estimate = Callable[[Sequence[Sample], int], float]

CUT_PENALTY = 2.0
"""Scores lie in [0, 1], so a cut answer never stands against a finished one (as in the strategies)."""
REPLAYED = 200
"""Subsets a problem: over 100 problems the error of the mean that they add is under half a point."""


def estimate_of(strategy: Strategy, pool: Pool, seed: int = 0, count: int = REPLAYED) -> Estimate:
    """The estimate of a strategy's accuracy at k on one problem: exact where there is a closed form.

    Args:
        strategy: its own `n` makes no difference; k takes its place.
        pool: what the samples come from.
        seed: of the subsets.
        count: subsets a problem, where there is no closed form.

    Raises:
        ConfigError: the pool does not hold what the strategy chooses by.
    """
    check_replayable(strategy, pool)
    if isinstance(strategy, BestOfN) and strategy.select == "max":
        return lambda samples, k: estimators.best_of_n_at_k(ranked(strategy.scorer, samples), correct(samples), k)

    def estimate(samples: Sequence[Sample], k: int) -> float:
        if isinstance(strategy, BestOfN) and strategy.select == "soft":
            scores = ranked(strategy.scorer, samples)
            return estimators.soft_at_k(scores, correct(samples), k, strategy.tau, seed)
        choose = chooser_of(strategy, samples)
        picks = [choose([int(i) for i in subset]) for subset in estimators.subsets(len(samples), k, seed, count)]
        return float(np.mean([pick is not None and samples[pick].correct for pick in picks]))

    return estimate


def chooser_of(strategy: Strategy, samples: Sequence[Sample]) -> Chooser:
    """What a strategy chooses among some of one problem's samples.

    Raises:
        ConfigError: it chooses by more than a pool holds.
    """
    ballots = [ballot_of(sample) for sample in samples]
    scorer = scorer_of(strategy)
    scores = [] if scorer is None else [score_of(scorer, sample) for sample in samples]

    def among(choose: Callable[[list[Ballot], list[float]], int | None]) -> Chooser:
        def chosen(places: Sequence[int]) -> int | None:
            winner = choose([ballots[i] for i in places], [scores[i] for i in places] if scores else [])
            return None if winner is None else places[winner]

        return chosen

    match strategy:
        case SelfConsistency():
            return among(lambda some, _: majority_of(some))
        case BestOfN(select="max"):
            return among(lambda some, own: best_of(own, standing(some)))
        case BestOfN(select="weighted"):
            return among(lambda some, own: weighted_vote(some, own)[0])
        case WeightedVote(transform=transform, tau=tau, power=power):
            return among(lambda some, own: weighted_vote(some, own, transform, tau, power)[0])
        case ConfidenceVote(transform=transform, tau=tau, power=power, keep=keep):
            return among(lambda some, own: weighted_vote(some, own, transform, tau, power, keep)[0])
        case ShortestMajority():
            return among(lambda some, _: shortest_majority(some)[0])
        case PerplexityConsistency(prune=prune, probability=probability):
            return among(lambda some, _: rpc(some, prune, probability)[0])
        case Tournament(tau=tau, among=players, limit=limit, rounds=rounds, prior=prior) if strategy.judge == "scores":
            return among(lambda some, own: score_tournament(some, own, tau, players, limit, rounds, prior)[0])
        case MinimumBayesRisk(similarity=named):
            matrix = similarities(ballots, measure_of(named))

            def least(places: Sequence[int]) -> int | None:
                winner, _ = least_risk([ballots[i] for i in places], matrix[np.ix_(places, places)])
                return None if winner is None else places[winner]

            return least
    raise ConfigError(f"{describe(strategy)} cannot be replayed from a pool: it needs the model; run it instead")


def check_replayable(strategy: Strategy, pool: Pool) -> None:
    """Refuse what the pool cannot answer, before anything is counted.

    Raises:
        ConfigError: names what the pool lacks.
    """
    scorer = scorer_of(strategy)
    if isinstance(scorer, ProcessReward) and scorer.model not in pool.reward_models:
        raise ConfigError(
            f"the pool has no scores of {scorer.model!r} (it has {', '.join(pool.reward_models) or 'none'})"
        )
    if isinstance(scorer, DeepConf) and scorer.top != pool.details:
        raise ConfigError(
            f"the pool's confidences average over {pool.details} tokens and top={scorer.top} is asked for: "
            f"choose top={pool.details}"
            if pool.details
            else "the pool holds no confidences: draw it with details"
        )
    for samples in pool.samples.values():
        chooser_of(strategy, samples[:1])


def scorer_of(strategy: Strategy) -> Scorer | None:
    """The scorer that a strategy chooses by, if it does."""
    if isinstance(strategy, BestOfN | WeightedVote | ConfidenceVote):
        return strategy.scorer
    return strategy.scorer if isinstance(strategy, Tournament) and strategy.judge == "scores" else None


def score_of(scorer: Scorer, sample: Sample) -> float:
    """A scorer's number for a stored sample.

    Raises:
        ConfigError: the pool does not hold what it reads.
    """
    match scorer:
        case ProcessReward(model=model, agg=agg):
            if model not in sample.steps:
                raise ConfigError(f"the pool has no scores of {model!r} (it has {', '.join(sample.steps) or 'none'})")
            return aggregate(StepScores(sample.steps[model], 0), agg)
        case MeanLogprob():
            return logprob_of(sample)
        case InversePerplexity():
            return math.exp(logprob_of(sample))
        case SelfCertainty() if sample.self_certainty is not None:
            return sample.self_certainty
        case DeepConf(measure=measure, window=window) if sample.confidences or sample.generated == 0:
            return trace_confidence(np.array(sample.confidences), measure, window)
    name = type(scorer).__name__
    raise ConfigError(
        f"the samples of {sample.problem!r} carry nothing that {name} reads: draw the pool anew, or run it"
    )


def ranked(scorer: Scorer, samples: Sequence[Sample]) -> list[float]:
    """Scores by which finished samples come before all cut ones."""
    scores = [score_of(scorer, sample) for sample in samples]
    drop = max(CUT_PENALTY, max(scores) - min(scores) + 1) if scores else 0.0
    pairs = zip(scores, samples, strict=True)
    return [score if sample.finish_reason == "stop" else score - drop for score, sample in pairs]


def ballot_of(sample: Sample) -> Ballot:
    """A stored sample as selectors see it."""
    total = sample.logprob_sum
    if total is None and sample.logprob is not None:
        total = sample.logprob * sample.generated  # a pool of earlier versions
    return Ballot(
        answer=sample.key,
        text=sample.text,
        tokens=sample.tokens,
        num_tokens=sample.generated,
        logprob=total,
        finished=sample.finish_reason == "stop",
    )


def keys(samples: Sequence[Sample]) -> list[str | None]:
    """The samples' answers."""
    return [sample.key for sample in samples]


def correct(samples: Sequence[Sample]) -> list[bool]:
    """Whether each is right."""
    return [sample.correct for sample in samples]


def logprob_of(sample: Sample) -> float:
    """A sample's mean log-probability. Raises `ConfigError` where the pool holds none."""
    if sample.logprob is None:
        raise ConfigError(f"the samples of {sample.problem!r} carry no log-probabilities: choose another method")
    return sample.logprob

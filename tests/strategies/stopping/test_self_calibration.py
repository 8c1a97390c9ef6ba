"""Self-calibration: the exit, the share and the vote, each against an independent count over the full sample."""

import math

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.scoring import KeyedBy
from ramify.scoring.calibration import CalibrationMap
from ramify.strategies import BestOfN, Sample, parse_strategy
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, run_many

RUNS = 30
ONLY_B = KeyedBy(lambda text, problem: "b" if text.startswith("b") else None)


def confidence(tokens):
    """Some confidence for each answer, ties included."""
    return (3 * sum(tokens) + len(tokens)) % 8 / 8


def full(n, **options):
    """The answers that best-of-n draws under the same seeds, with their scores."""
    return run_many(BestOfN(n=n), RUNS, reward=confidence, **options)


def calibrated(spec, **options):
    return run_many(parse_strategy(f"self-calibration:scorer=prm,{spec}"), RUNS, reward=confidence, **options)


def keys(candidates):
    return [candidate.node.key for candidate in candidates]


@pytest.mark.parametrize("window", [0, 3, 10])
@pytest.mark.parametrize("tau", [0.5, 0.875])
def test_the_first_answer_of_enough_confidence_is_taken_and_else_the_surest(tau, window):
    exits = set()
    for whole, part in zip(full(10), calibrated(f"n=10,tau={tau},window={window}"), strict=True):
        readable = [c for c in whole.candidates if c.answer is not None]
        sure = [c for c in readable if c.score >= tau]
        if sure:
            place = keys(whole.candidates).index(sure[0].node.key)
            assert part.best.key == sure[0].node.key
            assert keys(part.candidates) == keys(whole.candidates)[: place + 1]
            assert part.stop_reason == "certain"
        elif readable:
            surest = max(readable, key=lambda c: c.score)  # the first of equals, and not the last drawn
            assert part.best.key == surest.node.key
            assert len(part.candidates) == 10
            assert part.stop_reason == "finished"
        exits.add(len(part.candidates))
    assert len(exits) >= 2


@pytest.mark.parametrize("window", [0, 10])
@pytest.mark.parametrize("tau", [0.6, 0.75, 0.9])
def test_a_share_of_the_confidence_stops_the_vote_where_an_independent_sum_does(tau, window):
    lengths = set()
    for whole, part in zip(full(10), calibrated(f"n=10,mode=asc,tau={tau},window={window}"), strict=True):
        expected = 10
        for n in range(2, 11):
            sums = {}
            for candidate in whole.candidates[:n]:
                sums.setdefault(candidate.answer, []).append(candidate.score)
            total = math.fsum(candidate.score for candidate in whole.candidates[:n])
            top = max((math.fsum(parts) for answer, parts in sums.items() if answer is not None), default=0)
            if total > 0 and top / total >= tau:
                expected = n
                break
        assert keys(part.candidates) == keys(whole.candidates)[:expected]
        lengths.add(expected)
    assert len(lengths) >= 3


def test_the_vote_weighs_by_confidence():
    for whole, part in zip(full(8), calibrated("n=8,mode=vote"), strict=True):
        assert keys(part.candidates) == keys(whole.candidates)
        sums = {}
        for candidate in whole.candidates:
            if candidate.answer is not None:
                sums[candidate.answer] = sums.get(candidate.answer, 0) + candidate.score
        if sums:
            assert sums[part.answer] == max(sums.values())
        assert part.stop_reason == "finished"


@pytest.mark.parametrize("mode", ["early-exit", "asc", "vote"])
def test_an_answer_that_cannot_be_read_neither_exits_nor_wins(mode):
    for part in calibrated(f"n=6,tau=0.5,mode={mode}", equivalence=ONLY_B):
        answers = [candidate.answer for candidate in part.candidates]
        assert part.answer == ("b" if "b" in answers else None)
        assert part.answer == "b" or len(answers) == 6


@pytest.mark.parametrize("mode", ["early-exit", "asc", "vote"])
def test_one_answer_is_plain_samplings(mode):
    sampled = [result.text for result in run_many(Sample(), RUNS)]
    assert [result.text for result in calibrated(f"n=1,mode={mode}")] == sampled


def test_without_a_window_nothing_is_drawn_or_judged_in_vain():
    for part in calibrated("n=10,tau=0.5"):
        assert part.ledger.discarded == 0
        assert part.ledger.generated == sum(candidate.node.num_tokens for candidate in part.candidates)
        assert (part.ledger.saved > 0) == (len(part.candidates) < 10)


def test_a_perfect_confidence_succeeds_when_any_of_n_samples_is_right():
    right = max(SMALL.law(0.8), key=SMALL.law(0.8).get)
    spec = parse_strategy("self-calibration:n=3,scorer=prm")
    results = run_many(spec, 200, reward=lambda tokens: float(tokens == right))
    chance = 1 - (1 - SMALL.law(0.8)[right]) ** 3
    hits = sum(result.best.tokens == right for result in results)
    assert abs(hits - 200 * chance) < 4 * math.sqrt(200 * chance * (1 - chance))


def test_a_calibration_map_moves_the_exit(tmp_path):
    CalibrationMap((0.0, 1.0), (0.0, 0.5), 1).save(tmp_path / "half.json")
    halved = calibrated(f"n=8,tau=0.375,calibration={tmp_path / 'half.json'}")
    plain = calibrated("n=8,tau=0.75")
    assert [keys(result.candidates) for result in halved] == [keys(result.candidates) for result in plain]
    assert [result.best.key for result in halved] == [result.best.key for result in plain]
    scores = np.array([candidate.score for result in plain for candidate in result.candidates])
    assert np.allclose([c.score for result in halved for c in result.candidates], scores / 2)


def test_scores_that_are_no_confidence_need_a_map(tmp_path):
    with pytest.raises(ConfigError, match="no confidence"):
        parse_strategy("self-calibration:scorer=logprob")
    CalibrationMap((-2.0, 0.0), (0.0, 1.0), 1).save(tmp_path / "map.json")
    parse_strategy(f"self-calibration:scorer=logprob,calibration={tmp_path / 'map.json'}")


@pytest.mark.parametrize(
    "spec",
    [
        "self-calibration:scorer=prm,n=6,window=3,mode=asc",
        "self-calibration:scorer=prm,n=4,mode=vote",
        "self-calibration:scorer=rule,n=4,window=4",
    ],
)
def test_it_keeps_the_laws(spec):
    check_strategy(parse_strategy(spec))


@pytest.mark.parametrize("options", ["n=0", "tau=0", "tau=1.1", "window=-1", "mode=last", "calibration=/no/such/map"])
def test_options_that_do_not_work_are_refused(options):
    with pytest.raises(ConfigError):
        parse_strategy(f"self-calibration:{options}")

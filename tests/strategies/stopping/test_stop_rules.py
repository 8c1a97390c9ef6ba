"""Stop rules: their exact thresholds, what counts for them, and that their state is plain data."""

import itertools
import math
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from scipy import integrate, special, stats

from ramify import registry
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError
from ramify.evals.pools import draw_pool
from ramify.scoring import Problem
from ramify.strategies import parse_strategy, solve
from ramify.strategies.stopping.rules import (
    Beta,
    ConfidenceShare,
    Dirichlet,
    OnlineVote,
    Poll,
    Saturation,
    Share,
    StopRule,
    ahead,
    leads,
    marginal_gain,
    replay,
    stop_rule,
)
from tests.evals.toy_task import ToyTask
from tests.strategies.laws import BY_TEXT

RULES = [Beta(0.8), Dirichlet(0.8), Share(0.6), ConfidenceShare(0.6), Saturation(0.05)]
PAIRS = list(itertools.product(range(0, 30, 6), repeat=2))


def poll(text):
    """A poll of one-letter answers; a dot has no answer."""
    answers = [None if letter == "." else letter for letter in text]
    return Poll(answers, [1.0] * len(answers), [0.0] * len(answers))


def first_stop(rule, text):
    return next((n for n in range(1, len(text) + 1) if rule.stops(poll(text[:n]))), None)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_beta_probability_is_the_incomplete_beta_function(first, second):
    assert ahead(first, second) == pytest.approx(1 - special.betainc(first + 1, second + 1, 0.5), abs=1e-12)


@pytest.mark.parametrize("agreeing", [1, 2, 3, 4, 7])
def test_beta_stops_at_its_threshold_exactly(agreeing):
    certainty = 1 - 0.5 ** (agreeing + 1)  # of so many equal answers
    assert first_stop(Beta(certainty), "a" * 12) == agreeing
    assert first_stop(Beta(math.nextafter(certainty, 1)), "a" * 12) == agreeing + 1


def test_beta_at_its_default_takes_four_equal_answers_or_seven_with_one_other():
    assert first_stop(Beta(), "aaaaaaaa") == 4
    assert first_stop(Beta(), "abaaaaaaa") == 7
    assert first_stop(Beta(), "abababab") is None


def test_beta_and_dirichlet_look_at_answers_alone_and_need_one():
    for rule in (Beta(0.9), Dirichlet(0.9)):
        assert not rule.stops(poll("...."))
        assert not rule.stops(poll(""))
        assert rule.stops(poll(".a.aa")) == rule.stops(poll("aaa"))
    assert not Beta(0.3).stops(poll("...")), "no answer can be read: nothing is ahead"


@pytest.mark.parametrize(("first", "second"), [(1, 0), (4, 0), (4, 4), (9, 2), (40, 31), (400, 380)])
def test_dirichlet_with_two_answers_is_beta(first, second):
    assert leads([first, second]) == pytest.approx(ahead(first, second), abs=1e-12)
    assert leads([first]) == pytest.approx(ahead(first, 0), abs=1e-12)


@pytest.mark.parametrize("counts", [(1, 1, 1), (3, 2, 1), (6, 1, 1, 1), (12, 7, 7)])
def test_dirichlet_with_more_answers_is_the_integral_that_defines_it(counts):
    gammas = [stats.gamma(count + 1) for count in counts]
    exact, _ = integrate.quad(
        lambda x: gammas[0].pdf(x) * math.prod(g.cdf(x) for g in gammas[1:]), 0, np.inf, epsabs=1e-12
    )
    assert leads(counts) == pytest.approx(exact, abs=1e-9)
    assert leads(counts) < ahead(counts[0], counts[1]), "more rivals, less certainty"


def test_share_stops_at_its_threshold_exactly_and_not_before_its_least():
    assert Share(0.75).stops(poll("aaab"))
    assert not Share(math.nextafter(0.75, 1)).stops(poll("aaab"))
    assert not Share(0.75).stops(poll("a"))
    assert Share(0.75, least=1).stops(poll("a"))
    assert not Share(0.75, least=5).stops(poll("aaaa"))


def test_a_sample_without_an_answer_agrees_with_none():
    assert Share(0.75).stops(poll("aaa."))
    assert not Share(0.75).stops(poll("aa.."))
    assert not Share(0.1).stops(poll("....")), "none of them is no winner"


def test_confidence_share_weighs_and_stops_at_its_threshold_exactly():
    votes = Poll(["a", "b", "a"], [0.5, 0.25, 0.25], [0.0] * 3)
    assert ConfidenceShare(0.75).stops(votes)
    assert not ConfidenceShare(math.nextafter(0.75, 1)).stops(votes)
    assert not ConfidenceShare(0.5).stops(Poll(["a"], [1.0], [0.0])), "one answer always has the whole sum"
    assert not ConfidenceShare(0.6).stops(Poll(["a", None], [0.5, 0.5], [0.0] * 2)), "its doubt counts"
    assert not ConfidenceShare(0.5).stops(Poll(["a", "a"], [0.0, 0.0], [0.0] * 2)), "no confidence at all"


def test_the_marginal_gain_is_the_step_of_the_curve_and_vanishes_at_its_saturation_point():
    for p, drawn, ceiling in itertools.product((0.05, 0.3, 0.9), (0, 1, 5, 20), (0.6, 1.0)):
        curve = [ceiling * (1 - (1 - p) ** n) for n in (drawn, drawn + 1)]
        assert marginal_gain(p, drawn, ceiling) == pytest.approx(curve[1] - curve[0], abs=1e-12)
    p, epsilon = 0.2, 0.01
    point = math.log(epsilon / p) / math.log(1 - p)  # where p (1 - p)^N = epsilon
    assert marginal_gain(p, math.floor(point)) >= epsilon > marginal_gain(p, math.ceil(point))


def test_saturation_stops_where_the_estimated_gain_falls_below_its_threshold():
    gain = 4 / 5 * (1 - 4 / 5) ** 3  # after three of three
    assert first_stop(Saturation(gain), "a" * 9) == 4, "a gain of tau is still worth it"
    assert first_stop(Saturation(math.nextafter(gain, 1)), "a" * 9) == 3
    assert first_stop(Saturation(0.02), "abcdefghijklmnopqrstuvwxyz") == 14, "scattered answers promise little too"
    assert first_stop(Saturation(0.1, ceiling=0.5), "aaa") < first_stop(Saturation(0.01, ceiling=0.5), "aaa")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_the_order_of_the_votes_makes_no_difference_to_a_rule(rule):
    for text in ("aab", "aab.b", "abc", "aaaab", "a.."):
        outcomes = {rule.stops(poll("".join(order))) for order in itertools.permutations(text)}
        assert len(outcomes) == 1


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("start", ["", "a", "ab", "aab", ".", "ab."])
def test_fewer_samples_than_needed_never_stop_a_rule(rule, start):
    online = OnlineVote(rule, poll(start))
    needed = online.needed(limit=4)
    assert 1 <= needed <= 4
    for count in range(1, needed):
        for future in itertools.product("abc.", repeat=count):
            later = poll(start + "".join(future))
            assert not rule.stops(later)
            later.weights[len(start) :] = [0.3] * count
            assert not rule.stops(later)
    if needed < 4:
        assert rule.stops(poll(start + "a" * needed)) or rule.stops(poll(start + "." * needed))


def test_a_vote_is_told_by_the_weights_and_ties_by_merit_then_order():
    online = OnlineVote(Beta())
    for answer, weight, merit in [("a", 1, -2.0), (None, 9, 0.0), ("b", 1, -1.0)]:
        online.add(answer, weight, merit)
    assert online.result() == 2
    online.add("a", 1, -0.5)
    assert online.result() == 3, "the likeliest sample of the winner stands for it"


def test_a_poll_goes_on_from_its_stored_state():
    answers = [*"abaa", None, *"aaaaba"]
    whole = [OnlineVote(Beta(0.97)) for _ in range(2)]
    expected = [whole[0].add(answer, merit=-i / 7) for i, answer in enumerate(answers)]
    found = []
    online = whole[1]
    for i, answer in enumerate(answers):
        stored = msgspec.json.encode(online.poll)
        online = OnlineVote(Beta(0.97), msgspec.json.decode(stored, type=Poll))
        found.append(online.add(answer, merit=-i / 7))
    assert found == expected
    assert online.result() == whole[0].result()
    assert Poll().answers == [], "an empty poll shares nothing with another"


def test_a_replay_reads_no_further_than_the_rule():
    found = replay(Beta(), "abaaaaaaaaaa")
    assert (found.read, found.winner, found.stopped) == (7, 0, True)
    found = replay(Beta(), [None, "b", None])
    assert (found.read, found.winner, found.stopped) == (3, 1, False)
    found = replay(ConfidenceShare(0.7), "aba", weights=[0.1, 0.9, 0.5])
    assert (found.read, found.winner, found.stopped) == (2, 1, True)
    assert replay(Share(), []).winner is None


async def test_a_replay_over_a_stored_pool_is_the_live_run(tmp_path):
    model = ToyModel.random(1, texts=("", "a", "b\n"), depth=3)
    problems = [Problem(str(i), "xy", task="toy") for i in range(8)]
    for spec, rule in [
        ("adaptive-consistency:n=12,tau=0.9", Beta(0.9)),
        ("adaptive-consistency:n=12,tau=0.8,rule=dirichlet", Dirichlet(0.8)),
        ("saturation:n=12,epsilon=0.02", Saturation(0.02)),
    ]:
        strategy = parse_strategy(spec)
        backend = ToyBackend(model)
        pool = await draw_pool(
            tmp_path / f"{spec.replace(':', '-')}.jsonl", ToyTask(), problems, backend,
            model="toy", n=12, params=strategy.sampling,
        )  # fmt: skip
        for problem in problems:
            samples = pool.samples[problem.id]
            found = replay(rule, [s.key for s in samples], merits=[s.logprob for s in samples])
            live = await solve(strategy, problem, backend, equivalence=BY_TEXT)
            assert len(live.candidates) == found.read
            assert live.stop_reason == ("certain" if found.stopped else "finished")
            assert live.best.tokens == samples[found.winner or 0].tokens


def test_every_registered_rule_is_made_by_its_threshold():
    names = {entry.name for entry in registry.techniques("stop rule")}
    assert names >= {"beta", "dirichlet", "share", "confidence-share", "saturation"}
    for name in names:
        rule = stop_rule(name, 0.5)
        assert isinstance(rule, StopRule)
        assert rule.tau == 0.5


def test_a_rule_of_ones_own_works_in_a_method(monkeypatch):
    monkeypatch.setattr(registry, "_TECHNIQUES", dict(registry._TECHNIQUES))

    @registry.register("enough", kind="stop rule", trade="approximate")
    @dataclass(frozen=True)
    class Enough:
        tau: float = 0.5

        def stops(self, poll):
            return len(poll.answers) >= 10 * self.tau

    assert parse_strategy("adaptive-consistency:rule=enough,tau=0.3").rule == "enough"
    assert replay(stop_rule("enough", 0.3), "abcdefg").read == 3


@pytest.mark.parametrize("tau", [0, -1, 1.5, math.nan])
def test_a_threshold_out_of_range_is_refused(tau):
    for name in ("beta", "dirichlet", "share", "confidence-share", "saturation"):
        with pytest.raises(ConfigError, match="tau"):
            stop_rule(name, tau)


def test_other_bad_options_are_refused():
    with pytest.raises(ConfigError, match="least=0"):
        Share(least=0)
    with pytest.raises(ConfigError, match="least=0"):
        ConfidenceShare(least=0)
    with pytest.raises(ConfigError, match="ceiling=2"):
        Saturation(ceiling=2)
    with pytest.raises(ConfigError, match=r"did you mean 'beta'"):
        stop_rule("betta", 0.5)

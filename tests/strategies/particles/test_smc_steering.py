"""SMC steering: the model's law given the constraint, and how likely the constraint was."""

import asyncio
import math
import re
from collections import Counter

import numpy as np
import pytest

from ramify.backends.local import LocalBackend
from ramify.backends.toy import ToyModel
from ramify.errors import ConfigError
from ramify.scoring import Problem
from ramify.strategies import parse_strategy, solve
from ramify.strategies.kernel.trace import Grown, Resampled
from ramify.strategies.particles.log_marginal import log_marginal
from ramify.strategies.particles.smc_steering import SmcSteering
from ramify.strategies.testing import check_strategy
from ramify.text.constraints import AllowedIds, Length
from tests.strategies.laws import chi_square, run_many

MODEL = ToyModel(
    ("", "a", "b\n", "c\n"),
    {
        (): np.array([0.05, 0.6, 0.2, 0.15]),
        (1,): np.array([0.5, 0.35, 0.1, 0.05]),
        (2,): np.array([0.3, 0.3, 0.2, 0.2]),
        (3,): np.array([0.2, 0.2, 0.5, 0.1]),
        **{
            (first, second): np.array([0.1 * (first + second), *[(1 - 0.1 * (first + second)) / 3] * 3])
            for first in (1, 2, 3)
            for second in (1, 2, 3)
        },
    },
)
LIMIT = 3
FORBID = "aa|ab|\nb"
"""Most answers that begin with "a" cannot go on: a mask sees it too late."""


def chances(keep, temperature=1.0, reward=lambda tokens: 1.0):
    """What is drawn and kept, with its unnormalised probability: it ends within the limit."""
    law = {(): 1.0}
    found = {}
    for _ in range(LIMIT):
        grown = {}
        for tokens, mass in law.items():
            for token, chance in enumerate(MODEL.conditional(tokens, temperature)):
                place = found if token == 0 else grown
                place[(*tokens, token)] = mass * float(chance)
        law = grown
    return {tokens: mass * reward(tokens) for tokens, mass in found.items() if keep(MODEL.text(tokens))}


def allowed(text):
    return len(text) > 0 and not any(word in text for word in FORBID.split("|"))


def normal(masses):
    return {tokens: mass / sum(masses.values()) for tokens, mass in masses.items()}


def steer(options, runs, **more):
    spec = f"smc-steering:max_tokens={LIMIT},temperature=1,{options}"
    return run_many(parse_strategy(spec), runs, model=MODEL, **more)


def p_value(results, law):
    return chi_square(Counter(result.best.tokens for result in results), law, len(results))


CONSTRAINED = f"forbid={FORBID},min_answer=1"


@pytest.mark.parametrize("more", ["", ",ess=1,temperature=0.7,resampling=residual"])
def test_answers_follow_the_models_law_given_the_constraint(more):
    options = f"n=12,{CONSTRAINED}{more}"
    spec = f"smc-steering:max_tokens={LIMIT},{options}" + ("" if "temperature" in more else ",temperature=1")
    results = run_many(parse_strategy(spec), 150, model=MODEL)
    assert p_value(results, normal(chances(allowed, 0.7 if "temperature" in more else 1.0))) > 1e-3


def test_masking_alone_follows_another_law():
    assert p_value(steer(f"n=1,{CONSTRAINED}", 250), normal(chances(allowed))) < 1e-6


def test_a_regex_conditions_the_law_as_well():
    pattern = "a*c\n|b\n(a|b\n)*"
    results = steer("n=16", 1)  # without a constraint all is kept
    assert log_marginal(results[0]) < 0  # but the end within the limit
    spec = parse_strategy(f"smc-steering:n=12,max_tokens={LIMIT},temperature=1,regex={pattern}")
    law = normal(chances(lambda text: re.fullmatch(pattern, text) is not None))
    assert p_value(run_many(spec, 150, model=MODEL), law) > 1e-3


def test_a_critic_multiplies_the_law_by_its_reward():
    def reward(tokens):
        return 0.9 if 3 in tokens else 0.2

    results = steer(f"n=12,{CONSTRAINED},scorer=prm", 150, reward=reward)
    assert p_value(results, normal(chances(allowed, reward=reward))) > 1e-3


@pytest.mark.parametrize(
    ("options", "reward"),
    [
        ("n=2,ess=1", None),
        ("n=3,ess=0.6,resampling=multinomial", None),
        ("n=2,ess=1,scorer=prm", lambda tokens: 0.9 if 3 in tokens else 0.2),
    ],
)
def test_the_log_marginal_estimates_the_constraints_probability_without_bias(options, reward):
    results = steer(f"{options},{CONSTRAINED}", 200, reward=reward)
    estimates = [math.exp(log_marginal(result)) for result in results]
    exact = sum(chances(allowed, reward=reward or (lambda tokens: 1.0)).values())
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 4 * error
    assert error < 0.15 * exact


def test_no_candidate_breaks_the_constraint_or_the_limit():
    for result in steer(f"n=6,{CONSTRAINED}", 60):
        for candidate in result.candidates:
            assert allowed(candidate.node.text)
            assert candidate.node.tokens[-1] == 0
            assert candidate.node.num_tokens <= LIMIT


def test_a_constraint_from_python_holds_together_with_the_others():
    constraint = AllowedIds((1, 2))
    strategy = SmcSteering(
        n=8, constraint=constraint, forbid="aa", sampling=parse_strategy("sample:max_tokens=3").sampling
    )
    for result in run_many(strategy, 40, model=MODEL):
        assert set(result.best.tokens[:-1]) <= {1, 2}
        assert "aa" not in result.text


def test_where_nothing_can_keep_the_constraint_there_is_no_answer_and_no_weight():
    strategy = SmcSteering(n=3, constraint=Length(at_least=5), sampling=parse_strategy("sample:max_tokens=3").sampling)
    for result in run_many(strategy, 3, model=MODEL):
        assert result.candidates == ()
        assert result.answer is None
        assert log_marginal(result) == -math.inf
        assert "no particle kept the constraint" in result.notes[0]


def test_weights_of_finished_answers_add_up_and_nothing_is_resampled_after_the_last_token():
    for result in steer(f"n=5,{CONSTRAINED},ess=1", 30):
        assert sum(candidate.weight for candidate in result.candidates) == pytest.approx(1)
        moves = [type(event) for event in result.trace.events if isinstance(event, Grown | Resampled)]
        assert moves[-1] is Grown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("n=0", "n=0"),
        ("temperature=0", "temperature above 0"),
        ("top_p=0.9", "no truncation"),
        ("min_tokens=3", "min_answer"),
        ("stop=x", "stops would end"),
        ("scorer=logprob", "rewards from 0 to 1"),
        ("resampling=fair", "choose from"),
    ],
)
def test_options_that_do_not_work_are_refused_with_the_remedy(options, words):
    with pytest.raises(ConfigError, match=words):
        parse_strategy(f"smc-steering:{options}")


def test_a_grammar_is_read_from_a_file(tmp_path):
    path = tmp_path / "answers.lark"
    path.write_text('start: "a" start | "c" "\\n"\n')
    assert {result.text for result in steer(f"n=16,grammar=@{path}", 10)} <= {"c\n", "ac\n"}
    with pytest.raises(ConfigError, match="cannot be read"):
        steer(f"grammar=@{path}.txt", 1)


PATTERNS = [r"[0-9]+ [-+*/] [0-9]+ = [0-9]+\n#### [0-9]+", r"#### [1-4]{2}5", r"(yes|no)"]


def test_the_engines_answers_always_match():
    async def run():
        async with LocalBackend.load("nano") as backend:
            for number, pattern in enumerate(PATTERNS):
                strategy = parse_strategy("smc-steering:n=4,max_tokens=40")
                strategy = SmcSteering(n=4, regex=pattern, sampling=strategy.sampling)
                result = await solve(strategy, Problem(str(number), "12 + 30 = ?"), backend, seed=number)
                assert result.candidates
                assert math.isfinite(log_marginal(result))
                for candidate in result.candidates:
                    assert re.fullmatch(pattern, candidate.node.text)
                    assert candidate.node.num_tokens <= 40

    asyncio.run(run())


@pytest.mark.parametrize(
    "spec",
    [
        "smc-steering:n=3,max_tokens=3",
        "smc-steering:n=3,regex=(a|b\n)*,scorer=prm,max_tokens=3,resampling=stratified",
    ],
)
def test_it_keeps_the_laws_of_every_strategy(spec):
    check_strategy(parse_strategy(spec))

"""Shared by the tests of programs that revise answers: a scripted run, and every place where a budget may end one."""

import asyncio
import re

from scipy import stats

from ramify.backends.scripted import ScriptedBackend
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.scoring import MarkedAnswer, Problem
from ramify.strategies import Budget, solve, solve_many
from ramify.strategies.programs.revision_attempts import Verdict
from ramify.strategies.testing import check_result, rising_reward
from tests.strategies.laws import BY_TEXT, SMALL, problems

QUESTION = "What is 2 + 2?"


def reward(text):
    """A verifier's score that an answer states itself: "... [0.4]"; 0 where it states none."""
    found = re.findall(r"\[([\d.]+)\]", text)
    return float(found[-1]) if found else 0.0


def run(strategy, script, metadata=None, equivalence=None, **options):
    """A result, and the backend that has all calls."""
    models = options.pop("models", None)
    length = options.pop("max_model_len", 8192)
    backend = ScriptedBackend(script, {"nano-prm": reward}, models=models, max_model_len=length)
    problem = Problem("p", QUESTION, metadata=metadata or {})
    result = asyncio.run(solve(strategy, problem, backend, equivalence=equivalence or MarkedAnswer(), **options))
    check_result(result, backend)
    return result, backend


def in_turn(*replies):
    """A script that gives these replies, one a call, and the last one from there on."""
    return lambda call: replies[min(call.index, len(replies) - 1)]


def words(*texts):
    """Tokens of replies."""
    return sum(len(text.split()) for text in texts)


def every_budget(strategy, script, metadata=None):
    """Run under every budget up to what an unlimited run takes; a cut run gives the best of what it had."""
    whole, _ = run(strategy, script, metadata)
    had = 0
    for tokens in range(1, whole.ledger.total_tokens + 1):
        result, _ = run(strategy, script, metadata, budget=Budget(tokens=tokens))
        assert result.ledger.total_tokens <= tokens
        ended = [candidate for candidate in result.candidates if candidate.node.finish_reason == "stop"]
        assert len(ended) >= had, "more budget, fewer answers"
        had = len(ended)
        if ended:
            assert result.best.key in [candidate.node.key for candidate in ended]
            scores = [candidate.score for candidate in ended if candidate.answer is not None]
            if scores and scores[0] is not None:
                assert next(c.score for c in ended if c.node.key == result.best.key) == max(scores)
    full, _ = run(strategy, script, metadata, budget=Budget(tokens=whole.ledger.total_tokens + 8192))
    assert (full.text, full.notes, len(full.candidates)) == (whole.text, whole.notes, len(whole.candidates))


def roomy_toy(seed=0, pace=None, batch_size=None):
    """The toy of the common laws with a context that holds a program's prompts."""
    return ToyBackend(ToyModel.random(seed), {"nano-prm": rising_reward}, pace, batch_size, max_model_len=6000)


def assert_coverage(method, n, runs=300):
    """With an evaluator that knows, on a model that does not mind its prompt, it succeeds with 1 - (1 - p) ** n."""
    law = SMALL.law(temperature=0.8)
    right = SMALL.text(max(law, key=law.get))
    strategy = method(lambda text, problem: Verdict(0.0, "", text == right))
    backend = ToyBackend(SMALL, max_model_len=6000)
    results = asyncio.run(solve_many(strategy, problems(runs), backend, equivalence=BY_TEXT))
    solved = [result.stop_reason == "certain" for result in results]
    assert solved == [result.text == right for result in results]
    chance = 1 - (1 - sum(p for tokens, p in law.items() if SMALL.text(tokens) == right)) ** n
    assert 0.1 < chance < 0.99
    assert stats.binomtest(sum(solved), runs, chance).pvalue > 1e-3

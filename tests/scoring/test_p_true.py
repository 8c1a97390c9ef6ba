"""P(true): the exact probability from the model's table, every token of it counted once and reserved before."""

import asyncio
import math

import numpy as np
import pytest

from ramify.backends.base import Capability
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError, ScorerError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring import Problem, Reading
from ramify.scoring.p_true import PTrue
from ramify.scoring.scorers import checked_scores
from ramify.strategies import BestOfN, Budget, Prices, solve
from ramify.strategies import testing as strategy_testing
from ramify.strategies.stopping.self_calibration import SelfCalibration
from ramify.strategies.testing import BY_TEXT, check_strategy, rising_reward

PROBLEM = Problem("p", "xy")
ASK = PTrue(suffix="a", yes="b\n", no="c\n")


class Endless(dict):
    """A table with a law behind every prefix, so that a question can be asked behind every answer."""

    def get(self, prefix, default=None):
        if prefix not in self:
            rest = np.random.default_rng([7, *prefix]).dirichlet(np.ones(3))
            self[prefix] = np.array([0.7, *(0.3 * rest)])
        return self[prefix]


def table_model():
    """A random model of answers that may go on for ever, and rarely do."""
    given = {prefix: row for prefix, row in ToyModel.random(0).table.items() if len(prefix) < 3}
    return ToyModel(("", "a", "b\n", "c\n"), Endless(given))


def backend(**options):
    return ToyBackend(table_model(), {"nano-prm": rising_reward}, max_model_len=24, **options)


def drawn(toy, n=6):
    """Some finished answers and one open one."""

    async def draw():
        root = await toy.root("xy", BranchKey.root(1))
        return [node async for node in toy.extend(root, SamplingParams(max_tokens=8), n)]

    return asyncio.run(draw())


def test_it_is_the_share_of_yes_in_what_may_follow_the_question():
    toy = backend()
    nodes = drawn(toy)
    before = toy.usage.probe
    batch = asyncio.run(checked_scores(ASK, nodes, PROBLEM, toy))
    for node, value in zip(nodes, batch.values, strict=True):
        assert node.finish_reason == "stop"
        assert node.tokens[-1] == 0
        chances = toy.model.table.get((*node.tokens[:-1], 1))
        assert value == pytest.approx(chances[2] / (chances[2] + chances[3]), rel=1e-12)
    assert batch.num_tokens == toy.usage.probe - before == len(nodes) * 4


def test_words_of_several_tokens_multiply():
    toy = backend()
    root = asyncio.run(toy.root("xy", BranchKey.root(1)))
    (value,) = asyncio.run(checked_scores(PTrue(suffix="a", yes="b\na", no="c\n"), [root], PROBLEM, toy)).values
    table = toy.model.table.get
    yes, no = table((1,))[2] * table((1, 2))[1], table((1,))[3]
    assert value == pytest.approx(yes / (yes + no))


def test_the_end_of_sequence_can_be_kept_for_a_suffix_that_begins_a_new_turn():
    toy = backend()
    node = drawn(toy, 1)[0]
    asked = (*node.tokens, 1)
    toy.model.table[asked] = np.array([0.0, 0.0, 0.75, 0.25])
    (value,) = asyncio.run(checked_scores(PTrue("a", "b\n", "c\n", cut=0), [node], PROBLEM, toy)).values
    assert value == pytest.approx(0.75)


def test_a_word_that_is_ruled_out_counts_nothing_and_both_ruled_out_are_an_error():
    toy = backend()
    root = asyncio.run(toy.root("xy", BranchKey.root(1)))
    for row, expected in [([0.5, 0, 0.5, 0], 1.0), ([0.5, 0, 0, 0.5], 0.0)]:
        toy.model.table[1,] = np.array(row)
        assert list(asyncio.run(checked_scores(ASK, [root], PROBLEM, toy)).values) == [expected]
    toy.model.table[1,] = np.eye(4)[0]
    with pytest.raises(ScorerError, match="neither"):
        asyncio.run(checked_scores(ASK, [root], PROBLEM, toy))


def test_an_answer_that_fills_the_context_is_asked_about_without_its_last_tokens():
    toy = ToyBackend(table_model(), max_model_len=2 + 2 + 3)  # prompt, two tokens and one to spare, question
    node = next(node for node in drawn(backend(), 20) if node.num_tokens >= 4)
    (value,) = asyncio.run(checked_scores(ASK, [node], PROBLEM, toy)).values
    chances = toy.model.table.get((*node.tokens[:2], 1))
    assert value == pytest.approx(chances[2] / (chances[2] + chances[3]))
    with pytest.raises(ScorerError, match="no room"):
        asyncio.run(checked_scores(ASK, [node], PROBLEM, ToyBackend(table_model(), max_model_len=4)))


@pytest.mark.parametrize("text", ["", "Is it?", "Ist das größer als π? 是"])
def test_the_declared_cost_is_never_below_one_token_a_byte(text):
    scorer = PTrue(suffix=text)
    assert scorer.cost(Reading(10, 20, 20, True)) >= 2 * len(text.encode()) + 5
    assert scorer.cost(Reading(10, 20, 20, True)) == scorer.cost(Reading(3, 1, 1, False))


def test_its_tokens_are_probe_tokens_counted_once_and_inside_the_budget():
    strategy = BestOfN(n=5, scorer=ASK)
    for tokens in (None, 3, 12, 20, 33, 60):
        toy = backend()
        result = asyncio.run(solve(strategy, PROBLEM, toy, budget=Budget(tokens=tokens), equivalence=BY_TEXT))
        scored = sum(candidate.score is not None for candidate in result.candidates)
        assert result.ledger.probe == toy.usage.probe == 4 * scored
        assert result.ledger.verifier == 0
        assert result.ledger.total_tokens == result.ledger.generated + 4 * scored
        assert tokens is None or result.ledger.total_tokens <= tokens
        if tokens is None:
            assert scored == 5


def test_strategies_with_it_keep_the_laws(monkeypatch):
    def make(seed=0, pace=None, batch_size=None):
        return backend(pace=pace, batch_size=batch_size)

    monkeypatch.setattr(strategy_testing, "toy_backend", make)
    check_strategy(BestOfN(n=4, scorer=ASK))
    check_strategy(SelfCalibration(n=5, tau=0.6, scorer=ASK))
    check_strategy(SelfCalibration(n=5, mode="asc", window=3, scorer=ASK))


def test_it_needs_prompt_scoring_and_gives_probabilities():
    assert PTrue().needs == {Capability.PROMPT_SCORING, Capability.TOKENS}
    assert PTrue().range == (0.0, 1.0)
    assert hash(PTrue()) == hash(PTrue())


@pytest.mark.parametrize("options", [{"yes": ""}, {"no": ""}, {"yes": "No"}, {"cut": -1}])
def test_options_that_do_not_work_are_refused(options):
    with pytest.raises(ConfigError):
        PTrue(**options)


def test_dollars_are_kept_too_where_probes_cost_what_verifiers_cost():
    prices = Prices(generated=100.0, verifier=100.0, probe=100.0)
    budget = Budget(dollars=0.002, prices=prices)
    result = asyncio.run(solve(BestOfN(n=8, scorer=ASK), PROBLEM, backend(), budget=budget, equivalence=BY_TEXT))
    assert 0 < result.ledger.cost <= 0.002
    assert math.isclose(result.ledger.cost, result.ledger.total_tokens * 1e-4)

"""TrimR: what cuts a chain, what does not, and what a cut costs."""

import pytest

from ramify.backends.toy import ToyModel
from ramify.errors import ConfigError
from ramify.strategies import SelfConsistency, StepSplitter, parse_strategy
from ramify.strategies.stopping.trimr import TrimR
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, run_many
from tests.strategies.stopping.scripted import ASK, END, X, Y, run_script

EVERY_TOKEN = StepSplitter(max_tokens=1)


def trimmer(**options):
    return TrimR(**{"suffix": ASK, "until": EVERY_TOKEN, "loops": 99, **options})


@pytest.mark.parametrize(("repeats", "text"), [(1, "t?x"), (2, "ttt?y"), (3, "tttt?y")])
def test_a_chain_is_cut_when_thoughts_in_a_row_end_with_one_answer(repeats, text):
    result = run_script(trimmer(repeats=repeats), [X, Y, Y, Y, Y, Y])
    assert (result.text, result.stop_reason) == (text, "certain")
    assert result.ledger.generated == len(text)  # thoughts, the answer and the end; the suffix is not drawn
    assert result.ledger.discarded == 0


@pytest.mark.parametrize("answers", [[X, Y] * 3, [END] * 6])
def test_thoughts_without_one_answer_cut_nothing(answers):
    result = run_script(trimmer(), answers, last=Y)
    assert (result.text, result.stop_reason) == ("t" * 6 + "y", "finished")


def test_a_chain_that_never_settles_is_cut_when_patience_ends():
    result = run_script(trimmer(patience=4), [X, Y] * 5)
    assert (result.text, result.stop_reason) == ("tttt?y", "finished")


@pytest.mark.parametrize("loops", [2, 4])
def test_equal_thoughts_in_a_row_are_a_loop(loops):
    assert run_script(trimmer(loops=loops), [X, Y] * 5).text.startswith("t" * loops + ASK)


def test_a_scorer_settles_a_chain_at_its_threshold():
    def reward(tokens):
        return min(1.0, len(tokens) / 4)

    settled = trimmer(verifier="scorer", settled=0.75, repeats=2)
    assert run_script(settled, [Y] * 8, reward=reward).text == "tttt?y"
    never = trimmer(verifier="scorer", settled=0.75, repeats=2, patience=99)
    assert run_script(never, [Y] * 8, reward=lambda tokens: 0.74).text == "t" * 8 + "x"


def test_the_reward_model_is_needed_only_where_it_verifies():
    assert "reward" not in TrimR().requires
    assert "reward" in TrimR(verifier="scorer").requires


def test_a_chain_that_is_never_cut_follows_the_models_law():
    strategy = TrimR(suffix="a", until=EVERY_TOKEN, repeats=9, patience=9, loops=9)
    assert_law(run_many(strategy, 200), SMALL.law(temperature=0.8))


@pytest.mark.parametrize("patience", [9, 10])
def test_a_chain_is_cut_at_the_end_of_the_context_so_that_its_answer_fits(patience):
    result = run_script(trimmer(patience=patience, answer_tokens=2), [X, Y] * 20, context=12)
    assert result.text.rpartition(ASK)[2] in ("x", "y")
    assert len(result.best.tokens) <= 11


def test_chains_vote():
    result = run_script(trimmer(n=3), [Y] * 5)
    assert result.answer == "y"
    assert [candidate.answer for candidate in result.candidates] == ["y"] * 3


def test_a_cut_saves_what_finished_chains_of_the_run_suggest():
    model = ToyModel.random(4, depth=6)
    whole = run_many(SelfConsistency(n=4), 10, model=model)
    cut = run_many(TrimR(n=4, suffix="a", until=EVERY_TOKEN), 20, model=model)
    assert sum(result.ledger.saved for result in whole) == 0
    assert sum(result.ledger.saved for result in cut) > 0


@pytest.mark.parametrize(
    "options", [{"n": 0}, {"repeats": 0}, {"patience": 1}, {"loops": 1}, {"suffix": ""}, {"answer_tokens": 0}]
)
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        TrimR(**options)


@pytest.mark.parametrize(
    "spec",
    ["trimr:until=1,suffix=a", "trimr:n=3,until=1,suffix=a,verifier=scorer,settled=0.6,repeats=1,patience=2"],
)
def test_it_keeps_the_laws_of_all_strategies(spec):
    check_strategy(parse_strategy(spec))

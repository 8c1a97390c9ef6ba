"""Iterative agent decoding: what each round sees, evaluators and scorers as verifiers, replies that cannot be used."""

import asyncio

import pytest

from ramify.backends.scripted import ScriptedBackend
from ramify.errors import ConfigError, ScorerError
from ramify.scoring import MarkedAnswer, Problem, RuleCheck
from ramify.strategies import BestOfN, parse_strategy, solve, testing
from ramify.strategies.programs.annealing import Annealing
from ramify.strategies.programs.feedback_edit import FeedbackEdit
from ramify.strategies.programs.iad import IterativeAgentDecoding
from ramify.strategies.programs.mind_evolution import MindEvolution
from ramify.strategies.programs.revision_attempts import Evaluator, Verdict
from ramify.strategies.programs.self_refine import SelfRefine
from ramify.strategies.testing import check_strategy, rising_reward
from tests.strategies.laws import run_many
from tests.strategies.programs.revision_cases import (
    QUESTION,
    assert_coverage,
    every_budget,
    in_turn,
    reward,
    roomy_toy,
    run,
    words,
)

SHORT = "{question} | {best} | {feedback} |{worst}"


def judge(text, problem):
    """An evaluator: the score that the text states, and words."""
    return Verdict(reward(text), f"verdict on {''.join(text.split()[1:2])}", reward(text) >= 1)


def test_each_round_sees_the_best_and_the_worst_with_the_verifiers_words():
    replies = ("#### 1 [0.5]", "#### 2 [0.3]", "#### 3 [0.8]", "#### 4 [0.6]")
    result, backend = run(IterativeAgentDecoding(4, evaluator=judge, propose_prompt=SHORT), in_turn(*replies))
    seen = [call.text for call in backend.calls]
    assert seen[:2] == [QUESTION, f"{QUESTION} | #### 1 [0.5] | verdict on 1 |"]
    for prompt, best in zip(seen[2:], (1, 3), strict=True):
        assert prompt.startswith(f"{QUESTION} | {replies[best - 1]} | verdict on {best} |")
        assert "to be avoided:\n#### 2 [0.3]" in prompt
        assert "verdict on 2" in prompt
    assert (result.text, result.stop_reason) == ("#### 3 [0.8]", "finished")
    assert (result.ledger.generated, result.ledger.program, result.ledger.verifier) == (
        words(replies[0]), words(*replies[1:]), 0,
    )  # fmt: skip


def test_a_scorers_feedback_is_its_number():
    _, backend = run(IterativeAgentDecoding(2, propose_prompt=SHORT), in_turn("#### 1 [0.25]", "#### 2 [0.5]"))
    assert backend.calls[1].text == f"{QUESTION} | #### 1 [0.25] | score 0.25 (the highest there is: 1) |"


def test_equal_scores_have_no_worst():
    _, backend = run(IterativeAgentDecoding(3, propose_prompt=SHORT), in_turn("#### 1 [0.5]", "#### 2 [0.5]", "#### 3"))
    assert backend.calls[2].text.endswith("|")


def test_it_stops_at_a_solution():
    result, backend = run(IterativeAgentDecoding(9, evaluator=judge), in_turn("#### 1 [0.5]", "#### 2 [1.0]", "#### 3"))
    assert (result.text, result.stop_reason, len(backend.calls)) == ("#### 2 [1.0]", "certain", 2)
    result, backend = run(IterativeAgentDecoding(9), in_turn("#### 2 [1.0]", "#### 3"))
    assert (result.stop_reason, len(backend.calls), result.ledger.saved) == ("certain", 1, 8 * 3)


def test_a_solution_comes_before_a_higher_score():
    def odd(text, problem):
        return Verdict(reward(text), "", "#### 2" in text)

    replies = ("#### 1 [0.5]", "#### 2 [0.2]", "#### 3")
    result, backend = run(IterativeAgentDecoding(9, evaluator=odd), in_turn(*replies))
    assert (result.text, result.stop_reason, len(backend.calls)) == (replies[1], "certain", 2)


def test_the_problem_may_carry_the_evaluator_and_the_methods_own_comes_first():
    carried, own = (lambda text, problem: Verdict(0.0, "carried")), (lambda text, problem: Verdict(0.0, "own"))
    assert isinstance(own, Evaluator)
    for strategy, said in [(IterativeAgentDecoding(2), "carried"), (IterativeAgentDecoding(2, evaluator=own), "own")]:
        _, backend = run(strategy, in_turn("#### 1"), {"evaluator": carried})
        assert f"says about it:\n{said}" in backend.calls[1].text


@pytest.mark.parametrize(("rounds", "width"), [(4, 1), (2, 2)])
def test_a_perfect_evaluator_succeeds_when_any_of_n_answers_does(rounds, width):
    assert_coverage(lambda right: IterativeAgentDecoding(rounds, width, evaluator=right), n=4)


def test_one_round_is_best_of_n():
    mine = run_many(IterativeAgentDecoding(1, 4), 30, reward=rising_reward)
    theirs = run_many(BestOfN(4), 30, reward=rising_reward)
    assert [result.best.tokens for result in mine] == [result.best.tokens for result in theirs]
    assert [len(result.candidates) for result in mine] == [4] * 30


@pytest.mark.parametrize(
    ("reply", "fault"),
    [("", "the reply is empty"), ("I cannot help", "no answer can be read in the reply")],
)
def test_a_proposal_that_cannot_be_used_is_left_out_and_noted(reply, fault):
    result, backend = run(IterativeAgentDecoding(3), in_turn("#### 1 [0.1]", reply, "#### 2 [0.2]"))
    assert result.notes == (f"round 2: {fault}; it was left out",)
    assert len(result.candidates) == 2
    assert backend.calls[1].text == backend.calls[2].text


def test_an_evaluator_reads_what_no_answer_can_be_read_in():
    plan = "go north [0.7]"
    strategy, marked = IterativeAgentDecoding(2, evaluator=judge), MarkedAnswer(fallback=False)
    result, _ = run(strategy, in_turn("#### 1 [0.1]", plan), equivalence=marked)
    assert (result.text, result.answer, result.notes) == (plan, None, ())


def test_an_empty_draft_is_drawn_anew():
    result, backend = run(IterativeAgentDecoding(3), in_turn("", "#### 1 [0.5]", "#### 2 [0.6]"))
    assert [QUESTION in call.text for call in backend.calls] == [True] * 3
    assert [call.text == QUESTION for call in backend.calls] == [True, True, False]
    assert result.text == "#### 2 [0.6]"


@pytest.mark.parametrize("verdict", [None, 0.5, Verdict(float("nan")), Verdict("high")])
def test_a_verdict_that_is_none_is_an_error_and_no_score(verdict):
    with pytest.raises(ScorerError, match="finite score"):
        run(IterativeAgentDecoding(2, evaluator=lambda text, problem: verdict), in_turn("#### 1"))


def test_an_evaluator_that_fails_is_an_error():
    with pytest.raises(ScorerError, match="division"):
        run(IterativeAgentDecoding(2, evaluator=lambda text, problem: 1 / 0), in_turn("#### 1"))


def test_proposals_of_a_round_are_drawn_together_and_kept():
    replies = ("#### 1 [0.1]", "#### 2 [0.2]", "#### 3 [0.3]", "#### 4 [0.2]")
    result, backend = run(IterativeAgentDecoding(2, 2), in_turn(*replies))
    assert backend.calls[2].text == backend.calls[3].text
    assert (result.text, len(result.candidates)) == (replies[2], 4)


def test_a_budget_that_ends_anywhere_leaves_the_best_so_far():
    replies = ("#### 1 [0.5]", "so then #### 2 [0.4]", "or rather #### 3 [0.8]", "maybe #### 4 [0.7]")
    every_budget(IterativeAgentDecoding(2, 2), in_turn(*replies))
    every_budget(IterativeAgentDecoding(4, evaluator=judge), in_turn(*replies))


def test_the_common_laws(monkeypatch):
    check_strategy(IterativeAgentDecoding(3))
    monkeypatch.setattr(testing, "toy_backend", roomy_toy)
    check_strategy(IterativeAgentDecoding(3, 2))
    check_strategy(IterativeAgentDecoding(3, scorer=RuleCheck(lambda text, problem: "b" in text)))


def test_a_prompt_of_ids_is_refused_before_anything_is_drawn():
    for strategy in (IterativeAgentDecoding(), MindEvolution(), SelfRefine(), Annealing(), FeedbackEdit()):
        backend = ScriptedBackend(in_turn("#### 1"), {"nano-prm": reward})
        with pytest.raises(ConfigError, match="token ids"):
            asyncio.run(solve(strategy, Problem("p", (0, 1)), backend))
        assert backend.usage.generated == 0


def test_options_are_read_and_checked():
    assert parse_strategy("iad:rounds=3,width=2") == IterativeAgentDecoding(3, 2)
    assert IterativeAgentDecoding(evaluator=judge).requires == frozenset()
    with pytest.raises(ConfigError, match="from Python"):
        parse_strategy("iad:evaluator=x")
    with pytest.raises(ConfigError, match="width=0"):
        IterativeAgentDecoding(width=0)
    with pytest.raises(ConfigError, match="feedback"):
        IterativeAgentDecoding(propose_prompt="{question}{best}")

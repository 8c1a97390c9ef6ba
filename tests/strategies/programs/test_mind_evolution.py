"""Mind evolution: its genetics exactly, the prompts and counts of its definition, and replies that cannot be used."""

import re
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from ramify.errors import ConfigError
from ramify.randomness import BranchKey, uniform_counters
from ramify.strategies import parse_strategy, testing
from ramify.strategies.programs.mind_evolution import MindEvolution
from ramify.strategies.programs.mind_evolution_islands import (
    best_first,
    distinct,
    emigrate,
    num_parents,
    tournament,
    worst_islands,
)
from ramify.strategies.programs.revision import read_places
from ramify.strategies.programs.revision_attempts import Verdict
from ramify.strategies.testing import check_strategy
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

SHORT = {
    "critic_prompt": "C {question} | {solutions}",
    "author_prompt": "A {question} | {solutions} | {critique}",
    "elite_prompt": "E {count} | {solutions}",
}


def judge(text, problem):
    """An evaluator: the score that the text states, and words."""
    return Verdict(reward(text), f"found {reward(text)}", reward(text) >= 1)


def kinds(backend):
    """The first letters of the prompts sent: W for the problem itself, critic, author, elites."""
    return "".join(call.text[0] for call in backend.calls)


def authors(call):
    """A script of a critic and an author whose answers all differ."""
    if call.text.startswith("C "):
        return "a word"
    return "1, 2" if call.text.startswith("E ") else f"plan {call.index} [{0.001 * (call.index % 97):.3f}]"


# --- the genetics ---


def test_none_to_five_parents_are_equally_likely_by_default():
    marks = (np.arange(6000) + 0.5) / 6000
    assert Counter(num_parents(mark, 1 / 6, 5) for mark in marks) == dict.fromkeys(range(6), 1000)


def test_the_number_of_parents_keeps_its_bounds():
    assert {num_parents(mark, 1 / 6, 0) for mark in (0.1, 0.99)} == {0}
    assert num_parents(1 - 1e-16, 0.0, 3) == 3
    assert {num_parents(mark, 1.0, 5) for mark in (0.01, 0.999999)} == {0}
    assert num_parents(1e-9, 0.0, 5) == 1


def test_the_tournament_is_a_boltzmann_draw_without_return():
    scores, tau, runs = [0.1, 0.2, 0.4], 0.2, 4000
    odds = np.exp(np.array(scores) / tau)
    law = {}
    for first in range(3):
        for second in range(3):
            if first != second:
                law[first, second] = odds[first] / odds.sum() * odds[second] / (odds.sum() - odds[first])
    drawn = Counter(
        tuple(tournament(scores, tau, uniform_counters(BranchKey.root(seed), 3), 2)) for seed in range(runs)
    )
    observed = [drawn[pair] for pair in law]
    assert stats.chisquare(observed, [chance * runs for chance in law.values()]).pvalue > 1e-3


def test_the_best_emigrate_around_the_ring_all_at_once():
    score = dict(enumerate([0.1, 0.9, 0.5, 0.2, 0.8, 0.3])).get
    moved = emigrate([[0, 1], [2, 3], [4, 5]], 1, score, str)
    assert moved == [[0, 1, 4], [2, 3, 1], [4, 5, 2]]
    assert emigrate([[0, 1]], 5, score, str) == [[0, 1]]
    assert emigrate([[0, 1], []], 5, score, str) == [[0, 1], [1, 0]]


def test_a_text_lives_once_on_an_island():
    assert distinct([3, 1, 2], {1: "a", 2: "b", 3: "a"}.get) == [3, 2]
    assert emigrate([[0], [1]], 1, {0: 0.5, 1: 0.5}.get, lambda number: "same") == [[0], [1]]


def test_the_worst_islands_are_those_of_the_lowest_mean_and_one_is_left():
    score = {0: 0.9, 1: 0.0, 2: 0.4, 3: 0.6}.get
    assert worst_islands([[0, 1], [2], [3]], 2, score) == [1, 0]
    assert worst_islands([[3], [], [2]], 1, score) == [1]
    assert worst_islands([[0], [1]], 5, score) == [1]
    assert worst_islands([[0]], 2, score) == []
    assert best_first([1, 2, 0, 3], score) == [0, 3, 2, 1]


@pytest.mark.parametrize(
    ("text", "places"),
    [("3, 1", [2, 0]), ("2 2 9 0 1", [1, 0]), ("", []), ("none of them", []), ("1.5 or -2", []), ("Solution 4.", [3])],
)
def test_numbers_are_read_strictly(text, places):
    assert read_places(text, 4) == places


# --- the program ---


def test_a_conversation_without_parents_is_a_draft_and_turns_of_critic_and_author():
    replies = ("plan [0.1]", "too short", "plan b [0.2]", "still", "plan c [0.3]")
    strategy = MindEvolution(1, 1, 1, 3, evaluator=judge, **SHORT)
    result, backend = run(strategy, in_turn(*replies))
    first, second = (
        f"Proposed solution:\n{text}\n\nEvaluation:\nfound {s}" for text, s in [(replies[0], 0.1), (replies[2], 0.2)]
    )
    assert [call.text for call in backend.calls] == [
        QUESTION,
        f"C {QUESTION} | {first}",
        f"A {QUESTION} | {first} | too short",
        f"C {QUESTION} | {second}",
        f"A {QUESTION} | {second} | still",
    ]
    assert (result.text, result.stop_reason) == ("plan c [0.3]", "finished")
    assert (result.ledger.generated, result.ledger.program) == (words(replies[0]), words(*replies[1:]))


def test_the_defaults_make_eight_hundred_answers():
    result, backend = run(MindEvolution(evaluator=judge, **SHORT), authors)
    assert len(result.candidates) == 800
    count = Counter(kinds(backend))
    assert count["E"] == 3  # after generations 3, 6 and 9
    assert (count["W"] + count["A"], count["A"]) == (800, count["C"])
    fresh = (count["W"] - 20) / 180  # first turns behind the first generation
    assert stats.binomtest(count["W"] - 20, 180, 1 / 6).pvalue > 1e-3, fresh
    assert result.text == max((c.node.text for c in result.candidates), key=reward)


def test_parents_come_from_the_talks_own_island_and_their_number_from_the_draw():
    strategy = MindEvolution(2, 2, 3, 1, fresh=0.0, emigrants=0, evaluator=judge, **SHORT)
    _, backend = run(strategy, authors)
    assert kinds(backend) == "W" * 6 + "C" * 6 + "A" * 6
    for place, call in enumerate(backend.calls[6:12]):
        shown = [int(number) for number in re.findall(r"plan (\d+)", call.text)]
        island = place // 3
        assert set(shown) <= set(range(3 * island, 3 * island + 3))
        key = BranchKey.root(0, "/p").named(f"parents/2/{island}/{place % 3}")
        assert len(shown) == num_parents(float(uniform_counters(key, 1)[0]), 0.0, 3)


def test_emigrants_may_be_parents_elsewhere():
    strategy = MindEvolution(2, 2, 1, 1, parents=9, fresh=0.0, emigrants=5, tau=1e-6, evaluator=judge, **SHORT)
    _, backend = run(strategy, in_turn("plan 0 [0.9]", "plan 1 [0.1]", "hm"))
    assert all("plan 0" in call.text for call in backend.calls[2:4])


def test_it_stops_at_a_solution_after_the_turn_that_found_it():
    replies = ("plan [0.1]", "plan [0.2]", "c", "c", "plan [1.0]", "plan [0.3]")
    result, backend = run(MindEvolution(5, 1, 2, 4, evaluator=judge, **SHORT), in_turn(*replies))
    assert (result.text, result.stop_reason, len(backend.calls)) == ("plan [1.0]", "certain", 6)
    assert result.ledger.saved == (5 * 2 * 4 - 4) * 2
    result, backend = run(MindEvolution(5, 1, 1, 4), in_turn("#### 4 [1.0]"))
    assert (result.stop_reason, len(backend.calls)) == ("certain", 1)


def test_a_perfect_evaluator_succeeds_when_any_of_n_answers_does():
    assert_coverage(lambda right: MindEvolution(2, 1, 1, 2, evaluator=right), n=4)


def test_the_worst_islands_start_anew_from_the_models_choice():
    def script(call):
        if call.text.startswith("E "):
            assert call.text.startswith("E 2 | Proposed solution 1:")
            return "2, 3"
        return "c" if call.text.startswith("C ") else f"plan {call.index} [0.{9 - call.index % 6}]"

    strategy = MindEvolution(
        2, 3, 2, 1, fresh=0.0, emigrants=0, reset_every=1, resets=2, elites=2, elite_pool=5, evaluator=judge, **SHORT
    )
    _, backend = run(strategy, script)
    assert kinds(backend) == "W" * 6 + "E" + "C" * 6 + "A" * 6
    pool = [int(number) for number in re.findall(r"plan (\d+)", backend.calls[6].text)]
    assert pool == [0, 1, 2, 3, 4]  # best first; the sixth is not among five
    shown = [set(map(int, re.findall(r"plan (\d+)", call.text))) for call in backend.calls[7:13]]
    assert all(parents <= {0, 1} for parents in shown[:2])
    assert all(parents <= {1, 2} for parents in shown[2:])


@pytest.mark.parametrize("said", ["", "both are nice", "7, 9", "2"])
def test_a_choice_that_names_too_few_is_filled_by_score_and_noted(said):
    def script(call):
        if call.text.startswith("E "):
            return said
        return "c" if call.text.startswith("C ") else f"plan {call.index} [0.{9 - call.index % 6}]"

    strategy = MindEvolution(
        2, 2, 3, 1, fresh=0.0, emigrants=0, reset_every=1, resets=1, elites=2, elite_pool=4, evaluator=judge, **SHORT
    )
    result, backend = run(strategy, script)
    assert any(note.startswith("choosing elites: the reply") for note in result.notes)
    shown = [set(map(int, re.findall(r"plan (\d+)", call.text))) for call in backend.calls[10:13]]
    assert all(parents <= {0, 1} for parents in shown)


def test_few_answers_are_all_elites_without_asking():
    strategy = MindEvolution(2, 2, 1, 1, reset_every=1, evaluator=judge, **SHORT)
    assert "E" not in kinds(run(strategy, authors)[1])


def test_replies_that_cannot_be_used_are_noted_and_the_talk_goes_on():
    replies = ("plan a [0.1]", "", "plan b [0.2]", "hm", " ", "so", "plan c [0.3]")
    result, backend = run(MindEvolution(1, 1, 1, 4, evaluator=judge, **SHORT), in_turn(*replies))
    assert backend.calls[2].text.endswith("| (nothing)")
    assert "plan b" in backend.calls[5].text  # what the next turn goes on from is the solution before the empty one
    assert result.notes == (
        "a critic's word is missing: the reply is empty; the author saw the evaluation alone",
        "an author's answer: the reply is empty; it was left out",
    )
    assert result.text == "plan c [0.3]"


def test_an_empty_draft_is_drawn_anew_in_the_next_turn():
    result, backend = run(MindEvolution(1, 1, 1, 2, evaluator=judge, **SHORT), in_turn("", "plan [0.5]"))
    assert (kinds(backend), result.text) == ("WW", "plan [0.5]")


def test_prompts_that_the_context_does_not_hold_leave_the_drafts():
    strategy = MindEvolution(2, 1, 2, 2, evaluator=judge, **SHORT)
    result, backend = run(strategy, authors, max_model_len=9)
    assert set(kinds(backend)) == {"W"}
    assert any("longer than the context" in note for note in result.notes)
    assert result.text == max((c.node.text for c in result.candidates), key=reward)


def test_a_budget_that_ends_anywhere_leaves_the_best_so_far():
    def script(call):
        return "a b" if call.text.startswith("C ") else f"plan #### {call.index} [{0.01 * (call.index * 7 % 13):.2f}]"

    every_budget(MindEvolution(2, 2, 1, 2, **SHORT), script)


def test_the_common_laws(monkeypatch):
    check_strategy(MindEvolution(2, 1, 2, 2))
    monkeypatch.setattr(testing, "toy_backend", roomy_toy)
    check_strategy(MindEvolution(2, 2, 1, 2, reset_every=1, elites=1, elite_pool=2))


@pytest.mark.parametrize(
    "bad",
    [
        {"generations": 0},
        {"islands": 0},
        {"turns": 0},
        {"parents": 0},
        {"fresh": 1.5},
        {"tau": 0},
        {"emigrants": -1},
        {"elite_pool": 4},
    ],
)
def test_bad_options_are_refused(bad):
    ((name, value),) = bad.items()
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        MindEvolution(**bad)


def test_a_spec_is_read():
    assert parse_strategy("mind-evolution:generations=2,islands=1,fresh=0.5") == MindEvolution(2, 1, fresh=0.5)

"""Annealed refinement: the walk's prompts, the rule of acceptance, and replies that cannot be used."""

import math

import numpy as np
import pytest
from scipy import stats

from ramify.errors import ConfigError
from ramify.scoring import MarkedAnswer
from ramify.strategies import Sample, parse_strategy, testing
from ramify.strategies.programs.annealing import Annealing, acceptance
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import run_many
from tests.strategies.programs.revision_cases import QUESTION, every_budget, in_turn, roomy_toy, run, words

SHORT = {"feedback_prompt": "F {question} | {answer}", "revise_prompt": "R {question} | {answer} | {feedback}"}


def test_the_calls_are_draft_then_errors_and_revision_of_what_was_accepted():
    replies = ("#### 1 [0.5]", "major", "#### 2 [0.2]", "minor", "#### 3 [0.8]", "DONE")
    result, backend = run(Annealing(heat=0.0, **SHORT), in_turn(*replies))
    assert [call.text for call in backend.calls] == [
        QUESTION,
        f"F {QUESTION} | #### 1 [0.5]",
        f"R {QUESTION} | #### 1 [0.5] | major",
        f"F {QUESTION} | #### 1 [0.5]",  # without heat a loss is refused
        f"R {QUESTION} | #### 1 [0.5] | minor",
        f"F {QUESTION} | #### 3 [0.8]",
    ]
    assert (result.text, result.stop_reason) == ("#### 3 [0.8]", "certain")
    assert (result.ledger.generated, result.ledger.program) == (words(replies[0]), words(*replies[1:]))


def test_great_heat_accepts_a_loss_and_the_best_is_kept():
    replies = ("#### 1 [0.5]", "major", "#### 2 [0.2]", "minor", "#### 3 [0.1]")
    result, backend = run(Annealing(rounds=2, heat=1e9, cooling=1.0, **SHORT), in_turn(*replies))
    assert backend.calls[3].text == f"F {QUESTION} | #### 2 [0.2]"
    assert result.text == "#### 1 [0.5]"
    assert [candidate.score for candidate in result.candidates] == [0.5, 0.2, 0.1]


def test_the_rule_is_that_of_metropolis():
    assert [acceptance(gain, 0.2) for gain in (0.0, 0.3, math.inf)] == [1.0, 1.0, 1.0]
    assert acceptance(-0.1, 0.2) == math.exp(-0.5)
    assert acceptance(-0.1, 0.0) == 0.0
    assert acceptance(-1e9, 1e-9) == 0.0


def test_a_loss_is_accepted_with_its_probability_which_falls_geometrically():
    turn = 1
    scores = ["0.5"] * (turn + 1) + ["0.4", "0.4"]

    def script(call):
        if call.text.startswith("F"):
            return "an error"
        revisions = call.text.startswith("R") * (1 + sum(text.startswith("R") for text in seen))
        seen.append(call.text)
        return f"#### {revisions} [{scores[revisions]}]"

    accepted, runs = 0, 200
    for seed in range(runs):
        seen = []
        run(Annealing(rounds=turn + 2, heat=0.2, cooling=0.5, **SHORT), script, seed=seed)
        accepted += f"#### {turn + 1} [0.4]" in seen[-1]
    chance = math.exp(-0.1 / (0.2 * 0.5**turn))
    assert stats.binomtest(accepted, runs, chance).pvalue > 1e-3


def test_anything_readable_is_better_than_what_cannot_be_read():
    replies = ("no idea [0.9]", "write a number", "#### 4 [0.1]")
    marked = MarkedAnswer(fallback=False)
    result, backend = run(Annealing(rounds=2, heat=0.0, **SHORT), in_turn(*replies), equivalence=marked)
    assert backend.calls[3].text == f"F {QUESTION} | #### 4 [0.1]"
    assert result.text == "#### 4 [0.1]"


@pytest.mark.parametrize(
    ("replies", "note"),
    [
        (("#### 1 [0.1]", "", "bad", "#### 2 [0.2]"), "feedback 1: the reply is empty; the round was spent"),
        (("#### 1 [0.1]", "bad", " ", "bad", "#### 2 [0.2]"), "revision 1: the reply is empty"),
        (("#### 1 [0.1]", "bad", "I must refuse", "bad", "#### 2 [0.2]"), "revision 1: no answer can be read"),
    ],
)
def test_a_reply_that_cannot_be_used_spends_a_round_and_is_noted(replies, note):
    result, _ = run(Annealing(rounds=2), in_turn(*replies))
    assert result.notes[0].startswith(note)
    assert result.text == "#### 2 [0.2]"


def test_a_budget_that_ends_anywhere_leaves_the_best_so_far():
    every_budget(
        Annealing(rounds=3, heat=1.0),
        in_turn("#### 1 [0.5]", "no it is", "so #### 2 [0.4]", "no", "#### 3 [0.8]", "no", "or #### 4 [0.7]"),
    )


def test_no_round_is_a_sample():
    annealed, sampled = run_many(Annealing(rounds=0), 20), run_many(Sample(), 20)
    assert [result.best.tokens for result in annealed] == [result.best.tokens for result in sampled]


def test_the_common_laws(monkeypatch):
    check_strategy(Annealing(rounds=2))
    monkeypatch.setattr(testing, "toy_backend", roomy_toy)
    check_strategy(Annealing(rounds=3))


def test_on_the_toy_it_climbs():
    """Independent revisions with the best kept: no worse than the draft, and better in the mean."""

    def reward(tokens):
        return 0.9 if 1 in tokens else 0.1

    options = {"reward": reward, "model": roomy_toy().model}
    drafts = [result.candidates[0].score for result in run_many(Annealing(rounds=0), 60, **options)]
    short = {"feedback_prompt": "{question}{answer}", "revise_prompt": "{question}{answer}{feedback}"}
    walked = [
        max(c.score for c in result.candidates) for result in run_many(Annealing(rounds=3, **short), 60, **options)
    ]
    assert np.mean(walked) > np.mean(drafts) + 0.1


@pytest.mark.parametrize(
    "bad", [{"heat": -0.1}, {"heat": math.nan}, {"cooling": 0.0}, {"cooling": 1.5}, {"rounds": -1}]
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Annealing(**bad)


def test_a_spec_is_read():
    assert parse_strategy("annealing:rounds=2,heat=0.1,cooling=0.9") == Annealing(2, 0.1, 0.9)

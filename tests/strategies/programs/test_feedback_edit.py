"""Feedback and edit: three batches as defined, what the editor is shown, and replies that cannot be used."""

import pytest

from ramify.errors import ConfigError
from ramify.strategies import BestOfN, parse_strategy, testing
from ramify.strategies.programs.feedback_edit import FeedbackEdit
from ramify.strategies.testing import check_strategy, rising_reward
from tests.strategies.laws import run_many
from tests.strategies.programs.revision_cases import QUESTION, every_budget, in_turn, roomy_toy, run, words

SHORT = {"feedback_prompt": "F {question} | {answer}", "edit_prompt": "E {question} | {answer} | {feedback}"}


def test_the_calls_are_drafts_then_critiques_then_edits():
    replies = ("#### 1 [0.4]", "#### 2 [0.5]", "a", "b", "c", "d", "#### 3 [0.6]", "#### 4 [0.7]", "#### 5", "#### 6")
    result, backend = run(FeedbackEdit(n=2, k=2, edits=2, **SHORT), in_turn(*replies))
    one, two = f"F {QUESTION} | #### 1 [0.4]", f"F {QUESTION} | #### 2 [0.5]"
    first = f"E {QUESTION} | #### 1 [0.4] | Feedback 1:\na\n\nFeedback 2:\nb"
    second = f"E {QUESTION} | #### 2 [0.5] | Feedback 1:\nc\n\nFeedback 2:\nd"
    asked = [call.text for call in backend.calls]
    assert asked == [QUESTION, QUESTION, one, one, two, two, first, first, second, second]
    assert (result.text, result.stop_reason, result.notes) == ("#### 4 [0.7]", "finished", ())
    assert [candidate.score for candidate in result.candidates] == [0.4, 0.5, 0.6, 0.7, 0.0, 0.0]
    assert (result.ledger.generated, result.ledger.program) == (words(*replies[:2]), words(*replies[2:]))


def test_a_draft_may_be_the_best():
    result, _ = run(FeedbackEdit(n=1, k=1), in_turn("#### 1 [0.9]", "worse please", "#### 2 [0.1]"))
    assert result.text == "#### 1 [0.9]"


def test_critiques_that_ask_for_nothing_are_not_shown_and_their_draft_is_not_edited():
    replies = ("#### 1", "#### 2", "DONE", "Perfect.\nDONE", "all good\ndone.", "not quite", "#### 3 [0.9]")
    result, backend = run(FeedbackEdit(n=2, k=2, **SHORT), in_turn(*replies))
    assert [call.text for call in backend.calls[6:]] == [f"E {QUESTION} | #### 2 | Feedback:\nnot quite"]
    assert (result.text, len(result.candidates), result.notes) == ("#### 3 [0.9]", 3, ())


def test_nothing_to_change_ends_with_the_best_draft():
    result, backend = run(FeedbackEdit(n=2, k=1), in_turn("#### 1 [0.1]", "#### 2 [0.2]", "DONE"))
    assert (result.text, len(backend.calls)) == ("#### 2 [0.2]", 4)


def test_replies_that_cannot_be_used_are_left_out_and_noted():
    replies = ("#### 1", "", "why?", "I refuse", " ")
    result, backend = run(FeedbackEdit(n=1, k=2, edits=2, **SHORT), in_turn(*replies))
    assert backend.calls[3].text == f"E {QUESTION} | #### 1 | Feedback:\nwhy?"
    assert result.notes == (
        "feedback 1 of draft 1: the reply is empty; it was left out",
        "edit of draft 1: no answer can be read in the reply; it was left out",
        "edit of draft 1: the reply is empty; it was left out",
    )
    assert result.text == "#### 1"


def test_an_empty_draft_is_not_criticised():
    _, backend = run(FeedbackEdit(n=2, k=1, **SHORT), in_turn("", "#### 2", "hm", "#### 3"))
    assert [call.text[0] for call in backend.calls] == ["W", "W", "F", "E"]


def test_a_prompt_that_the_context_does_not_hold_is_noted():
    replies = ("#### 1", "one two three four five six seven eight nine ten")
    result, backend = run(FeedbackEdit(n=1, k=1, **SHORT), in_turn(*replies), max_model_len=21)
    assert (result.text, len(backend.calls)) == ("#### 1", 2)
    assert result.notes == ("edit of draft 1: the prompt is longer than the context; it was left out",)


def test_one_prompt_that_is_too_long_leaves_the_others():
    replies = ("#### 1", " ".join("#" * 30) + " #### 2", "not so", "#### 3 [0.5]")
    result, backend = run(FeedbackEdit(n=2, k=1, **SHORT), in_turn(*replies), max_model_len=38)
    assert [call.text[0] for call in backend.calls] == ["W", "W", "F", "E"]
    assert result.text == "#### 3 [0.5]"
    assert result.notes == ("feedback 1 of draft 2: the prompt is longer than the context; it was left out",)


def test_critic_and_editor_may_be_other_models():
    models = {"critic": lambda call: "no", "editor": lambda call: "#### 4 [0.5]"}
    strategy = FeedbackEdit(n=1, k=1, critic="critic", editor="editor")
    result, backend = run(strategy, in_turn("#### 1"), models=models)
    assert [call.model for call in backend.calls] == [None, "critic", "editor"]
    assert result.text == "#### 4 [0.5]"


def test_a_budget_that_ends_anywhere_leaves_the_best_so_far():
    replies = ("#### 1 [0.4]", "#### 2 [0.5]", "a b", "b", "c d", "d", "so #### 3 [0.6]", "so #### 4 [0.7]")
    every_budget(FeedbackEdit(n=2, k=2), in_turn(*replies))


def test_drafts_are_those_of_best_of_n():
    mine = run_many(FeedbackEdit(n=3, k=1, edits=1), 20, reward=rising_reward)
    theirs = run_many(BestOfN(3), 20, reward=rising_reward)
    for edited, best in zip(mine, theirs, strict=True):
        drafts = [candidate.node.tokens for candidate in edited.candidates[:3]]
        assert drafts == [candidate.node.tokens for candidate in best.candidates]
        assert max(c.score for c in edited.candidates) >= max(c.score for c in best.candidates)


def test_the_common_laws(monkeypatch):
    check_strategy(FeedbackEdit(n=2, k=1))
    monkeypatch.setattr(testing, "toy_backend", roomy_toy)
    check_strategy(FeedbackEdit(n=2, k=2, edits=1))


@pytest.mark.parametrize("bad", ["n", "k", "edits"])
def test_bad_options_are_refused(bad):
    with pytest.raises(ConfigError, match=f"{bad}=0"):
        FeedbackEdit(**{bad: 0})


def test_a_spec_is_read():
    assert parse_strategy("feedback-edit:n=2,k=4,edits=3") == FeedbackEdit(2, 4, 3)

"""Self-refine: the prompts and charges of its definition, its stops, and replies that cannot be used."""

import pytest

from ramify.errors import ConfigError
from ramify.scoring import RuleCheck
from ramify.scoring.prm import ProcessReward
from ramify.strategies import Sample, parse_strategy, testing
from ramify.strategies.programs.revision import says_done
from ramify.strategies.programs.self_refine import SelfRefine
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import run_many
from tests.strategies.programs.revision_cases import QUESTION, every_budget, in_turn, roomy_toy, run, words

SHORT = {"feedback_prompt": "F {question} | {answer}", "revise_prompt": "R {question} | {answer} | {feedback}"}


def test_the_calls_are_draft_feedback_revision_and_so_on():
    replies = ("#### 3", "off by one", "#### 5", "now too much", "#### 4", "fine\nDONE")
    result, backend = run(SelfRefine(**SHORT), in_turn(*replies))
    assert [call.text for call in backend.calls] == [
        QUESTION,
        f"F {QUESTION} | #### 3",
        f"R {QUESTION} | #### 3 | off by one",
        f"F {QUESTION} | #### 5",
        f"R {QUESTION} | #### 5 | now too much",
        f"F {QUESTION} | #### 4",
    ]
    assert (str(result.answer), result.stop_reason, result.notes) == ("4", "certain", ())
    assert (result.ledger.generated, result.ledger.program) == (words(replies[0]), words(*replies[1:]))
    assert [str(candidate.answer) for candidate in result.candidates] == ["3", "5", "4"]


def test_a_revision_sees_earlier_answers_with_their_feedback():
    _, backend = run(SelfRefine(rounds=2), in_turn("#### 1", "first word", "#### 2", "second word", "#### 3"))
    revising = [call.text for call in backend.calls if "Feedback on it" in call.text]
    assert "Earlier answer" not in revising[0]
    assert revising[1].index("#### 1") < revising[1].index("first word") < revising[1].index("#### 2")
    assert revising[1].count("second word") == 1


def test_without_a_scorer_the_last_readable_answer_is_the_result():
    result, _ = run(SelfRefine(rounds=2), in_turn("#### 1", "no", "#### 2", "no", "I am sorry, I cannot"))
    assert str(result.answer) == "2"
    assert result.notes == ("revision 2: no answer can be read in the reply; it was left out",)


def test_with_a_scorer_the_best_is_the_result_and_no_gain_is_the_last_round():
    replies = ("#### 1 [0.5]", "no", "#### 2 [0.7]", "no", "#### 3 [0.7]", "no", "#### 4 [0.9]")
    result, backend = run(SelfRefine(rounds=3, scorer=ProcessReward()), in_turn(*replies))
    assert (str(result.answer), result.stop_reason) == ("2 [0.7]", "finished")
    assert [candidate.score for candidate in result.candidates] == [0.5, 0.7, 0.7]
    assert len(backend.calls) == 5
    assert result.ledger.verifier == words(replies[0])  # a script reads only what was drawn behind the problem
    scored = [event for event in result.trace.events if type(event).__name__ == "Scored"]
    assert {result.trace.tree()[event.node].text for event in scored} == set(replies[:5:2])


def test_a_scorer_that_reads_text_needs_no_copy_of_it():
    result, _ = run(SelfRefine(rounds=1, scorer=RuleCheck()), in_turn("unsure", "mark it", "#### 4"))
    assert (str(result.answer), result.ledger.verifier) == ("4", 0)
    assert not [event for event in result.trace.events if type(event).__name__ == "Forced"]


@pytest.mark.parametrize(
    ("replies", "note", "answer"),
    [
        (("#### 1", "  \n", "no", "#### 2"), "feedback 1: the reply is empty; the round was spent", "2"),
        (("#### 1", "no", "", "no", "#### 2"), "revision 1: the reply is empty; it was left out", "2"),
        (("#### 1", "no", "Sorry.", "no", "#### 2"), "revision 1: no answer can be read in the reply", "2"),
    ],
)
def test_a_reply_that_cannot_be_used_spends_a_round_and_is_noted(replies, note, answer):
    result, _ = run(SelfRefine(rounds=2), in_turn(*replies))
    assert result.notes[0].startswith(note)
    assert str(result.answer) == answer


def test_a_reply_that_was_cut_is_no_answer():
    long = "one two three four five #### 9"
    result, _ = run(
        SelfRefine(rounds=1, sampling=SelfRefine().sampling.with_(max_tokens=3)), in_turn("#### 1", "no", long)
    )
    assert (str(result.answer), result.notes) == (
        "1",
        ("revision 1: the reply is cut at its token limit; it was left out",),
    )


def test_a_prompt_that_the_context_does_not_hold_spends_a_round():
    result, _ = run(SelfRefine(rounds=2), in_turn("#### 1", "no"), max_model_len=20)
    assert str(result.answer) == "1"
    assert [note.split(":")[1] for note in result.notes] == [
        " the prompt is longer than the context; the round was spent without a revision"
    ] * 2


@pytest.mark.parametrize(
    ("said", "done"),
    [
        ("DONE", True),
        ("good\n**Done.**\n", True),
        ("are we DONE", False),
        ("DONE\nbut wait", False),
        ("", False),
        ("UNDONE", False),
    ],
)
def test_only_the_word_alone_on_the_last_line_ends_it(said, done):
    result, backend = run(SelfRefine(rounds=1), in_turn("#### 1", said, "#### 2"))
    assert (len(backend.calls) == 2) == (done or not said)
    assert (result.stop_reason == "certain") == done


def test_a_critique_that_was_cut_never_says_done():
    class Cut:
        text, finish_reason = "DONE", "length"

    assert not says_done(Cut())


def test_critic_and_editor_may_be_other_models():
    models = {"critic": lambda call: "no", "editor": lambda call: "#### 4"}
    result, backend = run(SelfRefine(rounds=1, critic="critic", editor="editor"), in_turn("#### 1"), models=models)
    assert [call.model for call in backend.calls] == [None, "critic", "editor"]
    assert str(result.answer) == "4"


def test_a_budget_that_ends_anywhere_leaves_the_best_so_far():
    replies = ("#### 1 [0.5]", "no it is not", "well then #### 2 [0.7]", "no", "so be it #### 3 [0.8]")
    every_budget(SelfRefine(rounds=2, scorer=ProcessReward()), in_turn(*replies))
    every_budget(SelfRefine(rounds=2), in_turn(*replies))


def test_no_round_is_a_sample():
    refined, sampled = run_many(SelfRefine(rounds=0), 20), run_many(Sample(), 20)
    assert [result.best.tokens for result in refined] == [result.best.tokens for result in sampled]


def test_the_common_laws(monkeypatch):
    check_strategy(SelfRefine(rounds=2))
    monkeypatch.setattr(testing, "toy_backend", roomy_toy)
    check_strategy(SelfRefine(rounds=2))
    check_strategy(SelfRefine(rounds=2, scorer=ProcessReward()))


def test_an_unfinished_draft_can_be_closed_with_a_forced_answer():
    strategy = SelfRefine(
        rounds=1, answer_suffix="#### ", reserve=1, sampling=SelfRefine().sampling.with_(max_tokens=2)
    )
    result, _ = run(strategy, lambda call: "4" if "####" in call.answer else "let us see")
    assert (result.text, str(result.answer)) == ("let us #### 4", "4")


def test_options_are_read_and_checked():
    assert parse_strategy("self-refine:rounds=5,scorer=prm,agg=min") == SelfRefine(
        rounds=5, scorer=ProcessReward(agg="min")
    )
    assert parse_strategy("self-refine").scorer is None
    with pytest.raises(ConfigError, match="rounds=-1"):
        SelfRefine(rounds=-1)
    with pytest.raises(ConfigError, match="answer"):
        SelfRefine(feedback_prompt="{question}")

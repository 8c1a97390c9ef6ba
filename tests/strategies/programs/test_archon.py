"""Archon: every prompt sent and every token charged, layer by layer; malformed replies; budgets; the common laws."""

import asyncio
import re

import pytest

from ramify.backends.scripted import ScriptedBackend
from ramify.sampling import SamplingParams
from ramify.scoring import KeyedBy, MarkedAnswer, Problem
from ramify.strategies import Budget, Sample, SelfConsistency, solve
from ramify.strategies.programs.archon import Archon
from ramify.strategies.testing import check_result, check_strategy
from tests.strategies.laws import SMALL, assert_law, run_many

PROMPTS = {
    "critic_prompt": "CRITIC {question} {answers}",
    "critic_of_one_prompt": "ONE {question} {answer}",
    "ranker_prompt": "RANKER {question} {answers} {form}",
    "fuser_prompt": "FUSER {question} {answers}",
    "verifier_prompt": "VERIFIER {question} {answer}",
    "tests_prompt": "TESTS {question} {count}",
    "code_tests_prompt": "CODE {question} {count}",
    "evaluator_prompt": "EVALUATOR {question} {answer} {tests}",
    "item": "<{number}:{answer}>",
    "critique": "<{number} is {critique}>",
}
TINY = {
    **PROMPTS,
    **{"critic_prompt": "{answers}", "critic_of_one_prompt": "{answer}", "ranker_prompt": "{answers}"},
    **{"fuser_prompt": "{answers}", "verifier_prompt": "{answer}", "item": "{answer}", "critique": "{critique}"},
    **{"tests_prompt": "t", "code_tests_prompt": "t", "evaluator_prompt": "{answer}{tests}"},
}


class Cast:
    """A script: what is said in each role, one reply after the other, the last one again and again."""

    def __init__(self, **replies):
        self.replies = {role: list(said) if isinstance(said, list) else [said] for role, said in replies.items()}

    def __call__(self, call):
        role = call.text.split()[0].lower() if call.text.split()[0].isupper() else "draft"
        if callable(self.replies[role][0]):
            return self.replies[role][0](call)
        return self.replies[role].pop(0) if len(self.replies[role]) > 1 else self.replies[role][0]


def run(layers, cast, budget=None, max_model_len=8192, models=None, **options):
    backend = ScriptedBackend(cast, max_model_len=max_model_len, models=models)
    strategy = Archon(layers, **{**PROMPTS, **options})
    result = asyncio.run(solve(strategy, Problem("p", "q?"), backend, budget=budget, equivalence=MarkedAnswer()))
    check_result(result, backend)
    return result, [call.text for call in backend.calls], backend


def words(*texts):
    return sum(len(text.split()) for text in texts)


DRAFTS = ["#### 1", "#### 2", "#### 3"]


def test_every_prompt_of_critic_ranker_and_fuser_is_as_it_is_defined():
    cast = Cast(draft=DRAFTS, critic="[1] weak\n[2] so so\n[3] strong", ranker="[3] > [1] > [2]", fuser="so #### 4")
    result, prompts, _ = run("generator:3/critic/ranker:2/fuser", cast)
    judged = "<1:#### 1><1 is weak>\n\n<2:#### 2><2 is so so>\n\n<3:#### 3><3 is strong>"
    assert prompts == [
        *["q?"] * 3,
        "CRITIC q? <1:#### 1>\n\n<2:#### 2>\n\n<3:#### 3>",
        f"RANKER q? {judged} [3] > [2] > [1]",
        "FUSER q? <1:#### 3><1 is strong>\n\n<2:#### 1><2 is weak>",
    ]
    assert (result.text, str(result.answer), result.stop_reason, result.notes) == ("so #### 4", "4", "finished", ())
    assert [candidate.node.text for candidate in result.candidates] == [*DRAFTS, "so #### 4"]
    assert result.ledger.generated == words(*DRAFTS)
    assert result.ledger.program == words("[1] weak [2] so so [3] strong", "so #### 4")
    assert result.ledger.verifier == words("[3] > [1] > [2]")
    assert result.ledger.prompt == words(*prompts)
    assert result.ledger.calls == 4  # the three drafts are one


def test_components_ask_their_own_models():
    models = {"small": lambda call: "small #### 7", "judge": lambda call: "[2] > [1] > [3]"}
    layers = "generator:2+generator@small/ranker:1@judge/fuser@small"
    result, prompts, backend = run(layers, Cast(draft=DRAFTS), models=models)
    models_asked = [call.model for call in backend.calls]
    assert sorted(models_asked[:3], key=str) == [None, None, "small"]  # drawn together
    assert models_asked[3:] == ["judge", "small"]
    assert prompts[3] == "RANKER q? <1:#### 1>\n\n<2:#### 2>\n\n<3:small #### 7> [3] > [2] > [1]"
    assert prompts[-1] == "FUSER q? <1:#### 2>"
    assert result.text == "small #### 7"


def test_several_fusers_and_samples_replace_the_candidates():
    cast = Cast(draft=DRAFTS, fuser=["a #### 5", "b #### 6", "c #### 6", "d #### 9"])
    result, prompts, _ = run("generator:3/fuser:3/fuser", cast)
    assert prompts[3:6] == ["FUSER q? <1:#### 1>\n\n<2:#### 2>\n\n<3:#### 3>"] * 3
    assert prompts[6] == "FUSER q? <1:a #### 5>\n\n<2:b #### 6>\n\n<3:c #### 6>"
    assert result.text == "d #### 9"
    assert len(result.candidates) == 7


def test_several_answers_at_the_end_are_voted_on_and_ranked_ones_are_not():
    cast = {"draft": ["#### 1", "#### 2", "#### 2"], "ranker": "[1] > [2] > [3]"}
    assert str(run("generator:3", Cast(**cast))[0].answer) == "2"
    assert str(run("generator:3/ranker", Cast(**cast))[0].answer) == "1"


def test_a_verifier_keeps_the_correct():
    cast = Cast(draft=DRAFTS, verifier=["no [Incorrect]", "yes [Correct]", "perhaps"], fuser="#### 4")
    result, prompts, _ = run("generator:3/verifier/fuser", cast)
    assert prompts[3:] == [*(f"VERIFIER q? #### {i}" for i in (1, 2, 3)), "FUSER q? <1:#### 2>"]
    assert result.ledger.verifier == words("no [Incorrect]", "yes [Correct]", "perhaps")
    assert result.notes == ("verifier: 1 of 3 verdicts cannot be read and call nothing correct",)


@pytest.mark.parametrize("said", ["[Incorrect]", "I can't say.", ""])
def test_a_verifier_that_calls_nothing_correct_keeps_all(said):
    result, prompts, _ = run("generator:3/verifier/fuser", Cast(draft=DRAFTS, verifier=said, fuser="#### 4"))
    assert prompts[-1] == "FUSER q? <1:#### 1>\n\n<2:#### 2>\n\n<3:#### 3>"
    assert "verifier: no candidate is called correct; all stay" in result.notes


def test_the_candidates_that_pass_most_tests_stay_most_first():
    outcomes = ["[1] PASS\n[2] FAIL", "[1] FAIL\n[2] FAIL", "[1] PASS\n[2] PASS"]
    cast = Cast(draft=DRAFTS, tests='["it is odd", "it is 3"]', evaluator=outcomes)
    result, prompts, _ = run("generator:3/tests/evaluator:2", cast)
    assert prompts[3:] == ["TESTS q? 5"] + [f"EVALUATOR q? #### {i} [1] it is odd\n[2] it is 3" for i in (1, 2, 3)]
    assert str(result.answer) == "3"
    assert result.ledger.program == words('["it is odd", "it is 3"]')
    assert result.ledger.verifier == words(*outcomes)
    scores = [node.scores["tests"] for node in result.trace.tree() if "tests" in node.scores]
    assert scores == [0.5, 0.0, 1.0]


def test_the_worst_candidate_is_never_taken_for_the_best():
    for best in range(3):  # an ascending sort would pick the others
        outcomes = ["[1] PASS" if place == best else "[1] FAIL" for place in range(3)]
        tested, _, _ = run("generator:3/tests/evaluator:1", Cast(draft=DRAFTS, tests='["x"]', evaluator=outcomes))
        ranked, _, _ = run("generator:3/ranker:1", Cast(draft=DRAFTS, ranker=f"[{best + 1}]"))
        assert tested.text == ranked.text == DRAFTS[best]


def test_equally_tested_candidates_stay_in_their_order_and_are_voted_on():
    cast = Cast(draft=["#### 1", "#### 2", "#### 2"], tests='["x"]', evaluator="[1] PASS")
    assert str(run("generator:3/tests/evaluator", cast)[0].answer) == "2"


def test_no_more_tests_are_used_than_were_asked_for():
    cast = Cast(draft=DRAFTS, tests='["a", "b", "c"]', evaluator="[1] PASS [2] FAIL")
    result, prompts, _ = run("generator:2/tests:2/evaluator", cast)
    assert prompts[-1] == "EVALUATOR q? #### 2 [1] a\n[2] b"
    assert "tests: 1 tests more than asked for" in result.notes


def test_code_tests_run_in_the_sandbox():
    programs = ["```python\ndef f(x): return x\n```", "```python\ndef f(x): return 2 * x\n```", "no program"]
    tests = "```python\nassert f(1) == 2\n```\n```python\nassert f(0) == 0\n```"
    result, prompts, _ = run("generator:3/code-tests:2/evaluator", Cast(draft=programs, code=tests))
    assert prompts[3:] == ["CODE q? 2"]  # the evaluator asks no model
    scores = [node.scores["tests"] for node in result.trace.tree() if "tests" in node.scores]
    assert scores == [0.5, 1.0, 0.0]
    assert result.ledger.verifier == 0


def test_code_tests_without_a_program_are_not_passed_and_noted():
    cast = Cast(draft=["```json\n{}\n```", "```python\nx = 1\n```"], code="```python\nassert x == 1\n```")
    result, _, _ = run("generator:2/code-tests/evaluator", cast)
    assert "evaluator: a candidate holds no program and passes no test" in result.notes


# Replies that are not as they should be


@pytest.mark.parametrize("bad", ["[1] weak", "[1] a\n[1] b\n[2] c", "I cannot do that.", "", '{"1": "weak"}'])
def test_a_critic_is_asked_again_three_times_and_then_for_each_candidate(bad):
    cast = Cast(draft=DRAFTS, critic=bad, one=["weak", "strong"], ranker="[2] > [1]")
    result, prompts, _ = run("generator:2/critic/ranker", cast)
    assert prompts[2:6] == ["CRITIC q? <1:#### 1>\n\n<2:#### 2>"] * 4
    assert prompts[6:8] == ["ONE q? #### 1", "ONE q? #### 2"]
    assert prompts[8].startswith("RANKER q? <1:#### 1><1 is weak>\n\n<2:#### 2><2 is strong>")
    assert result.ledger.program == 4 * words(bad) + words("weak", "strong")
    assert result.notes == (
        "critic: a reply had no critique for each candidate, or two for one: asked again",
        "critic: no reply could be read; each candidate is judged alone",
    )


def test_a_critic_that_mends_its_reply_is_asked_no_more():
    cast = Cast(draft=DRAFTS, critic=["", "[2] b\n[1] a"], ranker="[2] > [1]")
    result, prompts, _ = run("generator:2/critic/ranker", cast)
    assert [prompt.split()[0] for prompt in prompts[2:]] == ["CRITIC", "CRITIC", "RANKER"]
    assert "<1 is a>" in prompts[-1]
    assert "<2 is b>" in prompts[-1]
    assert len(result.notes) == 1


def test_candidates_without_a_critique_are_shown_without_one():
    cast = Cast(draft=DRAFTS, critic="no", one=["", "fine"], fuser="#### 4")
    result, prompts, _ = run("generator:2/critic/fuser", cast, retries=0)
    assert prompts[2:] == [
        "CRITIC q? <1:#### 1>\n\n<2:#### 2>",
        "ONE q? #### 1",
        "ONE q? #### 2",
        "FUSER q? <1:#### 1>\n\n<2:#### 2><2 is fine>",
    ]
    assert "critic: 1 of 2 candidates have no critique" in result.notes


def test_one_candidate_is_criticised_alone_and_not_ranked():
    _, prompts, _ = run("generator/critic/ranker/fuser", Cast(draft=DRAFTS, one="weak", fuser="#### 4"))
    assert prompts[1:] == ["ONE q? #### 1", "FUSER q? <1:#### 1><1 is weak>"]


@pytest.mark.parametrize(
    ("said", "order", "missing"),
    [("[3]", [3, 1, 2], 2), ("[2] > [2] > [8]", [2, 1, 3], 2), ("No.", [1, 2, 3], 3), ("", [1, 2, 3], 3)],
)
def test_candidates_that_a_ranking_leaves_out_come_last(said, order, missing):
    result, prompts, _ = run("generator:3/ranker/fuser", Cast(draft=DRAFTS, ranker=said, fuser="#### 4"))
    shown = [int(number) for number in re.findall(r"#### (\d)>", prompts[-1])]
    assert shown == order
    assert result.notes == (f"ranker: {missing} of 3 candidates are not ranked; they come last",)


def test_a_ranking_that_ranks_nothing_leaves_the_vote():
    cast = {"draft": ["#### 1", "#### 2", "#### 2"]}
    assert str(run("generator:3/ranker", Cast(**cast, ranker="I refuse."))[0].answer) == "2"
    assert str(run("generator:3/ranker", Cast(**cast, ranker="[1]"))[0].answer) == "1"


def test_tests_in_lines_are_read_and_without_any_the_candidates_stay():
    lines = Cast(draft=DRAFTS, tests="1. it is odd\n2. it is 3", evaluator="[1] PASS [2] PASS")
    result, prompts, _ = run("generator:1/tests/evaluator", lines)
    assert prompts[-1] == "EVALUATOR q? #### 1 [1] it is odd\n[2] it is 3"
    assert result.notes == ("tests: the reply is no JSON list of texts; its numbered lines were read",)
    for said in ("I refuse.", "", '{"tests": [1]}'):
        result, prompts, _ = run("generator:3/tests/evaluator:2/fuser", Cast(draft=DRAFTS, tests=said, fuser="#### 4"))
        assert prompts[-1] == "FUSER q? <1:#### 1>\n\n<2:#### 2>"
        assert result.notes == (
            "tests: no test could be read",
            "evaluator: there is no test; the candidates stay as they are",
        )


def test_outcomes_that_are_not_told_are_not_passed():
    cast = Cast(draft=DRAFTS, tests='["x", "y"]', evaluator=["all good", "[2] PASS", ""])
    result, _, _ = run("generator:3/tests/evaluator", cast)
    assert result.text == "#### 2"
    assert result.notes == ("evaluator: 5 of 6 outcomes cannot be read and count as failed",)


def test_of_a_cut_reply_only_whole_lines_are_read():
    cast = {"draft": ["#### 1", "#### 2", "#### 2"], "ranker": "[1] > [3] > [2] and so on"}
    result, _, _ = run("generator:3/ranker", Cast(**cast), sampling=SamplingParams(max_tokens=3))
    assert str(result.answer) == "2"  # the ranking of the first candidate may have been about to go on
    assert "a reply was cut: only its whole lines are read" in result.notes
    cast["ranker"] = "[1] > [3] > [2]\nand so on"
    result, _, _ = run("generator:3/ranker", Cast(**cast), sampling=SamplingParams(max_tokens=6))
    assert str(result.answer) == "1"


def test_fused_answers_that_are_empty_or_cut_do_not_count():
    result, prompts, _ = run("generator:2/fuser:2/fuser", Cast(draft=DRAFTS, fuser=["", "#### 5", "#### 6"]))
    assert prompts[-1] == "FUSER q? <1:#### 5>"
    assert "fuser: 1 of 2 fused answers are empty or cut" in result.notes
    result, _, _ = run("generator:3/fuser", Cast(draft=["#### 1", "#### 2", "#### 2"], fuser=" "))
    assert str(result.answer) == "2"
    assert "fuser: no fused answer can be used; the candidates before it stay" in result.notes


def test_an_unreadable_last_answer_leaves_the_one_before_it():
    result, _, _ = run("generator:3/fuser", Cast(draft=["#### 1", "#### 2", "#### 2"], fuser="I refuse to answer."))
    assert str(result.answer) == "2"
    assert "no answer of a layer's candidates can be read: that of an earlier one stands" in result.notes


def test_without_any_readable_answer_the_last_layer_speaks():
    result, _, _ = run("generator:2/fuser", Cast(draft=["once", "twice"], fuser="an essay"))
    assert (result.text, result.answer, result.notes) == ("an essay", None, ())


def test_empty_drafts_are_not_shown_and_noted():
    result, prompts, _ = run("generator:3/fuser", Cast(draft=["", "#### 2", " "], fuser="#### 4"))
    assert prompts[-1] == "FUSER q? <1:#### 2>"
    assert result.notes == ("generator: 2 of 3 answers are empty or cut: later layers do not see them",)
    assert len(result.candidates) == 4
    result, _, _ = run("generator:2/ranker/fuser", Cast(draft="", ranker="", fuser=""))
    assert result.text == ""
    assert "generator: 2 of 2 answers are empty or cut: they stay, for there are no others" in result.notes


def test_what_the_context_does_not_hold_is_left_out_and_noted():
    long = ["one two three four #### 1", "one two three four #### 2", "one two three four #### 3"]
    cast = {"draft": long, "ranker": "[1]", "fuser": "#### 4", "critic": "", "one": "ok", "verifier": "[Correct]"}
    result, prompts, _ = run("generator:3/fuser", Cast(**cast), max_model_len=15)
    assert prompts[-1].count("<") == 2
    assert "fuser: the context holds only 2 of 3 candidates" in result.notes
    result, prompts, _ = run("generator:3/ranker:3", Cast(**cast), max_model_len=20)
    assert sum(prompt.startswith("RANKER") for prompt in prompts) == 1
    assert "ranker: the context holds only 2 of 3 candidates" in result.notes
    result, prompts, _ = run("generator:3/critic/fuser", Cast(**cast), max_model_len=12)
    assert [prompt.split()[0] for prompt in prompts[3:]] == ["ONE", "ONE", "ONE", "FUSER"]
    assert "critic: the context does not hold all candidates; each is judged alone" in result.notes
    result, prompts, _ = run("generator:3/critic/verifier/ranker/fuser", Cast(**cast), max_model_len=8)
    assert prompts == ["q?"] * 3
    assert result.answer is not None
    assert "critic: 3 of 3 candidates have no critique" in result.notes


# Laws


def cast_of_all():
    return Cast(
        draft=lambda call: f"let me see #### {call.index % 3}",
        critic="[1] a b c\n[2] d e f\n[3] g h i",
        ranker="[2] > [1] > [3]",
        verifier="it is right [Correct]",
        tests='["it is short", "it is whole"]',
        evaluator="[1] PASS\n[2] FAIL",
        fuser="all things weighed #### 2",
    )


def test_a_budget_cut_anywhere_gives_the_best_so_far():
    layers = "generator:3/verifier/tests/evaluator/critic/ranker:2/fuser:2/fuser"
    whole, _, _ = run(layers, cast_of_all())
    total = whole.ledger.total_tokens
    assert whole.stop_reason == "finished"
    for tokens in range(1, total):
        result, _, _ = run(layers, cast_of_all(), Budget(tokens=tokens))
        assert result.ledger.total_tokens <= tokens
        assert result.stop_reason == "budget"
        assert result.candidates
        assert (result.answer is not None) == (tokens >= 5)  # the first draft is five words long
    assert run(layers, cast_of_all(), Budget(tokens=8192))[0].text == whole.text


def test_one_answer_follows_the_models_law():
    assert_law(run_many(Archon("generator"), 400), SMALL.law(0.8))
    sampled = [result.best.tokens for result in run_many(Sample(), 60)]
    assert [result.best.tokens for result in run_many(Archon("generator"), 60)] == sampled


def test_generators_alone_are_self_consistency():
    voted = run_many(SelfConsistency(n=5), 40)
    layered = run_many(Archon("generator:2+generator/generator:2"), 40)
    assert [result.answer for result in layered] == [result.answer for result in voted]


def test_on_a_model_that_follows_no_prompt_nothing_breaks_and_nothing_is_made_up():
    nothing = KeyedBy(lambda text, problem: None)
    layers = "generator:3/verifier/tests:2/evaluator:2/critic/ranker:2/fuser"
    for result in run_many(Archon(layers, **TINY), 40, equivalence=nothing):
        assert result.answer is None
        assert result.best.key in {candidate.node.key for candidate in result.candidates}


@pytest.mark.parametrize(
    "layers",
    ["generator:3/critic/ranker:2/fuser", "generator:3/verifier/fuser:2/fuser", "generator:3/tests:2/evaluator:2"],
)
def test_the_laws_of_every_strategy_hold(layers):
    check_strategy(Archon(layers, **TINY))


def test_the_laws_hold_with_prompts_that_the_context_does_not_hold():
    check_strategy(Archon())

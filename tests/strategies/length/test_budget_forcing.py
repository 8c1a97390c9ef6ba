"""Budget forcing: its exact law on the toy model, its limits, and where thinking begins and ends."""

import asyncio
from collections import Counter, defaultdict

import numpy as np
import pytest

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError
from ramify.scoring import Problem
from ramify.strategies import Budget, describe, parse_strategy, solve
from ramify.strategies.length.budget_forcing import BudgetForcing
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import BY_TEXT, assert_law, chi_square, run_many

MODEL = ToyModel.random(5)
END, WAIT, PREFIX = 2, 3, 1  # "b\n", "c\n", "a"
TOY = {"start_think": "", "end_think": "b\n", "answer_prefix": "a", "wait": "c\n"}


def forced(**options):
    """Budget forcing in the toy model's words, at temperature 1."""
    return BudgetForcing(**{**TOY, **options}, sampling=BudgetForcing().sampling.with_(temperature=1.0))


def exact_law(method, model=MODEL):
    """Every answer that budget forcing can give, with its probability, from its definition."""
    law = defaultdict(float)

    def answer(prefix, mass, left):
        if left == 0:
            law[prefix] += mass
            return
        for token, chance in enumerate(model.conditional(prefix)):
            if chance > 0:
                here = (*prefix, token)
                if token == model.eos:
                    law[here] += mass * chance
                else:
                    answer(here, mass * chance, left - 1)

    def think(prefix, ignored, mass):
        if len(prefix) >= method.max_think:
            answer((*prefix, END, PREFIX), mass, method.answer_tokens)
            return
        for token, chance in enumerate(model.conditional(prefix)):
            here = (*prefix, token)
            if chance == 0:
                continue
            if token not in (END, model.eos):
                think(here, ignored, mass * chance)
            elif ignored < method.ignore or len(here) < method.min_think:
                think((*prefix, WAIT), ignored + 1, mass * chance)
            elif token == END:
                answer(here, mass * chance, method.answer_tokens)
            else:
                law[here] += mass * chance

    think((), 0, 1.0)
    assert np.isclose(sum(law.values()), 1.0)
    return dict(law)


@pytest.mark.parametrize(
    "options",
    [
        {"max_think": 1},
        {"max_think": 2, "answer_tokens": 1},
        {"max_think": 3, "ignore": 1},
        {"max_think": 4, "min_think": 3},
        {"max_think": 5, "min_think": 2, "ignore": 1},
    ],
    ids=str,
)
def test_the_answers_follow_the_law_of_the_definition(options):
    method = forced(**options)
    assert_law(run_many(method, 400, model=MODEL), exact_law(method))


def test_without_limits_that_bite_it_is_plain_sampling():
    results = run_many(forced(max_think=20), 400, model=MODEL)
    assert_law(results, MODEL.law())
    assert chi_square(Counter(r.best.tokens for r in results), exact_law(forced(max_think=20)), 400) > 1e-3


def written(texts, path, **more):
    """A model that writes these tokens, then ends; other prefixes end at once."""
    size = len(texts)
    table = {tuple(path[:n]): np.eye(size)[token] for n, token in enumerate([*path, 0])}
    return ToyModel(texts, {**table, **{prefix: np.eye(size)[token] for prefix, token in more.get("then", {}).items()}})


def one(method, model, problem=None, **options):
    """The result of one run."""
    backend = ToyBackend(model, max_model_len=options.pop("max_model_len", 64))
    problem = problem or Problem("p", "xy")
    return asyncio.run(solve(method, problem, backend, equivalence=BY_TEXT, **options))


def test_a_cut_comes_at_the_limit_and_the_forced_text_costs_no_budget():
    model = written(("", "a", "b\n", "c\n"), [1] * 30, then={(1, 1, 1, 1, 2, 1): 3})
    result = one(forced(max_think=4), model)
    assert result.text == "aaaa" + "b\na" + "c\n"
    assert (result.ledger.generated, result.ledger.discarded) == (6, 0)  # four of thinking, the answer and its end
    assert result.stop_reason == "finished"


def test_the_answer_has_a_cap_of_its_own():
    model = written(("", "a", "b\n", "c\n"), [1, 1, 2, 1] + [3] * 30)
    assert one(forced(max_think=2, answer_tokens=3), model).text == "aab\na" + "c\n" * 3
    assert one(forced(max_think=9, answer_tokens=3), model).text == "aab\n" + "a" + "c\n" * 2


def test_an_early_end_is_taken_away_until_the_minimum_is_reached():
    model = written(("", "a", "b\n", "c\n"), [1, 2, 1])  # ends its thinking at once
    assert one(forced(max_think=9), model).text == "ab\na"
    model = written(
        ("", "a", "b\n", "c\n"), [1, 2, 1], then={(1, 3): 2, (1, 3, 3): 1, (1, 3, 3, 1): 2, (1, 3, 3, 1, 2): 1}
    )
    assert one(forced(max_think=9, min_think=4), model).text == "a" + "c\n" * 2 + "a" + "b\na"
    assert one(forced(max_think=9, ignore=2), model).text == "a" + "c\n" * 2 + "a" + "b\na"


def test_an_end_of_sequence_is_an_end_of_thinking_too():
    model = written(("", "a", "b\n", "c\n"), [1], then={(1, 3): 1, (1, 3, 1): 2})
    result = one(forced(max_think=9, ignore=1), model)
    assert result.text == "ac\nab\n"
    assert result.ledger.discarded == 1  # the end that was taken away


@pytest.mark.parametrize(
    ("texts", "path", "text"),
    [
        (("", "a", "#", "x"), [1, 2, 2], "ax"),
        (("", "a", "a#", "#", "x"), [1, 2, 3], "ax"),
        (("", "a", "##a", "x"), [1, 2], "ax"),
        (("", "a", "#", "x"), [1, 2, 1, 2, 2], "a#ax"),
    ],
    ids=["two tokens", "begun in a token", "more behind it", "half a marker before"],
)
def test_the_whole_marker_is_taken_away_however_it_was_cut_into_tokens(texts, path, text):
    method = BudgetForcing(start_think="", end_think="##", answer_prefix="", wait="x", ignore=1, max_think=20)
    assert one(method, written(texts, path)).text == text


def test_a_marker_that_the_text_put_in_has_begun_ends_thinking_at_once():
    method = BudgetForcing(start_think="", end_think="##", answer_prefix="", wait="x#", ignore=1, max_think=20)
    texts = ("", "a", "#", "x")
    result = one(method, written(texts, [1, 2, 2], then={(1, 3, 2): 2, (1, 3, 2, 2): 1}))
    assert (result.text, result.ledger.discarded) == ("ax##a", 2)
    result = one(method, written(texts, [1, 2, 2], then={(1, 3, 2): 1, (1, 3, 2, 1): 2, (1, 3, 2, 1, 2): 1}))
    assert (result.text, result.ledger.discarded) == ("ax#a#a", 2)  # a lone mark later on ends nothing


def test_thinking_ends_early_enough_that_the_answer_fits_the_budget():
    model = written(("", "a", "b\n", "c\n"), [1] * 40)
    result = one(forced(max_think=30, answer_tokens=4), model, budget=Budget(tokens=12))
    assert result.text == "a" * 8 + "b\na"
    assert result.ledger.total_tokens == 9
    assert one(forced(max_think=30, answer_tokens=4), model, budget=Budget(tokens=3)).text == "b\na"


def test_where_the_context_ends_the_answer_is_forced_from_further_back():
    model = written(("", "a", "b\n", "c\n"), [1] * 40)
    result = one(forced(answer_tokens=4), model, max_model_len=24)
    assert result.text == "a" * 16 + "b\na"  # 22 tokens of room, less four and the two that are forced
    method = forced(answer_tokens=4)
    capped = BudgetForcing(**TOY, answer_tokens=4, sampling=method.sampling.with_(max_tokens=12))
    assert one(capped, model).text == "a" * 6 + "b\na"


@pytest.mark.parametrize(
    ("prompt", "path", "warned"),
    [
        ([9, 1], [3, 2], False),  # opened by the prompt
        ([9, 1, 2], [3, 2], True),  # and closed there
        ([9], [1, 3, 2], False),  # opened by the model
        ([9], [3, 3], True),
    ],
    ids=["by the prompt", "closed again", "by the model", "by nobody"],
)
def test_thinking_may_be_opened_by_the_prompt_or_by_the_model(prompt, path, warned):
    method = BudgetForcing(**{**TOY, "start_think": "a"})
    result = one(method, written(("", "a", "b\n", "c\n"), path), Problem("p", prompt))
    assert any("opened thinking" in note for note in result.notes) == warned


def test_marks_that_the_vocabulary_cannot_write_are_never_seen_and_noted():
    model = written(("", "a", "b\n", "c\n"), [1, 3])
    result = one(BudgetForcing(), model)
    assert result.text == "ac\n"
    assert result.notes


@pytest.mark.parametrize(
    "method",
    [
        forced(max_think=2, answer_tokens=3),
        forced(max_think=6, min_think=4, ignore=1),
        forced(max_think=4, ignore=3, answer_tokens=2),
    ],
    ids=["cut", "drawn out", "ignored"],
)
def test_it_keeps_the_laws_of_every_strategy(method):
    check_strategy(method)


def test_a_spec_holds_its_texts():
    method = parse_strategy(r"budget-forcing:start_think=,end_think=\n####,answer_prefix=\x20,wait=So\x2c,max_think=40")
    assert (method.start_think, method.end_think, method.answer_prefix, method.wait) == ("", "\n####", " ", "So,")
    assert method.forced == "\n#### "
    assert parse_strategy(describe(method)) == method
    assert method == BudgetForcing(start_think="", end_think="\n####", answer_prefix=" ", wait="So,", max_think=40)
    assert describe(BudgetForcing(wait="Hm,\n")) == r"budget-forcing:wait=Hm\x2c\n"


@pytest.mark.parametrize(
    "options",
    [
        {"max_think": 0},
        {"min_think": -1},
        {"min_think": 9, "max_think": 8},
        {"ignore": -1},
        {"wait": ""},
        {"end_think": ""},
        {"answer_tokens": 0},
    ],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        BudgetForcing(**options)


def test_on_the_bundled_model_a_cut_chain_still_gives_an_answer():
    from ramify import LLM

    method = (
        "budget-forcing:start_think=,end_think=\\n####,answer_prefix=\\x20,answer_tokens=16,temperature=0,max_think="
    )
    question = "Max has 8 jars with 9 photos in each. Grace has half as many photos as Max. How many has Grace?"
    with LLM("nano") as llm:
        [whole] = llm.solve([question], method + "200")
        [cut] = llm.solve([question], method + "8")
    assert "\n#### " in whole.text
    thinking, _, answer = cut.text.partition("\n#### ")
    assert whole.text.startswith(thinking)
    assert thinking
    assert answer
    assert cut.ledger.generated < whole.ledger.generated

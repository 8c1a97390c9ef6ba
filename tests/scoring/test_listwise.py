"""Listwise judge: the order of a reply, whatever the reply looks like, as scores over a group."""

import asyncio

import pytest

from ramify.backends.scripted import ScriptedBackend
from ramify.errors import ConfigError, ScorerError
from ramify.randomness import BranchKey
from ramify.scoring import ListwiseJudge, Problem, Reading
from ramify.scoring.listwise import read_order
from ramify.scoring.scorers import checked_scores
from ramify.strategies import BestOfN, Budget, solve
from ramify.strategies.testing import BY_TEXT

PROBLEM = Problem("p", "What is 3 * 4?")
TEXTS = ("7", "12", "I pass", "13")


def judged(*replies, texts=TEXTS, **options):
    """A ranking, the scores of the same answers, and the backend, where the judge gives these replies in turn."""

    async def ask():
        backend = ScriptedBackend(lambda call: replies[min(call.index, len(replies) - 1)])
        root = await backend.root(PROBLEM.prompt, BranchKey.root(1))
        nodes = [await backend.append(root, backend.encode(text), root.key.child(i)) for i, text in enumerate(texts)]
        live = set(backend.live)
        judge = ListwiseJudge(**options)
        batch = await checked_scores(judge, nodes, PROBLEM, backend)
        assert backend.live == live
        assert nodes[0].usage.verifier == batch.num_tokens == backend.usage.generated
        assert batch.num_tokens <= sum(judge.cost(Reading(5, 5, 5, True)) for _ in nodes)
        calls = list(backend.calls)
        backend.calls.clear()
        return await judge.rank(nodes, PROBLEM, backend), list(batch.values), calls

    return asyncio.run(ask())


def test_the_best_gets_1_and_the_last_0():
    ranking, values, calls = judged("[2] > [4] > [1] > [3]")
    assert ranking.order == (1, 3, 0, 2)
    assert values == pytest.approx([1 / 3, 1, 0, 2 / 3])
    assert (ranking.missing, ranking.repeated, ranking.unreadable) == ((), 0, 0)
    (call,) = calls
    assert call.text.startswith("What is 3 * 4?")
    assert "[2]\n12\n" in call.text
    assert "4 proposed answers" in call.text
    assert call.params.temperature == 0


@pytest.mark.parametrize(
    ("reply", "order", "missing", "repeated"),
    [
        ("[2]", (1, 0, 2, 3), (0, 2, 3), 0),
        ("[3] > [3] > [1] > [3]", (2, 0, 1, 3), (1, 3), 2),
        ("2, 1 and then 4", (1, 0, 3, 2), (2,), 0),
        ("Answer 9 is best: [9] > [4]", (3, 0, 1, 2), (0, 1, 2), 0),
        ("12 is right, so [ 2 ] wins", (1, 0, 2, 3), (0, 2, 3), 0),
    ],
)
def test_missing_answers_follow_in_their_order_and_repeated_ones_count_once(reply, order, missing, repeated):
    ranking, _, _ = judged(reply)
    assert (ranking.order, ranking.missing, ranking.repeated, ranking.unreadable) == (order, missing, repeated, 0)


def test_an_unreadable_reply_is_counted_and_asked_for_again():
    ranking, values, calls = judged("I cannot choose.", "", "[4] > [1] > [2] > [3]")
    assert ranking.order == (3, 0, 1, 2)
    assert values[3] == 1
    assert len(calls) == 3
    assert [call.params.temperature for call in calls] == [0, 1.0, 1.0]
    assert judged("no", "[2]", tries=2)[0].unreadable == 1


def test_if_none_can_be_read_it_is_an_error_and_no_score():
    with pytest.raises(ScorerError, match="none of 2 replies names an answer; the last is 'Sorry'"):
        judged("[0]", "Sorry", tries=2)


def test_an_answer_alone_is_not_asked_about():
    ranking, values, calls = judged("[1]", texts=("12",))
    assert (ranking.order, values, calls) == ((0,), [0.5], [])


def test_numbers_inside_of_others_are_no_places():
    assert read_order("1.5 and v2 and 12", 4) == []
    assert read_order("3. then 1.", 4) == [2, 0]


def test_a_method_chooses_by_it_inside_the_budget():
    def script(call):
        return "[3] > [1]" if "proposed answers" in call.text else f"{call.index} is it "

    for tokens in (None, 40, 120):
        backend = ScriptedBackend(script)
        strategy = BestOfN(n=3, scorer=ListwiseJudge())
        result = asyncio.run(solve(strategy, PROBLEM, backend, budget=Budget(tokens=tokens), equivalence=BY_TEXT))
        assert result.ledger.verifier + result.ledger.generated == result.ledger.total_tokens
        if tokens is None:
            assert result.best.key == result.candidates[2].node.key
            assert result.ledger.verifier == 3


@pytest.mark.parametrize(
    "options", [{"tries": 0}, {"tokens_per_answer": 0}, {"temperature": 0.0}, {"template": "{question}"}]
)
def test_options_that_do_not_work_are_refused(options):
    with pytest.raises(ConfigError):
        ListwiseJudge(**options)

"""The scripted model: it says what it was told to, keeps every prompt, and counts every word."""

import asyncio

import pytest

from ramify.backends.base import Backend
from ramify.backends.scripted import ScriptedBackend
from ramify.errors import CapabilityError, RequestError
from ramify.scoring import MarkedAnswer, Problem
from ramify.strategies import Budget, parse_strategy, solve
from ramify.strategies.testing import check_result


def run(backend, spec, prompt="What is 2 + 2?", **options):
    strategy = parse_strategy(spec)
    return asyncio.run(solve(strategy, Problem("p", prompt), backend, equivalence=MarkedAnswer(), **options))


def test_a_vote_over_scripted_replies_counts_their_words():
    replies = ["two and two\n#### 4", "I guess\n#### 5", "sum\n#### 4"]
    backend = ScriptedBackend(lambda call: replies[call.index])
    assert isinstance(backend, Backend)
    result = run(backend, "self-consistency:n=3")
    assert str(result.answer) == "4"
    assert result.ledger.generated == sum(len(reply.split()) for reply in replies)
    assert [call.text for call in backend.calls] == ["What is 2 + 2?"] * 3
    check_result(result, backend)


def test_messages_are_text_and_steps_go_on_where_they_stopped():
    backend = ScriptedBackend(
        lambda call: "first line\nsecond line\n#### 4".removeprefix(call.answer), {"nano-prm": lambda text: 0.5}
    )
    messages = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "2 + 2?"})
    result = run(backend, "beam:n=2,m=1", messages)
    assert result.text == "first line\nsecond line\n#### 4"
    assert backend.calls[0].text == "be brief\n2 + 2?"
    assert {call.answer for call in backend.calls} == {"", "first line\n", "first line\nsecond line\n"}
    check_result(result, backend)


def test_a_budget_cuts_a_reply():
    backend = ScriptedBackend(lambda call: "one two three four")
    result = run(backend, "sample", budget=Budget(tokens=2))
    assert (result.text, result.best.finish_reason, result.stop_reason) == ("one two ", "length", "budget")


def test_odds_and_models_are_those_that_were_given():
    async def body():
        from ramify.randomness import BranchKey
        from ramify.sampling import SamplingParams

        backend = ScriptedBackend(
            lambda call: "large", odds=lambda call, text: -len(text), models={"small": lambda call: "small"}
        )
        root = await backend.root("q", BranchKey.root(0), model="small")
        (node,) = [node async for node in backend.extend(root, SamplingParams(max_tokens=None))]
        (values,) = await backend.logprobs(root, [backend.encode("yes no")])
        return node.text, values.tolist()

    assert asyncio.run(body()) == ("small", [-6.0, 0.0])
    with pytest.raises(CapabilityError, match="odds="):
        asyncio.run(ScriptedBackend(lambda call: "").logprobs(None, [()]))
    with pytest.raises(RequestError, match="no model 'x'"):
        ScriptedBackend(lambda call: "").context_length("x")

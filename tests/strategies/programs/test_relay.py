"""Relay: an answer passes from tree to tree whole, and where a context is full it ends there."""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from ramify.backends.toy import ToyBackend
from ramify.errors import BudgetExhausted
from ramify.scoring import Problem
from ramify.strategies import Budget, Method, parse_strategy, solve_many
from ramify.strategies.programs.relay import FULL, Relay
from ramify.strategies.steps import StepSplitter
from tests.strategies.laws import BY_TEXT, PROMPT, problems
from tests.strategies.programs.pairs import LARGE, SMALL, OtherPrompt

SPECS = [
    "spec-reason:small=small,threshold=0.4,judge=likelihood",
    "spec-reason:small=small,threshold=0.6",
    "entropy-switch:small=small,threshold=0.6,stride=1,window=1",
    "nudging:small=small,threshold=0.7",
]
TOKEN = StepSplitter(max_tokens=1)


@pytest.mark.parametrize("spec", SPECS)
def test_where_a_context_is_full_the_answer_is_cut_and_says_so(spec):
    backend = OtherPrompt(LARGE, {"nano-prm": lambda tokens: 0.5}, max_model_len=5, models={"small": SMALL})
    found = asyncio.run(solve_many(parse_strategy(spec), problems(60), backend, equivalence=BY_TEXT))
    assert not backend.live
    cut = [result for result in found if result.best.finish_reason == "length"]
    assert 0 < len(cut) < 60
    assert all(len(result.best.tokens) <= 3 for result in found)
    assert all(result.notes in ((), (FULL,)) for result in found)


@dataclass(frozen=True)
class Play(Method):
    """Runs a function of the context."""

    name: ClassVar[str] = "play"
    body: Any = None

    async def run(self, problem, context):
        return await self.body(context)


def play(body, kind=ToyBackend, budget=None):
    backend = kind(LARGE, max_model_len=24, models={"small": SMALL})
    (result,) = asyncio.run(solve_many(Play(body), [Problem("p", PROMPT)], backend, budget=budget, equivalence=BY_TEXT))
    assert not backend.live
    return result


@pytest.mark.parametrize("kind", [ToyBackend, OtherPrompt])
def test_each_models_tree_holds_the_whole_answer_when_its_turn_comes(kind):
    async def body(context):
        relay = await Relay.begin(context, None, "small")
        for model in (None, None, "small", None):
            before = relay.latest.text
            draft = await relay.draft(model, TOKEN)
            assert draft.model == model
            assert draft.text.startswith(before)
            assert draft.parent.text == before
            relay.accept(draft)
            if not draft.open:
                break
        return context.result([relay.latest], 0)

    play(body, kind)


@pytest.mark.parametrize("kind", [ToyBackend, OtherPrompt])
def test_what_is_rejected_leaves_no_trace_in_the_answer(kind):
    async def body(context):
        relay = await Relay.begin(context, None, "small")
        draft = await relay.draft("small", TOKEN)
        shown = await relay.show(draft, None)
        assert (shown.text, shown.model) == (draft.text, None)
        relay.reject(draft)
        assert relay.latest.text == (await relay.caught_up(None)).text == (await relay.caught_up("small")).text == ""
        again = await relay.draft("small", TOKEN)
        assert again.key != draft.key
        relay.accept(again)
        return context.result([relay.latest], 0)

    play(body, kind)


def test_only_the_first_tokens_of_a_draft_may_be_accepted():
    async def body(context):
        relay = await Relay.begin(context, None, "small")
        draft = await relay.draft(None, StepSplitter(max_tokens=3))
        tokens = draft.tokens
        await relay.accept_first(draft, 0)
        assert relay.latest.tokens == ()
        other = await relay.draft(None, StepSplitter(max_tokens=3))
        await relay.accept_first(other, len(other.tokens) - 1)
        assert relay.latest.tokens == other.tokens[:-1]
        assert relay.latest.open
        assert (await relay.caught_up("small")).tokens == other.tokens[:-1]
        assert len(tokens) >= 1
        return context.result([relay.latest], 0)

    play(body)


def test_a_spent_budget_closes_the_answer_so_far():
    async def body(context):
        relay = await Relay.begin(context, None, "small")
        relay.accept(await relay.draft(None, TOKEN))
        closed = await relay.draft("small", TOKEN)
        assert closed.finish_reason == "length"
        assert closed.key == relay.latest.key
        relay.accept(closed)
        with pytest.raises(BudgetExhausted):
            await context.extend([await context.root()])
        return context.result([relay.latest], 0)

    result = play(body, budget=Budget(tokens=1))
    assert result.stop_reason == "budget"
    assert len(result.best.tokens) == result.ledger.total_tokens == 1

"""What a method may do through its context besides drawing: force, probe, ask for log-probabilities, note, skip."""

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np
import pytest

from ramify.backends.base import Capability
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import BudgetExhausted, ConfigError, RequestError
from ramify.scoring import Problem, ProcessReward, ScoreBatch
from ramify.strategies import BestOfN, Budget, Context, Method, Prices, Trace, describe, parse_strategy, solve
from ramify.strategies.kernel.trace import Forced, Noted, Probed
from ramify.strategies.steps import tokens
from ramify.strategies.testing import BUDGETS, BY_TEXT, check_result, check_strategy, toy_backend


@dataclass(frozen=True)
class Written(Method):
    """A strategy made of a function."""

    body: object = None

    async def run(self, problem: Problem, context: Context):
        return await self.body(context)


def run(body, backend=None, strategy=None, **options):
    strategy = strategy or Written(body=body)
    return asyncio.run(solve(strategy, Problem("p", "xy"), backend or toy_backend(), equivalence=BY_TEXT, **options))


def test_forced_tokens_cost_no_budget_and_are_counted_as_prompt():
    async def body(context):
        root = await context.root()
        forced = await context.append(root, "a")
        assert (forced.text, forced.num_new_tokens, forced.open) == ("a", 0, True)
        assert context.ledger().total_tokens == 0
        before = context.ledger().prompt
        await context.append(forced, "b\n")
        assert context.ledger().prompt == before + 1
        return context.result(await context.extend([forced], 3), best=0)

    backend = toy_backend()
    result = run(body, backend, budget=Budget(tokens=30))
    check_result(result, backend)
    assert all(candidate.node.text.startswith("a") for candidate in result.candidates)
    assert [event.text for event in result.trace.events if isinstance(event, Forced)] == ["a", "b\n"]
    assert Trace.from_jsonl(result.trace.to_jsonl()).tree() == result.trace.tree()


def test_the_same_node_is_forced_twice_into_two_branches_with_their_own_draws():
    async def body(context):
        root = await context.root()
        twins = [await context.append(root, "a") for _ in range(2)]
        drawn = await context.extend(twins, 8)
        assert drawn[0].parent.key != drawn[8].parent.key
        return context.result(drawn, best=0)

    result = run(body, toy_backend(1))
    texts = [candidate.node.text for candidate in result.candidates]
    assert texts[:8] != texts[8:]


def test_a_cut_answer_takes_the_place_of_the_one_it_was_cut_from():
    async def body(context):
        (whole,) = await context.extend([await context.root()])
        keep = len(whole.tokens) - 1
        cut = await context.append(whole, "a", keep=keep)
        assert cut.tokens == (*whole.tokens[:keep], 1)
        assert cut.parent is whole.parent
        (again,) = await context.extend([cut])
        return context.result([again], best=0)

    backend = toy_backend(2)
    check_result(run(body, backend), backend)


def test_probes_are_charged_to_their_purse_and_leave_nothing_behind():
    async def body(context):
        nodes = await context.extend([await context.root()], 3, until=tokens(1))
        live = len(backend.live)
        probes = await context.probe(nodes, "a", max_tokens=2)
        assert len(backend.live) == live
        assert [probe.num_new_tokens <= 2 for probe in probes] == [True] * 3
        for node, probe in zip(nodes, probes, strict=True):
            assert backend.model.text(probe.tokens) == node.text + "a" + probe.text
        assert context.ledger().probe == sum(probe.num_new_tokens for probe in probes)
        return context.result(await context.step(nodes), best=0)

    backend = toy_backend(1)
    result = run(body, backend)
    check_result(result, backend)
    assert len([event for event in result.trace.events if isinstance(event, Probed)]) == 3
    assert result.ledger.generated == sum(c.node.num_tokens for c in result.candidates)


def test_a_probe_that_the_budget_does_not_admit_is_an_end_of_the_budget():
    async def body(context):
        nodes = await context.extend([await context.root()], 2, until=tokens(1))
        with pytest.raises(BudgetExhausted, match="another probe"):
            await context.probe([*nodes, *nodes], "a", max_tokens=2)
        return context.result(nodes, best=0)

    backend = toy_backend(1)
    check_result(run(body, backend, budget=Budget(tokens=5)), backend)


def test_log_probabilities_are_the_models_own_and_reserved_before_they_are_read():
    async def body(context):
        (node,) = await context.extend([await context.root()], until=tokens(1))
        (found,) = await context.logprobs(node, ["ab\n"])
        first = backend.model.next_token(node.tokens)[1]
        second = backend.model.next_token((*node.tokens, 1))[2]
        assert np.exp(found) == pytest.approx([first, second])
        with pytest.raises(BudgetExhausted):
            await context.logprobs(node, ["a", "a"])
        return context.result([node], best=0)

    backend = toy_backend(1)
    result = run(body, backend, budget=Budget(tokens=4))
    assert (result.ledger.probe, result.ledger.total_tokens) == (2, 3)


def test_each_node_can_have_its_own_number_of_continuations():
    async def body(context):
        nodes = await context.extend([await context.root()], 3, until=tokens(1))
        open_nodes = [node for node in nodes if node.open]
        counts = list(range(len(open_nodes)))
        drawn = await context.extend(open_nodes, counts, until=tokens(1))
        below = Counter(node.parent.key for node in drawn)
        assert [below[node.key] for node in open_nodes] == counts
        with pytest.raises(ConfigError, match="does not fit"):
            await context.extend(open_nodes, [1])
        return context.result(drawn or nodes, best=0)

    run(body, toy_backend(3))


def test_finish_order_says_that_it_favours_short_answers():
    async def body(context):
        drawn = [node async for node in context.samples([await context.root()], 6, order="finish")]
        return context.result(drawn, best=0)

    backend = toy_backend(1, pace=lambda key: 1 + key.low % 5)
    result = run(body, backend)
    check_result(result, backend)
    assert "favours short" in result.notes[0]
    assert any(isinstance(event, Noted) for event in result.trace.events)
    assert result.to_dict()["notes"] == list(result.notes)


def test_what_was_not_drawn_shows_as_saved_at_the_mean_length_of_the_finished():
    async def body(context):
        answers = []
        async with aclosing(context.samples([await context.root()], 6)) as drawn:
            async for node in drawn:
                answers.append(node)
                if len(answers) == 2:
                    break
        context.skip(10)
        return context.result(answers, best=0, certain=True)

    result = run(body, toy_backend(1))
    mean = np.mean([candidate.node.num_tokens for candidate in result.candidates])
    drawn_in_vain = result.ledger.generated - 2 * mean
    assert result.ledger.saved == round(14 * mean - drawn_in_vain)
    assert result.ledger.shared == 0


def test_keys_of_texts_are_those_of_answers():
    async def body(context):
        (node,) = await context.extend([await context.root()])
        assert context.key(node.text) == context.answer(node)
        assert context.key("") is None
        assert context.encode("ab\n") == (1, 2)
        return context.result([node], best=0)

    run(body)


@pytest.mark.parametrize(
    "spec", ["sample", "self-consistency:n=3", "best-of-n:n=3", "beam:n=4,m=2", "particle-filter:n=3"]
)
def test_with_an_answer_suffix_there_is_a_finished_answer_at_any_cut(spec):
    model = ToyModel.random(0, depth=6)
    strategy = replace(parse_strategy(spec), answer_suffix="a", reserve=5)
    for limit in (*BUDGETS, 7, 8, 11):
        if limit <= 5:
            continue
        backend = ToyBackend(model, {"nano-prm": lambda tokens: 0.5}, max_model_len=24)
        result = run(None, backend, strategy, budget=Budget(tokens=limit))
        check_result(result, backend)
        assert result.ledger.total_tokens <= limit
        assert result.best.tokens == () or result.best.finish_reason == "stop", (spec, limit)


def test_strategies_with_an_answer_suffix_keep_the_laws():
    check_strategy(replace(parse_strategy("beam:n=4,m=2"), answer_suffix="a", reserve=3), budgets=(4, 9, 17, 40))


def test_a_suffix_without_a_reserve_is_refused():
    with pytest.raises(ConfigError, match="give both"):
        run(None, strategy=replace(parse_strategy("sample"), answer_suffix="a"))
    with pytest.raises(ConfigError, match="leaves nothing"):
        run(None, strategy=replace(parse_strategy("sample"), answer_suffix="a", reserve=9), budget=Budget(tokens=9))


def test_another_models_tree_has_its_own_law_prices_and_numbers():
    other = ToyModel.random(9)
    prices = Prices(generated=2e6, models={"small": Prices(generated=1e6)})

    async def body(context):
        (small,) = await context.extend([await context.root("small")], until=tokens(1))
        copied = await context.append(await context.root(), small.tokens)
        (whole,) = await context.extend([copied])
        asked = await context.ask("is it right", model="small", max_tokens=1)
        assert (small.model, whole.model, asked.model) == ("small", None, "small")
        ledger = context.ledger()
        assert (ledger.generated, ledger.program) == (1 + whole.num_new_tokens, asked.num_new_tokens)
        assert ledger.cost == 1 + 2 * whole.num_new_tokens + asked.num_new_tokens
        return context.result([whole, small], best=0)

    model = ToyModel.random(0)
    backend = ToyBackend(model, max_model_len=24, models={"small": other})
    result = run(body, backend, budget=Budget(prices=prices))
    check_result(result, backend)
    tree = result.trace.tree()
    assert [node.id for node in tree] == list(range(len(tree)))
    assert [node.parent for node in tree if node.parent is None] == [
        None
    ] * 3  # two roots and the answer that was asked


def test_a_model_that_is_not_there_is_named_before_the_first_token():
    async def body(context):
        await context.root("smaller")

    with pytest.raises(RequestError, match="smaller"):
        run(body)


def test_an_answer_suffix_is_written_in_a_spec_as_it_reads_there():
    strategy = parse_strategy("self-consistency:n=2,answer_suffix=\\n####\\x20,reserve=8")
    assert (strategy.answer_suffix, strategy.reserve) == ("\n#### ", 8)
    assert parse_strategy(describe(strategy)) == strategy


@dataclass(frozen=True)
class ProbingScorer:
    """Reads given text, so that its tokens are metered as a probe's."""

    needs = frozenset({Capability.PROMPT_SCORING})
    range = (0.0, 1.0)

    def cost(self, reading):
        return 1

    async def score(self, nodes, problem, backend):
        for node in nodes:
            await backend.logprobs(node, [(1,)])
        return ScoreBatch(np.full(len(nodes), 0.5), len(nodes))


@pytest.mark.parametrize("prices", [Prices(generated=1e6, probe=5e6), Prices(generated=1e6, verifier=5e6)])
def test_scoring_is_reserved_at_the_price_that_it_may_have(prices):
    for dollars in (6, 11, 23, 40):
        backend = toy_backend(1)
        strategy = BestOfN(n=6, scorer=ProbingScorer())
        result = run(None, backend, strategy, budget=Budget(dollars=dollars, prices=prices))
        assert result.ledger.cost <= dollars


def test_a_scorer_reads_the_prompt_of_each_tree_once_and_all_of_it_is_reserved():
    async def body(context):
        scorer = ProcessReward()
        own = await context.extend([await context.root()], 2, scored_by=scorer)
        other = await context.extend([await context.root("small")], 2, scored_by=scorer)
        asked = await context.ask("a longer prompt")
        scores = await context.score([*own, *other, asked], scorer)
        assert len(scores) == 5
        tokens = sum(node.num_tokens for node in (*own, *other, asked))
        assert context.ledger().verifier == tokens + 2 + 2 + len("a longer prompt")
        return context.result(own, best=0)

    for limit in (None, 400, 60):
        backend = ToyBackend(
            ToyModel.random(0), {"nano-prm": lambda tokens: 0.5}, max_model_len=24, models={"small": ToyModel.random(1)}
        )
        result = run(body, backend, budget=Budget(tokens=limit))
        check_result(result, backend)


def test_each_run_is_heard_of_by_its_own_listener_alone():
    async def both():
        heard = {"p": [], "q": []}
        backend = toy_backend(1)
        strategy = parse_strategy("beam:n=4,m=2")
        runs = [
            solve(strategy, Problem(name, "xy"), backend, equivalence=BY_TEXT, listener=heard[name].append)
            for name in heard
        ]
        return heard, await asyncio.gather(*runs)

    heard, results = asyncio.run(both())
    for events, result in zip(heard.values(), results, strict=True):
        assert events == result.trace.events

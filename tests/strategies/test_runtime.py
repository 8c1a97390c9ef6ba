"""Running strategies: budgets, deadlines, cancels, many problems, and what a method may do through its context."""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.errors import BudgetExhausted, ConfigError, PromptTooLongError, RequestError, ScorerError
from ramify.sampling import SamplingParams, StructuredOutputsParams
from ramify.scoring import Problem, ProcessReward
from ramify.strategies import Budget, Context, Method, Prices, SelfConsistency, Trace, parse_strategy, solve, solve_many
from ramify.strategies.kernel.trace import Asked, Cut
from ramify.strategies.steps import tokens
from ramify.strategies.testing import BY_TEXT, check_result, toy_backend

SPECS = [
    "sample",
    "self-consistency:n=6",
    "best-of-n:n=5",
    "best-of-n:n=4,select=weighted",
    "beam:n=6,m=3",
    "beam:n=4,m=2,until=1",
    "particle-filter:n=5",
    "particle-filter:n=4,until=1,potential=incremental",
]


def run(strategy, backend=None, **options):
    strategy = parse_strategy(strategy) if isinstance(strategy, str) else strategy
    problem = options.pop("problem", Problem("p", "xy"))
    return asyncio.run(solve(strategy, problem, backend or toy_backend(), equivalence=BY_TEXT, **options))


@dataclass(frozen=True)
class Written(Method):
    """A strategy made of a function, for tests of the context."""

    body: object = None

    async def run(self, problem: Problem, context: Context):
        return await self.body(context)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SPECS), st.integers(1, 300), st.integers(0, 10_000))
def test_no_method_ever_passes_its_budget(spec, limit, seed):
    backend = toy_backend(seed % 3, pace=lambda key: 1 + key.low % 5)
    result = run(spec, backend, budget=Budget(tokens=limit), seed=seed)
    assert result.ledger.total_tokens <= limit
    check_result(result, backend)


def test_a_budget_that_is_not_reached_changes_nothing_but_the_reservation():
    free = run("beam:n=4,m=2")
    capped = run("beam:n=4,m=2", budget=Budget(tokens=10_000))
    assert (capped.text, capped.stop_reason) == (free.text, "finished")
    assert capped.trace.events[:-1] == free.trace.events[:-1]


def test_a_budget_too_small_for_anything_gives_an_empty_result():
    result = run("best-of-n:n=4", budget=Budget(tokens=1))
    assert (result.text, result.answer, result.candidates, result.stop_reason) == ("", None, (), "budget")
    assert result.ledger.total_tokens == 0


def test_a_budget_stops_a_population_where_it_is_and_says_which_branches():
    for limit in range(8, 40):
        result = run("particle-filter:n=4,until=1", toy_backend(1), budget=Budget(tokens=limit))
        cuts = [event for event in result.trace.events if isinstance(event, Cut)]
        if cuts:
            assert result.stop_reason == "budget"
            assert any(node.status == "length" for node in result.trace.tree())
            return
    raise AssertionError("no budget cut a population")


def test_a_dollar_budget_is_kept_and_priced():
    prices = Prices(prompt=1000, generated=50_000, verifier=20_000)
    result = run("best-of-n:n=8", budget=Budget(dollars=0.8, prices=prices))
    assert 0 < result.ledger.cost <= 0.8
    assert result.stop_reason == "budget"
    with pytest.raises(ConfigError, match="needs prices"):
        Budget(dollars=1.0)


def test_a_deadline_gives_the_best_answer_so_far():
    backend = toy_backend(pace=lambda key: 1 if key.low % 2 else 1_000_000_000)
    result = run("self-consistency:n=6", backend, budget=Budget(seconds=0.05))
    assert result.stop_reason == "budget"
    check_result(result, backend)
    assert backend.cancelled > 0


def test_a_cancelled_caller_leaves_nothing_running_or_held():
    async def check():
        backend = toy_backend(pace=lambda key: 50)
        task = asyncio.create_task(solve(parse_strategy("beam:n=4,m=2"), Problem("p", "xy"), backend))
        for _ in range(30):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not backend.live
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(check())


def test_a_cancel_before_the_end_keeps_the_answers_seen_so_far_in_launch_order():
    async def check():
        cancel = asyncio.Event()
        backend = toy_backend(pace=lambda key: 1 + key.low % 9)
        seen = []

        def listen(event):
            seen.append(event)
            if len([e for e in seen if type(e).__name__ == "Grown"]) == 3:
                cancel.set()

        strategy, problem = SelfConsistency(n=8), Problem("p", "xy")
        stopped = await solve(strategy, problem, backend, equivalence=BY_TEXT, listener=listen, cancel=cancel)
        whole = await solve(strategy, problem, toy_backend(), equivalence=BY_TEXT)
        assert stopped.stop_reason == "cancelled"
        drawn = [candidate.node.tokens for candidate in stopped.candidates]
        assert 3 <= len(drawn) < 8
        assert drawn == [candidate.node.tokens for candidate in whole.candidates][: len(drawn)]

    asyncio.run(check())


def test_the_prompt_that_does_not_fit_is_the_callers_error():
    with pytest.raises(PromptTooLongError):
        run("sample", problem=Problem("p", "x" * 100))


def test_many_problems_give_the_same_results_as_each_alone_at_any_concurrency():
    problems = [Problem(str(i), "xy") for i in range(12)]
    strategy = parse_strategy("particle-filter:n=3")
    alone = [run(strategy, problem=problem) for problem in problems]
    seen = []
    for concurrency in (1, 5, 32):
        backend = toy_backend(pace=lambda key: 1 + key.low % 4)
        seen.clear()
        together = asyncio.run(
            solve_many(
                strategy,
                problems,
                backend,
                concurrency=concurrency,
                equivalence=BY_TEXT,
                on_result=lambda problem, result: seen.append(problem.id),
            )
        )
        assert [result.text for result in together] == [result.text for result in alone]
        assert sorted(seen) == sorted(problem.id for problem in problems)
        assert sum(result.ledger.generated for result in together) == backend.usage.generated
        assert sum(result.ledger.verifier for result in together) == backend.usage.verifier
        assert sum(result.ledger.prompt for result in together) == backend.usage.prompt


def test_a_problem_that_fails_fails_alone():
    problems = [Problem("short", "xy"), Problem("long", "x" * 99), Problem("other", "xy")]
    failed = []
    results = asyncio.run(
        solve_many(
            parse_strategy("sample"), problems, toy_backend(), on_error=lambda problem, error: failed.append(problem.id)
        )
    )
    assert failed == ["long"]
    assert [result is None for result in results] == [False, True, False]
    with pytest.raises(PromptTooLongError):
        asyncio.run(solve_many(parse_strategy("sample"), problems, toy_backend()))


def test_extending_a_node_twice_names_new_branches():
    async def body(context):
        root = await context.root()
        first = await context.extend([root], 3)
        second = await context.extend([root, root], 2)
        nodes = [*first, *second]
        assert [node.key for node in nodes] == [root.key.child(i) for i in range(7)]
        return context.result(nodes, best=0)

    assert len(run(Written(body=body)).candidates) == 7


def test_another_seed_or_problem_gives_other_draws_and_the_same_gives_the_same():
    def texts(**options):
        return [candidate.node.tokens for candidate in run("self-consistency:n=8", **options).candidates]

    assert texts() == texts()
    assert texts() != texts(seed=1)
    assert texts() != texts(problem=Problem("q", "xy"))


def test_a_node_is_scored_and_charged_once():
    async def body(context):
        nodes = await context.extend([await context.root()], 3)
        once = await context.score(nodes, ProcessReward())
        spent = context.ledger().verifier
        again = await context.score([*nodes, *nodes], ProcessReward())
        assert context.ledger().verifier == spent
        assert list(again) == [*once, *once]
        return context.result(nodes, best=0, scores=once)

    run(Written(body=body))


def test_scoring_without_a_reservation_stops_at_the_budget():
    async def body(context):
        nodes = await context.extend([await context.root()], 2)
        context.report(nodes, best=1)
        await context.score(nodes, ProcessReward())
        raise AssertionError("the budget does not allow this")

    result = run(Written(body=body), budget=Budget(tokens=7))
    assert result.stop_reason == "budget"
    assert result.best.key == result.candidates[1].node.key


def test_a_reservation_that_is_not_used_is_given_back():
    async def body(context):
        root = await context.root()
        while True:
            try:
                nodes = await context.extend([root], until=tokens(1), scored_by=ProcessReward())
            except BudgetExhausted:
                return context.result([], best=None)
            context.drop(nodes)

    result = run(Written(body=body), budget=Budget(tokens=40))
    assert result.ledger.total_tokens > 20
    assert result.ledger.discarded == result.ledger.generated


def test_dropped_and_shared_tokens_are_shown_apart():
    async def body(context):
        (trunk,) = await context.extend([await context.root()], until=tokens(1))
        nodes = await context.extend([trunk], 3, until=tokens(1))
        context.drop(nodes[2:])
        return context.result(nodes[:2], best=0)

    backend = toy_backend(1)
    result = run(Written(body=body), backend, seed=2)
    assert result.ledger.generated == 4
    assert (result.ledger.discarded, result.ledger.shared) == (1, 1)
    assert [node.status for node in result.trace.tree()].count("dropped") == 1


def test_calls_of_a_program_have_their_own_purse_and_draws():
    async def body(context):
        answers = [await context.ask("is it right", purse="program") for _ in range(2)]
        probe = await context.ask("short answer", purse="probe", max_tokens=1)
        assert answers[0].key != answers[1].key
        ledger = context.ledger()
        assert ledger.program == sum(answer.num_new_tokens for answer in answers)
        assert (ledger.probe, ledger.generated) == (probe.num_new_tokens, 0)
        with pytest.raises(ConfigError, match="choose program"):
            await context.ask("x", purse="other")
        return context.result([], best=None)

    backend = toy_backend()
    result = run(Written(body=body), backend)
    assert result.ledger.total_tokens == backend.usage.generated
    assert len([event for event in result.trace.events if isinstance(event, Asked)]) == 3
    assert not backend.live


def test_the_token_limit_of_an_answer_holds_over_its_steps():
    for spec in ("particle-filter:n=4,until=1,max_tokens=2", "beam:n=4,m=2,until=1,max_tokens=2"):
        result = run(spec)
        assert max(candidate.node.num_tokens for candidate in result.candidates) <= 2
        assert all(not candidate.node.open for candidate in result.candidates)
        assert result.stop_reason == "finished"


def test_leaving_the_stream_of_samples_cancels_the_rest():
    async def body(context):
        async with aclosing(context.samples([await context.root()], 6)) as drawn:
            async for node in drawn:
                return context.result([node], best=0)

    backend = toy_backend(pace=lambda key: 1 + key.low % 13)
    result = run(Written(body=body), backend)
    assert backend.cancelled > 0
    check_result(result, backend)


def test_only_whole_lines_of_a_cut_answer_are_read():
    async def body(context):
        nodes = await context.extend([await context.root()], 40, max_tokens=2)
        for node in nodes:
            if node.finish_reason == "length":
                whole = node.text.rpartition("\n")[0].strip()
                assert context.answer(node) == (whole or None)
        return context.result(nodes, best=0)

    result = run(Written(body=body))
    assert {candidate.node.finish_reason for candidate in result.candidates} == {"stop", "length"}


def test_an_open_node_has_no_answer():
    async def body(context):
        nodes = await context.extend([await context.root()], 8, until=tokens(1))
        assert any(node.open for node in nodes)
        assert all(context.answer(node) is None for node in nodes if node.open)
        return context.result(nodes, best=0)

    run(Written(body=body))


def test_the_trace_tells_the_tree_and_survives_its_file():
    result = run("beam:n=4,m=2,until=1")
    trace = Trace.from_jsonl(result.trace.to_jsonl())
    tree = trace.tree()
    assert tree == result.trace.tree()
    chosen = [node for node in tree if node.best]
    assert "".join(node.text for node in chosen) == result.text
    assert all(tree[child].parent == node.id for node in tree for child in node.children)
    assert sum(node.num_tokens for node in tree) == result.ledger.generated


def test_a_result_is_plain_data_on_request():
    plain = run("best-of-n:n=3").to_dict()
    assert plain["strategy"] == "best-of-n:n=3"
    assert plain["ledger"]["total_tokens"] == plain["ledger"]["generated"] + plain["ledger"]["verifier"]
    assert len(plain["candidates"]) == 3


def test_an_error_inside_a_method_is_raised_and_frees_everything():
    async def body(context):
        await context.extend([await context.root()], 3)
        raise ScorerError("broken")

    backend = toy_backend()
    with pytest.raises(ScorerError, match="broken"):
        run(Written(body=body), backend)
    assert not backend.live


def test_a_method_that_reads_log_probabilities_gives_as_many_as_the_caller_asked_for():
    result = run(SelfConsistency(n=2, sampling=SamplingParams(max_tokens=None, logprobs=2)))
    assert [len(detail.top) for detail in result.best.details] == [2] * len(result.best.tokens)


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [("xy", "xy"), ([{"role": "system", "content": "z"}, {"role": "user", "content": "xy"}], "xy"), ([0, 1], "")],
)
def test_a_trace_shows_what_was_asked_in_any_form(prompt, shown):
    events = []
    with suppress(RequestError):  # the toy model has no chat
        run("sample", problem=Problem("p", prompt), listener=events.append)
    assert events[0].prompt == shown


def test_judges_and_probes_are_not_held_to_the_form_of_answers():
    form = StructuredOutputsParams(regex="a+")
    drawn = []

    async def body(context):
        root = await context.root()
        [node] = await context.extend([root], max_tokens=1)
        for purse in ("program", "verifier"):
            await context.ask("xy", purse, max_tokens=1)
        await context.probe([node], (0,), 1)
        return context.result([node], 0)

    class Recording(type(toy_backend())):
        async def extend(self, node, params, *rest):
            drawn.append(params.structured_outputs)
            async with aclosing(super().extend(node, params.with_(structured_outputs=None), *rest)) as nodes:
                async for each in nodes:
                    yield each

    backend = toy_backend()
    backend.__class__ = Recording
    run(Written(body=body, sampling=SamplingParams(max_tokens=None, structured_outputs=form)), backend)
    assert drawn == [form, form, None, None]

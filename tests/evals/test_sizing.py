"""A size is the largest whose tokens stay within the budget, measured on problems that are not evaluated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ramify.errors import ConfigError
from ramify.evals.jsonl import read_journal
from ramify.evals.report import line_of
from ramify.evals.runner import Evaluation, evaluate, method_of, name_of
from ramify.evals.sizing import LADDER, PATIENCE, OpenSize, fit, opened, size_field, try_sizes
from ramify.scoring.problem import Problem
from ramify.strategies import Method, Strategy, parse_strategy
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend

PILOTS = [Problem(f"pilot/{i}", f"pilot {i}", "a", "toy") for i in range(4)]


@dataclass(frozen=True)
class Wide(Method):
    """A method whose size has another name, and works for multiples of three only."""

    size: ClassVar[str] = "paths"
    name = "wide"
    paths: int = 3

    def __post_init__(self) -> None:
        if self.paths % 3:
            raise ConfigError("a multiple of 3 is wanted")


def open_size(spec: str) -> OpenSize:
    made = opened(parse_strategy(spec), spec)
    assert isinstance(made, OpenSize)
    return made


class Never(OpenSize):
    """A strategy that no size suits."""

    def __init__(self) -> None:
        made = open_size("best-of-n")
        super().__init__(made.strategy, made.field)

    def at(self, size: int) -> Strategy | None:
        return None


async def tried(method: OpenSize, limit: int, cost: Any) -> list[tuple[int, float]]:
    async def mean_tokens(strategy: Strategy) -> float | None:
        return cost(getattr(strategy, method.field))  # type: ignore[no-any-return]

    return await try_sizes(method, limit, mean_tokens)


def test_a_strategy_is_open_where_it_has_a_size_that_its_spec_does_not_fix() -> None:
    assert open_size("best-of-n:agg=min").name == "best-of-n:agg=min"
    fixed = opened(parse_strategy("best-of-n:n=16"), "best-of-n:n=16")
    assert not isinstance(fixed, OpenSize)
    assert not isinstance(opened(parse_strategy("sample"), "sample"), OpenSize)
    assert size_field(Wide()) == "paths"  # type: ignore[arg-type]
    assert open_size("mcts").field == "simulations"
    assert line_of(name_of(parse_strategy("mcts:simulations=8,width=3"))) == "mcts:width=3"


async def test_the_largest_size_within_the_budget_is_chosen() -> None:
    method = open_size("best-of-n")
    found = await tried(method, 400, lambda n: 50.0 * n)
    assert found == [(1, 50), (2, 100), (3, 150), (4, 200), (6, 300), (8, 400), (12, 600)]
    assert (fit(method, "400", 400, found).size, fit(method, "399", 399, found).size) == (8, 6)
    assert fit(method, "100", 100, found).within
    small = fit(method, "40", 40, found)
    assert (small.size, small.tokens, small.within) == (1, 50, False)


async def test_sizes_that_the_other_options_do_not_allow_are_passed_over() -> None:
    assert [size for size, _ in await tried(open_size("beam:m=4"), 100, lambda n: 5.0 * n)] == [4, 8, 12, 16, 24]
    wide = OpenSize(Wide(), "paths")
    assert [size for size, _ in await tried(wide, 10, lambda n: 1.0 * n)] == [3, 6, 12]
    with pytest.raises(ConfigError, match=r"no size of 1 to 1024: give it one \(n=\.\.\.\)"):
        await tried(Never(), 10, lambda n: 1.0)


async def test_a_method_whose_stop_rule_has_the_say_is_not_enlarged_for_ever() -> None:
    found = await tried(open_size("best-of-n"), 10_000, lambda n: min(n, 12))
    assert [size for size, _ in found] == [*LADDER[:7], *LADDER[7 : 7 + PATIENCE]]
    assert (await tried(open_size("best-of-n"), 10**9, lambda n: 1.0 * n))[-1][0] == LADDER[-1]


async def test_a_size_that_fails_ends_the_search_at_those_before() -> None:
    assert await tried(open_size("best-of-n"), 100, lambda n: None if n > 2 else 1.0 * n) == [(1, 1), (2, 2)]


async def run(path: Path, specs: list[str], **options: Any) -> Evaluation:
    strategies = [opened(parse_strategy(spec), spec) for spec in specs]
    return await evaluate(
        strategies, ToyTask(), PROBLEMS, options.pop("backend", None) or make_backend(),
        path=path, model="toy", pilots=PILOTS, **options,
    )  # fmt: skip


async def test_each_budget_gets_its_size_and_caps_every_problem(tmp_path: Path) -> None:
    specs = ["sample", "self-consistency", "best-of-n:model=toy-prm"]
    found = await run(tmp_path / "run.jsonl", specs, budgets=["10", "40", "100"])
    assert [row.method for row in found.rows] == [s for s in specs for _ in range(3)]
    assert [row.strategy for row in found.rows][:3] == ["sample"] * 3
    sizes = [fitted.size for fitted in found.fits if fitted.method == "self-consistency"]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    for run_ in found.runs:
        assert all(record["ledger"]["total_tokens"] <= int(run_.budget) for record in run_.records)
    for fitted in found.fits:
        [row] = [row for row in found.rows if (row.method, row.budget) == (fitted.method, fitted.budget)]
        assert f"n={fitted.size}" in row.strategy
        assert (fitted.tokens <= int(fitted.budget)) == fitted.within
        if fitted.within:
            assert row.tokens > int(fitted.budget) / 3  # the budget is used
    assert {record["problem"] for record in found.records} == {problem.id for problem in PROBLEMS}


async def test_a_fit_depends_on_no_other_budget_and_is_found_again_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first = await run(path, ["self-consistency"], budgets=["40"])
    backend = make_backend()
    assert await run(path, ["self-consistency"], budgets=["40"], backend=backend) == first
    assert backend.usage.calls == 0
    both = await run(tmp_path / "both.jsonl", ["self-consistency"], budgets=["100", "40"])
    assert [fitted for fitted in both.fits if fitted.budget == "40"] == first.fits
    assert [row.strategy for row in both.rows if row.budget == "40"] == [row.strategy for row in first.rows]
    pilots = [record for record in read_journal(path)[1] if record["problem"].startswith("pilot")]
    assert {record["budget"] for record in pilots} == {""}


async def test_without_a_budget_in_tokens_an_open_strategy_has_its_default_size(tmp_path: Path) -> None:
    found = await run(tmp_path / "run.jsonl", ["self-consistency"], budgets=["", "60s"])
    assert [row.strategy for row in found.rows] == ["self-consistency:n=16"] * 2
    assert [row.method for row in found.rows] == ["self-consistency"] * 2
    assert found.fits == []
    assert method_of(open_size("self-consistency")) == "self-consistency"


async def test_a_fixed_size_runs_as_it_stands_beside_the_fitted_one(tmp_path: Path) -> None:
    found = await run(tmp_path / "run.jsonl", ["self-consistency:n=2", "self-consistency"], budgets=["40"])
    fixed, fitted = found.rows
    assert (fixed.method, fixed.strategy) == ("self-consistency:n=2", "self-consistency:n=2")
    assert fitted.tokens > fixed.tokens


async def test_a_method_that_fails_on_every_pilot_has_failures_and_no_row(tmp_path: Path) -> None:
    backend = make_backend()

    async def root(*arguments: Any, **options: Any) -> Any:
        raise ConfigError("unreadable prompt")

    backend.root = root  # type: ignore[method-assign]
    found = await run(tmp_path / "run.jsonl", ["self-consistency"], budgets=["40"], backend=backend)
    assert found.rows == []
    assert {failure.problem for failure in found.failures} == {problem.id for problem in PILOTS}

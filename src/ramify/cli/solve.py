"""`ramify solve`: answer a problem by an inference-time method, and show the search and what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli import common

if TYPE_CHECKING:
    from ramify.backends.local import LocalBackend
    from ramify.backends.openai import OpenAIBackend
    from ramify.scoring.problem import Problem
    from ramify.strategies.kernel.budget import Budget
    from ramify.strategies.kernel.result import Result
    from ramify.strategies.registry import Strategy


def solve(
    problem: Annotated[str | None, typer.Argument(help="The question.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Questions, one a line; - is stdin.")] = None,
    strategy: Annotated[
        str, typer.Option("--strategy", "-s", help="name:key=value,... as `ramify techniques --kind strategy` lists.")
    ] = "best-of-n:n=16",
    budget: common.Budget = "",
    model: common.Model = "nano",
    reward_model: common.RewardModel = "nano-prm",
    other_model: common.OtherModels = None,
    seed: common.Seed = 0,
    trace: Annotated[Path | None, typer.Option(help="Write the search to this JSONL file as it goes.")] = None,
    tree: Annotated[bool, typer.Option(help="Show the search tree.")] = True,
    quantization: common.Quantization = None,
    engine: common.EngineOptions = None,
    base_url: common.BaseUrl = None,
    endpoint: common.EndpointOptions = None,
    prices: common.PriceFile = None,
    json: common.Json = False,
) -> None:
    """Answer a problem by a method; shows the answer, the search tree and the ledger. --json: one object a problem."""
    from ramify.scoring.problem import Problem
    from ramify.strategies import Budget

    questions = common.read_text(problem, file, "a problem")
    method = common.strategy(strategy, reward_model)
    limit = Budget.parse(budget, common.prices_of(prices, model))
    options = {"seed": seed, **common.engine_options(engine, quantization)}
    problems = [Problem(str(number), question) for number, question in enumerate(questions, start=1)]

    def opened() -> LocalBackend | OpenAIBackend:
        return common.open_backend(model, common.models_for(method, others=other_model), options, base_url, endpoint)

    results = asyncio.run(run(problems, method, limit, seed, opened, trace))
    for asked, result in zip(problems, results, strict=True):
        if json:
            common.print_json(result.to_dict())
        else:
            show(str(asked.prompt), result, tree)


async def run(
    problems: list[Problem],
    method: Strategy,
    budget: Budget,
    seed: int,
    opened: Callable[[], LocalBackend | OpenAIBackend],
    trace: Path | None,
) -> list[Result]:
    """Solve all problems in one batch; each writes its events as they come."""
    from ramify.strategies import solve_many
    from ramify.strategies.kernel.trace_file import TraceWriter

    with ExitStack() as open_files:
        writers = {
            problem.id: open_files.enter_context(TraceWriter(trace_path(trace, place, len(problems))))
            for place, problem in enumerate(problems, start=1)
            if trace is not None
        }
        async with opened() as backend:
            with common.progress_bar() as bar:
                task = bar.add_task(method.name, total=len(problems))
                results = await solve_many(
                    method,
                    problems,
                    backend,
                    budget=budget,
                    seed=seed,
                    on_result=lambda problem, result: bar.advance(task),
                    listener=lambda problem: writers[problem.id].write if problem.id in writers else None,
                )
    return [result for result in results if result is not None]


def trace_path(path: Path, place: int, count: int) -> Path:
    """Where the trace of one of several problems goes: the path itself for one, with its number for more."""
    return path if count == 1 else path.with_stem(f"{path.stem}-{place}")


def show(question: str, result: Result, with_tree: bool) -> None:
    """Print a result for a person."""
    from ramify.cli.tree import ledger_table, search_tree
    from ramify.strategies.kernel.result import show_answer

    console = common.output_console()
    if with_tree:
        console.print(search_tree(result.trace.tree(), question))
        console.print()
    console.print(result.text.strip(), markup=False)
    console.print(f"\n[bold]answer[/]  {show_answer(result.answer) or '(none)'}   ({result.stop_reason})\n")
    console.print(ledger_table(result.ledger))

"""`ramify demo`: five methods at several sizes on held-out problems, with a table, a plot and one search tree."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import common
from ramify.cli.evaluate import GREEDY, load_task, report, run

if TYPE_CHECKING:
    from ramify.evals.runner import Evaluation
    from ramify.scoring.problem import Problem
    from ramify.strategies.kernel.result import Result
    from ramify.strategies.registry import Strategy

SHOWN_METHOD = "particle-filter"


def demo(
    problems: Annotated[int, typer.Option("--problems", "-p", help="Held-out problems.")] = 100,
    task: Annotated[str, typer.Option("--task", "-t", help="countdown or word_problems.")] = "countdown",
    sizes: Annotated[str, typer.Option(help="Sizes of each method, with commas.")] = "4,8,16",
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Results, report, plots.")] = Path(
        "demo_output"
    ),
    seed: common.Seed = 0,
    quantization: common.Quantization = None,
    engine: common.EngineOptions = None,
    json: common.Json = False,
) -> None:
    """Compare greedy decoding, self-consistency, best-of-n, beam search and a particle filter at equal compute."""
    # At the bundled models' size threads wait for each other longer than they compute.
    options = {"seed": seed, "num_threads": 1, **common.engine_options(engine, quantization)}
    methods = [common.strategy(spec, "nano-prm") for spec in specs(sizes)]
    chosen, asked = load_task(task, problems, 0, "question", "answer", False)
    journal = output_dir / "results.jsonl"
    journal.unlink(missing_ok=True)  # a demo shows what this installation does now
    found = asyncio.run(run(methods, chosen, asked, journal, "nano", [""], seed, 32, options))
    report(found, f"{task}, {len(asked)} held-out problems, nano", output_dir, json)
    if found.failures:
        common.say(f"{len(found.failures)} problems failed, e.g. {found.failures[0].error}")
        raise typer.Exit(common.ExitCode.FAILED)
    if not json:
        from ramify.evals.runner import name_of

        method = next(method for method in methods if method.name == SHOWN_METHOD)
        problem = telling_problem(found, method, asked)
        show_search(problem, name_of(method), asyncio.run(search(method, problem, seed, options)))


def specs(sizes: str) -> list[str]:
    """The compared methods; a beam keeps a quarter of its paths.

    Raises:
        ConfigError: a size is no multiple of 4.
    """
    from ramify.errors import ConfigError

    found = [GREEDY]
    numbers = [part.strip() for part in sizes.split(",")]
    for number in numbers:
        if not number.isdigit() or int(number) < 4 or int(number) % 4:
            raise ConfigError(f"size {number!r} does not work: give multiples of 4 with commas, e.g. 4,8,16")
    found += [f"self-consistency:n={n}" for n in numbers]
    found += [f"best-of-n:n={n}" for n in numbers]
    found += [f"beam:n={n},m=4" for n in numbers]
    return found + [f"particle-filter:n={n}" for n in numbers]


def telling_problem(found: Evaluation, method: Strategy, problems: Sequence[Problem]) -> Problem:
    """A problem that greedy decoding got wrong and the method right; failing that, one it got right, or the first."""
    from ramify.evals.runner import name_of

    solved = {
        record["problem"] for record in found.records if record["strategy"] == name_of(method) and record["correct"]
    }
    easy = {
        record["problem"] for record in found.records if record["strategy"].startswith("sample:") and record["correct"]
    }
    for wanted in (solved - easy, solved):
        for problem in problems:
            if problem.id in wanted:
                return problem
    return problems[0]


async def search(method: Strategy, problem: Problem, seed: int, options: dict[str, Any]) -> Result:
    """Solve one problem again: one seed, one search."""
    from ramify.backends.local import LocalBackend
    from ramify.strategies import solve

    async with LocalBackend.load("nano", **common.models_for(method), **options) as backend:
        return await solve(method, problem, backend, seed=seed)


def show_search(problem: Problem, method: str, result: Result) -> None:
    """One solved problem with its tree and ledger."""
    from ramify.cli.tree import ledger_table, search_tree
    from ramify.strategies.kernel.result import show_answer

    console = common.output_console()
    console.print(
        f"\n[bold]One problem, solved by {result.strategy}[/] (rewards after each step; * is the chosen path)\n"
    )
    console.print(search_tree(result.trace.tree(), str(problem.prompt)))
    console.print(f"\n[bold]answer[/] {show_answer(result.answer)}, reference {problem.answer}\n")
    console.print(ledger_table(result.ledger))

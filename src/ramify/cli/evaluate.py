"""`ramify eval`: strategies against tasks, or a pool of samples replayed by every selector."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import common
from ramify.errors import ConfigError

if TYPE_CHECKING:
    from ramify.evals.pools import AnswerTask, Pool
    from ramify.evals.replay import Replayed
    from ramify.evals.report import Row
    from ramify.evals.runner import Evaluation
    from ramify.scoring.problem import Problem
    from ramify.strategies.registry import Strategy

GREEDY = "sample:temperature=0"
DEFAULT_STRATEGIES = [GREEDY, "self-consistency:n=16", "best-of-n:n=16"]
DEFAULT_PROBLEMS = 100


def evaluate(
    strategy: Annotated[
        list[str] | None, typer.Option("--strategy", "-s", help="name:key=value,... Repeatable.")
    ] = None,
    task: Annotated[
        str, typer.Option("--task", "-t", help="word_problems, countdown, or a JSONL file.")
    ] = "word_problems",
    problems: Annotated[
        int | None, typer.Option("--problems", "-p", help="How many. Default: 100, or all of a file.")
    ] = None,
    problem_seed: Annotated[
        int, typer.Option(help="Which problems of a generated task; shuffles a file if not 0.")
    ] = 0,
    question: Annotated[str, typer.Option(help="A file's field with the question.")] = "question",
    answer: Annotated[str, typer.Option(help="A file's field with the reference answer.")] = "answer",
    skip_bad: Annotated[bool, typer.Option(help="Leave out bad lines of a file instead of stopping.")] = False,
    budget: Annotated[list[str] | None, typer.Option(help="Cap for each problem, e.g. 2000 or 4k. Repeatable.")] = None,
    samples: Annotated[int | None, typer.Option(help="Draw a pool of this many samples a problem instead.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Replay this pool's file; needs no model.")] = None,
    agg: Annotated[str, typer.Option(help="Step scores to one number: last, min, prod or mean.")] = "last",
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Results, report and plot.")] = Path(
        "runs/eval"
    ),
    model: common.Model = "nano",
    reward_model: common.RewardModel = "nano-prm",
    seed: common.Seed = 0,
    concurrency: Annotated[int, typer.Option(help="Problems at once.")] = 32,
    engine: common.EngineOptions = None,
    json: common.Json = False,
) -> None:
    """Measure strategies on a task: accuracy against total tokens. Runs go on where they stopped.

    With --samples, a pool is drawn and replayed by every selector at every k; --replay does that offline. Exit code 1
    if problems failed.
    """
    if replay is not None:
        from ramify.evals.pools import Pool

        report_pool(Pool.load(replay), agg, seed, replay.parent, json)
        return
    options = {"seed": seed, **common.engine_options(engine)}
    chosen, asked = load_task(task, problems, problem_seed, question, answer, skip_bad)
    if samples is not None:
        if strategy:
            raise ConfigError("--samples draws a pool and takes no --strategy: leave one of them out")
        models = [reward_model] if reward_model else []
        path = output_dir / "pool.jsonl"
        pool = asyncio.run(draw(chosen, asked, path, samples, model, models, seed, concurrency, options))
        report_pool(pool, agg, seed, output_dir, json)
        return
    methods = [common.strategy(spec, reward_model) for spec in strategy or DEFAULT_STRATEGIES]
    found = asyncio.run(
        run(methods, chosen, asked, output_dir / "results.jsonl", model, budget or [""], seed, concurrency, options)
    )
    report(found, f"{chosen.name}, {len(asked)} problems, {model}", output_dir, json)
    if found.failures:
        for failure in found.failures[:5]:
            common.say(f"{failure.strategy} failed on {failure.problem}: {failure.error}")
        common.say(f"{len(found.failures)} problems failed and are in no row; run again to try them again")
        raise typer.Exit(common.ExitCode.FAILED)


def load_task(
    name: str, count: int | None, seed: int, question: str, answer: str, skip_bad: bool
) -> tuple[AnswerTask, list[Problem]]:
    """A task and its problems: a generated task by name, or a JSONL file."""
    from ramify.evals.tasks import get_task, task_names
    from ramify.evals.tasks.jsonl import JsonlTask

    if name in task_names():
        generated = get_task(name)
        return generated, generated.problems(DEFAULT_PROBLEMS if count is None else count, seed)
    if not name.endswith((".jsonl", ".json")) and not Path(name).exists():
        raise ConfigError(f"unknown task {name!r}: choose from {', '.join(task_names())}, or give a JSONL file")
    task = JsonlTask(name, question, answer, skip_bad=skip_bad)
    for bad in task.bad_lines:
        common.say(f"skipped {bad}")
    return task, task.problems(count, seed)


async def run(
    methods: Sequence[Strategy], task: AnswerTask, problems: Sequence[Problem], path: Path, model: str,
    budgets: Sequence[str], seed: int, concurrency: int, options: dict[str, Any],
) -> Evaluation:  # fmt: skip
    """Evaluate strategies on the local engine."""
    from ramify.backends.local import LocalBackend
    from ramify.evals.runner import evaluate as evaluate_strategies

    async with LocalBackend.load(model, reward_models=common.reward_models(*methods), **options) as backend:
        with common.progress_bar() as bar:
            line = bar.add_task("evaluating", total=None)
            return await evaluate_strategies(
                methods, task, problems, backend,
                path=path, model=model, budgets=budgets, seed=seed, concurrency=concurrency,
                progress=lambda spec, done, total: bar.update(line, description=spec, completed=done, total=total),
            )  # fmt: skip


async def draw(
    task: AnswerTask, problems: Sequence[Problem], path: Path, n: int, model: str, reward_models: Sequence[str],
    seed: int, concurrency: int, options: dict[str, Any],
) -> Pool:  # fmt: skip
    """Draw a pool on the local engine."""
    from ramify.backends.local import LocalBackend
    from ramify.evals.pools import draw_pool
    from ramify.strategies import DEFAULT_SAMPLING

    async with LocalBackend.load(model, reward_models=reward_models, **options) as backend:
        with common.progress_bar() as bar:
            line = bar.add_task("drawing", total=len(problems))
            return await draw_pool(
                path, task, problems, backend,
                model=model, n=n, params=DEFAULT_SAMPLING, seed=seed, reward_models=reward_models,
                concurrency=concurrency, progress=lambda done, total: bar.update(line, completed=done),
            )  # fmt: skip


def report(found: Evaluation, title: str, folder: Path, json: bool) -> None:
    """Print rows, and write them with their plot into a folder."""
    from ramify.evals.report import table

    if json:
        common.print_json(save(found.rows, title, folder))
    else:
        save(found.rows, title, folder)
        common.output_console().print(table(found.rows, title))
        common.say(f"results, report and plots are in {folder}")


def report_pool(pool: Pool, agg: str, seed: int, folder: Path, json: bool) -> None:
    """The same for a pool: every selector at k = 1, 2, 4, ... up to the pool's size."""
    from typing import cast

    from ramify.evals.replay import replay
    from ramify.evals.report import replay_table
    from ramify.scoring.prm import Aggregation

    if agg not in ("last", "min", "prod", "mean"):
        raise ConfigError(f"agg={agg!r} does not work: choose last, min, prod or mean")
    if pool.n == 0:
        raise ConfigError("the pool holds no sample")
    ks = sorted({2**i for i in range(pool.n.bit_length())} | {pool.n})
    rows = replay(pool, ks, agg=cast(Aggregation, agg), seed=seed)
    title = f"{pool.header['task']}, {len(pool.samples)} problems, {pool.header['model']}, {pool.n} samples each"
    if json:
        common.print_json(save(rows, title, folder))
    else:
        save(rows, title, folder)
        common.output_console().print(replay_table(rows, title))
        common.say(f"pool, report and plots are in {folder}")


def save(rows: Sequence[Row] | Sequence[Replayed], title: str, folder: Path) -> dict[str, Any]:
    """Write report.json, plot.png and plot.svg; returns what the report says."""
    import json

    from ramify.evals.plots import plot, points
    from ramify.evals.report import to_json

    found = {"title": title, "rows": to_json(rows)}
    common.write_file(folder / "report.json", (json.dumps(found, indent=1) + "\n").encode())
    plot(points(rows), [folder / "plot.png", folder / "plot.svg"], title)
    return found

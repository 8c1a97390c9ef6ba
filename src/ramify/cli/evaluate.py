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
    from ramify.evals.comparison import Comparison
    from ramify.evals.plots import Point
    from ramify.evals.pools import AnswerTask, Pool
    from ramify.evals.runner import Evaluation
    from ramify.evals.sizing import OpenSize
    from ramify.scoring.problem import Problem
    from ramify.strategies.registry import Strategy

GREEDY = "sample:temperature=0"
DEFAULT_STRATEGIES = [GREEDY, "self-consistency:n=16", "best-of-n:n=16"]
DEFAULT_METHODS = [GREEDY, "self-consistency", "best-of-n"]
"""With budgets, which give them their sizes."""
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
    budgets: Annotated[str | None, typer.Option(help="Caps for each problem, with commas: 1k,4k,16k.")] = None,
    budget: Annotated[list[str] | None, typer.Option(help="One cap, e.g. 2000 or 4k,30s. Repeatable.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Method that the others are compared with. Default: best-of-n, else the first.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Draw a pool of this many samples a problem instead.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Replay this pool's file; needs no model.")] = None,
    agg: Annotated[str, typer.Option(help="Step scores to one number: last, min, prod or mean.")] = "last",
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Results, report and plot.")] = Path(
        "runs/eval"
    ),
    model: common.Model = "nano",
    reward_model: common.RewardModel = "nano-prm",
    other_model: common.OtherModels = None,
    seed: common.Seed = 0,
    concurrency: Annotated[int, typer.Option(help="Problems at once.")] = 32,
    quantization: common.Quantization = None,
    engine: common.EngineOptions = None,
    base_url: common.BaseUrl = None,
    endpoint: common.EndpointOptions = None,
    json: common.Json = False,
) -> None:
    """Measure strategies on a task: accuracy against total tokens. Runs go on where they stopped.

    Under budgets, strategies are compared at equal tokens: one whose spec leaves its size open (best-of-n) gets the
    largest that stays within the budget on a few other problems; one that fixes it (best-of-n:n=16) runs as it stands.
    With --samples, a pool is drawn and replayed by every selector at every k; --replay does that offline; strategies
    that choose among finished answers (-s rpc -s mbr) are replayed beside them. Exit code 1 if problems failed.
    """
    if replay is not None:
        from ramify.evals.pools import Pool

        report_pool(Pool.load(replay), agg, seed, replay.parent, json, strategy or ())
        return
    options = {"seed": seed, **common.engine_options(engine, quantization)}
    chosen, asked = load_task(task, problems, problem_seed, question, answer, skip_bad)
    if samples is not None:
        models = [reward_model] if reward_model else []
        path = output_dir / "pool.jsonl"
        pool = asyncio.run(draw(chosen, asked, path, samples, model, models, seed, concurrency, options))
        report_pool(pool, agg, seed, output_dir, json, strategy or ())
        return
    caps = [*(part for part in (budgets or "").split(",") if part.strip()), *(budget or [])]
    specs = strategy or (DEFAULT_METHODS if caps else DEFAULT_STRATEGIES)
    methods = (
        [sized(spec, reward_model) for spec in specs] if caps else [common.strategy(s, reward_model) for s in specs]
    )
    pilots, told = pilot_problems(chosen, asked, problem_seed)
    found = asyncio.run(
        run(
            methods,
            chosen,
            asked,
            output_dir / "results.jsonl",
            model,
            caps or [""],
            seed,
            concurrency,
            options,
            pilots,
            other_model,
            base_url,
            endpoint,
        )
    )
    settings = {"task": chosen.name, "model": model, "seed": seed, "problems": len(asked), "fitted_on": told}
    title = f"{chosen.name}, {len(asked)} problems, {model}"
    report(found, title, output_dir, json, baseline=baseline, settings=settings)
    if found.failures:
        for failure in found.failures[:5]:
            common.say(f"{failure.strategy} failed on {failure.problem}: {failure.error}")
        common.say(f"{len(found.failures)} problems failed and are in no row; run again to try them again")
        raise typer.Exit(common.ExitCode.FAILED)


def sized(spec: str, reward_model: str) -> Strategy | OpenSize:
    """The strategy of a spec, open where the spec leaves its size open."""
    from ramify.evals.sizing import opened

    return opened(common.strategy(spec, reward_model), spec)


def pilot_problems(task: AnswerTask, asked: Sequence[Problem], seed: int) -> tuple[list[Problem], str]:
    """Problems that sizes are fitted on, and what they are: of a generated task others, of a file its first ones."""
    from ramify.evals.sizing import PILOTS
    from ramify.evals.tasks import Task

    if isinstance(task, Task):
        return task.problems(PILOTS, seed, "validation"), f"{PILOTS} problems of the validation split"
    few = list(asked[:PILOTS])
    return few, f"the token counts of the first {len(few)} of the evaluated problems"


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
    methods: Sequence[Strategy | OpenSize], task: AnswerTask, problems: Sequence[Problem], path: Path, model: str,
    budgets: Sequence[str], seed: int, concurrency: int, options: dict[str, Any], pilots: Sequence[Problem] = (),
    other_models: Sequence[str] | None = None, base_url: str | None = None, endpoint: Sequence[str] | None = None,
) -> Evaluation:  # fmt: skip
    """Evaluate strategies on the local engine, or on a server."""
    from ramify.evals.runner import evaluate as evaluate_strategies
    from ramify.evals.sizing import OpenSize

    made = [method.strategy if isinstance(method, OpenSize) else method for method in methods]
    needed = common.models_for(*made, others=other_models)
    async with common.open_backend(model, needed, options, base_url, endpoint) as backend:
        with common.progress_bar() as bar:
            line = bar.add_task("evaluating", total=None)
            return await evaluate_strategies(
                methods, task, problems, backend,
                path=path, model=model, budgets=budgets, seed=seed, concurrency=concurrency, pilots=pilots,
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


def report(
    found: Evaluation, title: str, folder: Path, json: bool, *,
    baseline: str | None = None, settings: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Print what was found, and write it with its plot into a folder.

    `report.json` and the plots are a function of task, model, seed and specs; `timings.json` holds what is not.
    """
    from ramify.evals.comparison import compare, comparison_json
    from ramify.evals.plots import points
    from ramify.evals.report import timings

    compared = compare(found, baseline, (settings or {}).get("seed", 0))
    data = {"title": title, **(settings or {}), **comparison_json(compared)}
    save_json(data, folder / "report.json")
    save_json({"title": title, "rows": timings(compared.rows)}, folder / "timings.json")
    draw_plot(points(compared.rows), title, folder, front=any(row.budget for row in compared.rows))
    if json:
        common.print_json(data)
    else:
        show(compared, title)
        common.say(f"results, report and plots are in {folder}")


def show(compared: Comparison, title: str) -> None:
    """The tables of a comparison, and what has to be known about it."""
    from ramify.evals.comparison import comparison_table
    from ramify.evals.report import table, token_table

    console = common.output_console()
    if compared.baseline is None:
        console.print(table(compared.rows, title))
    else:
        console.print(comparison_table(compared, title))
        console.print(token_table(compared.rows))
    for note in dict.fromkeys(f"{row.method}: {note}" for row in compared.rows for note in row.notes):
        common.say(note)
    for fitted in compared.fits:
        if not fitted.within:
            common.say(
                f"{fitted.method}: its smallest size takes {fitted.tokens:,.0f} tokens, which a budget of "
                f"{fitted.budget} cuts short"
            )


def report_pool(pool: Pool, agg: str, seed: int, folder: Path, json: bool, specs: Sequence[str] = ()) -> None:
    """The same for a pool: every selector, and strategies by spec, at k = 1, 2, 4, ... up to the pool's size."""
    from typing import cast

    from ramify.evals.plots import points
    from ramify.evals.replay import replay
    from ramify.evals.report import replay_table, to_json
    from ramify.scoring.prm import Aggregation

    if agg not in ("last", "min", "prod", "mean"):
        raise ConfigError(f"agg={agg!r} does not work: choose last, min, prod or mean")
    if pool.n == 0:
        raise ConfigError("the pool holds no sample")
    ks = sorted({2**i for i in range(pool.n.bit_length())} | {pool.n})
    rows = replay(pool, ks, agg=cast(Aggregation, agg), seed=seed, specs=specs)
    title = f"{pool.header['task']}, {len(pool.samples)} problems, {pool.header['model']}, {pool.n} samples each"
    data = {"title": title, "rows": to_json(rows)}
    save_json(data, folder / "report.json")
    draw_plot(points(rows), title, folder)
    if json:
        common.print_json(data)
    else:
        common.output_console().print(replay_table(rows, title))
        common.say(f"pool, report and plots are in {folder}")


def save_json(data: Any, path: Path) -> None:
    """Write JSON whole or not at all: a file that is there stays until the new one is complete."""
    import json

    fresh = path.with_name(f".{path.name}.new")
    common.write_file(fresh, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())
    fresh.replace(path)


def draw_plot(drawn: Sequence[Point], title: str, folder: Path, front: bool = False) -> None:
    """Draw plot.png and plot.svg."""
    from ramify.evals.plots import plot

    plot(drawn, [folder / "plot.png", folder / "plot.svg"], title, front)

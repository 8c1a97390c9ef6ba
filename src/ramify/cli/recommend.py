"""`ramify recommend`: which method at which size for a budget, or how to share samples among temperatures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import common
from ramify.errors import ConfigError

if TYPE_CHECKING:
    from ramify.evals.advice import Parts
    from ramify.evals.pools import AnswerTask, Pool
    from ramify.planning.recommend import Advice, Measured
    from ramify.scoring.problem import Problem

METHODS = ["self-consistency", "best-of-n", "best-of-n:select=weighted", "best-of-n:scorer=logprob"]
TEMPERATURES = "0.5,0.8,1.1,1.4"
DEFAULT_TEMPERATURE = 0.8
NUM_BUDGETS = 5
"""Budgets where none is named: evenly over the logarithm, from the cheapest size of all methods to the dearest."""


def recommend(
    task: Annotated[str, typer.Argument(help="word_problems, countdown, or a JSONL file.")],
    strategy: Annotated[
        list[str] | None,
        typer.Option("--strategy", "-s", help="Methods: replayed from a pool where that can be, else run. Repeatable."),
    ] = None,
    budgets: Annotated[str | None, typer.Option(help="Mean tokens a problem, with commas: 100,400,1k.")] = None,
    osca: Annotated[
        bool, typer.Option("--osca", help="Instead: counts of samples over temperatures, where answers are checked.")
    ] = False,
    temperatures: Annotated[str, typer.Option(help="With --osca.")] = TEMPERATURES,
    problems: Annotated[int, typer.Option("--problems", "-p", help="To fit on; a generated task.")] = 60,
    test_problems: Annotated[int, typer.Option(help="To judge on; a generated task.")] = 100,
    samples: Annotated[int, typer.Option(help="In each problem's pool.")] = 32,
    problem_seed: Annotated[int, typer.Option(help="Which problems of a generated task; shuffles a file.")] = 0,
    question: Annotated[str, typer.Option(help="A file's field with the question.")] = "question",
    answer: Annotated[str, typer.Option(help="A file's field with the reference answer.")] = "answer",
    skip_bad: Annotated[bool, typer.Option(help="Leave out bad lines of a file instead of stopping.")] = False,
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Pools, journals and report.")] = Path(
        "runs/recommend"
    ),
    model: common.Model = "nano",
    reward_model: common.RewardModel = "nano-prm",
    seed: common.Seed = 0,
    quantization: common.Quantization = None,
    engine: common.EngineOptions = None,
    json: common.Json = False,
) -> None:
    """Say which method at which size pays most for a budget, with what accuracy to expect.

    Draws one pool of training problems, replays every method that chooses among samples at every size, runs the others,
    and fits a curve to each. What is advised is then judged on problems that nothing was fitted to. Goes on where it
    stopped. With --osca a pool is drawn at every temperature, and a budget's samples are shared among them.
    """
    options = {"seed": seed, **common.engine_options(engine, quantization)}
    caps = _numbers(budgets, "budgets", _tokens) if budgets else None
    chosen, parts = load_parts(task, problems, test_problems, problem_seed, question, answer, skip_bad)
    if osca:
        if strategy:
            raise ConfigError("--osca shares samples among temperatures and takes no --strategy: leave one of them out")
        warmths = _numbers(temperatures, "temperatures", float)
        data = asyncio.run(_osca(chosen, parts, warmths, caps, samples, output_dir, model, seed, options))
    else:
        specs = strategy or METHODS
        rewards = [reward_model] if reward_model else []
        work = _methods(chosen, parts, specs, caps, samples, output_dir, model, rewards, seed, options)
        data = asyncio.run(work)
    from ramify.cli.evaluate import save_json

    save_json(data, output_dir / ("osca.json" if osca else "recommend.json"))
    if json:
        common.print_json(data)
    else:
        show_osca(data) if osca else show_methods(data)
        common.say(f"pools and report are in {output_dir}")


def load_parts(
    task: str, train: int, test: int, seed: int, question: str, answer: str, skip_bad: bool
) -> tuple[AnswerTask, Parts]:
    """A task and its three parts."""
    from ramify.cli.evaluate import load_task
    from ramify.evals.advice import parts_of

    if train < 2 or test < 2:
        raise ConfigError(
            f"{train} problems to fit on and {test} to judge on do not work: at least 2 of each are needed"
        )
    chosen, every = load_task(task, None, seed, question, answer, skip_bad)
    return chosen, parts_of(chosen, every, train, test, seed)


async def _methods(
    task: AnswerTask, parts: Parts, specs: Sequence[str], budgets: Sequence[float] | None, samples: int, folder: Path,
    model: str, rewards: Sequence[str], seed: int, options: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Measure on the training problems, advise, and judge on the test problems."""
    from ramify.backends.local import LocalBackend
    from ramify.evals.advice import groups_of, measure_live, measure_pool, replayable
    from ramify.planning.recommend import recommend as advise

    strategies = {spec: common.strategy(spec, rewards[0] if rewards else "") for spec in specs}
    named = common.models_for(*strategies.values())
    needed = sorted({*rewards, *named["reward_models"]})
    async with LocalBackend.load(model, reward_models=needed, models=named["models"], **options) as backend:

        async def draw(problems: Sequence[Problem], part: str) -> Pool:
            return await _pool(task, problems, folder / f"{part}.jsonl", samples, model, backend, needed, seed)

        pool = await draw(parts.train, "train")
        live = {spec for spec, made in strategies.items() if not replayable(pool, made)}
        measured = [measure_pool(pool, made, spec, seed) for spec, made in strategies.items() if spec not in live]
        replayed = max((float(one.tokens.mean(axis=0).max()) for one in measured), default=0.0)
        most = max(budgets) if budgets else replayed or 1000.0
        for spec in (spec for spec in specs if spec in live):
            common.say(f"running {spec}")
            measured.append(
                await measure_live(
                    strategies[spec], spec, task, parts.train, backend,
                    path=folder / "train-runs.jsonl", model=model, most=most, seed=seed,
                )
            )  # fmt: skip
        caps = list(budgets) if budgets else _spread(measured)
        advice = advise(measured, caps, groups=groups_of(parts.train), seed=seed)
        if not advice:
            raise ConfigError(f"no method fits into a budget of {max(caps):g} tokens: the cheapest takes more")
        test_pool = await draw(parts.test, "test") if any(one.method not in live for one in advice) else None
        judged = [
            await _judged(one, live, strategies, task, parts.test, test_pool, backend, folder, model, rewards, seed)
            for one in advice
        ]
    return {
        "task": task.name, "model": model, "seed": seed, "samples": samples,
        "problems": {"train": len(parts.train), "test": len(parts.test)},
        "methods": [_curve_json(one, one.method in live) for one in measured],
        "advice": judged,
    }  # fmt: skip


async def _judged(
    advice: Advice, live: set[str], strategies: dict[str, Any], task: AnswerTask, problems: Sequence[Problem],
    pool: Pool | None, backend: Any, folder: Path, model: str, rewards: Sequence[str], seed: int,
) -> dict[str, Any]:  # fmt: skip
    """What was advised, with what it gives on the test problems."""
    from dataclasses import asdict

    from ramify.evals.advice import groups_of, measure_pool, run_fixed
    from ramify.evals.estimators import bootstrap_interval
    from ramify.evals.report import without_nan
    from ramify.planning.recommend import judge

    if advice.method in live:
        made = common.strategy(advice.spec, rewards[0] if rewards else "")
        accuracy, tokens = await run_fixed(
            made, task, problems, backend, path=folder / "test-runs.jsonl", model=model, seed=seed
        )
    else:
        assert pool is not None
        accuracy, tokens = judge(advice, [measure_pool(pool, strategies[advice.method], advice.method, seed)])
    interval = bootstrap_interval(accuracy, seed=seed, groups=groups_of(problems))
    found: dict[str, Any] = without_nan({
        **asdict(advice), "measured": asdict(interval), "measured_tokens": float(tokens.mean()),
    })  # fmt: skip
    return found


async def _osca(
    task: AnswerTask, parts: Parts, temperatures: Sequence[float], budgets: Sequence[float] | None, samples: int,
    folder: Path, model: str, seed: int, options: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Fit counts on the training pools, choose by the validation pools, judge on the test pools."""
    from ramify.backends.local import LocalBackend
    from ramify.evals.advice import mean_tokens
    from ramify.evals.allocation import compare_osca

    problems = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    pools: dict[str, list[Pool]] = {}
    async with LocalBackend.load(model, **options) as backend:
        for part, asked in problems.items():
            pools[part] = [
                await _pool(task, asked, folder / f"{part}-{t:g}.jsonl", samples, model, backend, (), seed, t)
                for t in temperatures
            ]
    costs = [mean_tokens(pool) for pool in pools["train"]]
    caps = list(budgets) if budgets else [min(costs) * count for count in (2, 4, 8, 16) if count <= samples]
    rows = compare_osca(pools["train"], pools["validation"], pools["test"], caps, parts.test, seed)
    return {
        "task": task.name, "model": model, "seed": seed, "samples": samples, "temperatures": list(temperatures),
        "problems": {part: len(asked) for part, asked in problems.items()}, "costs": costs,
        "allocations": rows,
    }  # fmt: skip


async def _pool(
    task: AnswerTask, problems: Sequence[Problem], path: Path, n: int, model: str, backend: Any,
    reward_models: Sequence[str], seed: int, temperature: float = DEFAULT_TEMPERATURE,
) -> Pool:  # fmt: skip
    from ramify.evals.pools import draw_pool
    from ramify.strategies import DEFAULT_SAMPLING

    with common.progress_bar() as bar:
        line = bar.add_task(f"drawing {path.stem}", total=len(problems))
        return await draw_pool(
            path, task, problems, backend, model=model, n=n, params=DEFAULT_SAMPLING.with_(temperature=temperature),
            seed=seed, reward_models=reward_models, progress=lambda done, total: bar.update(line, completed=done),
        )  # fmt: skip


def _curve_json(measured: Measured, live: bool) -> dict[str, Any]:
    """A method's points and its curve."""
    from dataclasses import asdict

    from ramify.evals.report import without_nan

    curve = measured.curve
    points = zip(measured.specs, measured.tokens.mean(axis=0), measured.accuracy.mean(axis=0), strict=True)
    found: dict[str, Any] = without_nan({
        "method": measured.method, "live": live, "form": curve.name, "parameters": asdict(curve.form),
        "left_out_error": curve.left_out,
        "points": [{"spec": spec, "tokens": float(t), "accuracy": float(a), "fitted": curve.at(float(t))}
                   for spec, t, a in points],
    })  # fmt: skip
    return found


def show_methods(data: dict[str, Any]) -> None:
    """The advice as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"{data['task']}, {data['model']}, fitted on {data['problems']['train']} problems"
    caption = (
        f"expected: from the curve, with its standard error; measured: on {data['problems']['test']} other problems"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, caption=caption)
    table.add_column("budget", justify="right")
    table.add_column("use", overflow="fold", min_width=22)
    for name in ("tokens", "expected", "measured (95%)", "sure"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in data["advice"]:
        error = "" if one["error"] is None else f" ± {100 * one['error']:.1f}"
        cells = [f"{one['budget']:,.0f}", one["spec"], f"{one['tokens']:,.0f}", f"{one['expected']:.1%}{error}"]
        table.add_row(*cells, _share(one["measured"]), "-" if one["chosen"] is None else f"{one['chosen']:.0%}")
    common.output_console().print(table)


def show_osca(data: dict[str, Any]) -> None:
    """The allocations as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    temperatures = ", ".join(f"{t:g}" for t in data["temperatures"])
    title = f"{data['task']}, {data['model']}: samples at temperatures {temperatures}"
    caption = f"share of {data['problems']['test']} other problems that a sample solves (95%); difference in points"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, caption=caption)
    for name in ("budget", "samples", "solved", "best single", "solved", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in data["allocations"]:
        table.add_row(
            f"{row['budget']:,.0f}", " ".join(map(str, row["counts"])), _share(row["solved"]),
            " ".join(map(str, row["single"])), _share(row["single_solved"]), _points(row["difference"]),
        )  # fmt: skip
    common.output_console().print(table)


def _share(interval: dict[str, Any]) -> str:
    from ramify.evals.estimators import Interval
    from ramify.evals.report import accuracy_text

    return accuracy_text(Interval(*_bounds(interval)))


def _points(interval: dict[str, Any]) -> str:
    from ramify.evals.estimators import Interval
    from ramify.evals.report import difference_text

    return difference_text(Interval(*_bounds(interval)))


def _bounds(interval: dict[str, Any]) -> list[float]:
    return [float("nan") if interval[name] is None else float(interval[name]) for name in ("mean", "low", "high")]


def _spread(measured: Sequence[Measured]) -> list[float]:
    """Budgets from the cheapest size to the dearest that was tried."""
    import numpy as np

    tokens = np.concatenate([one.tokens.mean(axis=0) for one in measured])
    return [float(np.ceil(each)) for each in np.geomspace(tokens.min(), tokens.max(), NUM_BUDGETS)]


def _tokens(text: str) -> float:
    from ramify.strategies import Budget

    tokens = Budget.parse(text).tokens
    if tokens is None:
        raise ValueError(text)
    return float(tokens)


def _numbers(text: str, name: str, read: Any) -> list[float]:
    """Numbers above 0 of an option, with commas."""
    try:
        found = [float(read(part.strip())) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or min(found) <= 0 or len(set(found)) < len(found):
        raise ConfigError(f"--{name} {text!r} does not work: give different numbers above 0 with commas")
    return found

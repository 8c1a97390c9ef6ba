"""Every strategy at equal tokens on the bundled models, beside greedy decoding, self-consistency and best-of-n.

    python -m benchmarks.methods [--only NAME,...] [--problems 60] [--task countdown]

Writes a table and a plot for each method, and an overview of all, into `docs/techniques/curves/`, from where the pages
of the methods include them. Every result goes into one journal as it comes: a run that was stopped goes on with the
same command, the baselines are drawn once, and what is there already costs nothing. The files hold no times: the same
settings give the same files.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ramify import registry
from ramify.backends.local import LocalBackend
from ramify.cli.evaluate import GREEDY, load_task, pilot_problems, sized
from ramify.evals.comparison import difference
from ramify.evals.estimators import Interval
from ramify.evals.plots import plot, plot_ranking, points
from ramify.evals.pools import AnswerTask
from ramify.evals.report import Row, accuracy_text, difference_text, label, number
from ramify.evals.runner import Evaluation, Run, evaluate
from ramify.evals.sizing import PILOTS
from ramify.scoring.problem import Problem
from ramify.strategies import Budget

MODEL, REWARD_MODEL, DRAFTER = "nano", "nano-prm", "nano-drafter"
BASELINES = (GREEDY, "self-consistency", "best-of-n")
COMPARED = ("best-of-n", "self-consistency")
"""The baselines that every method's differences are taken from."""

NANO_THINKING = "answer_tokens=16,start_think=,end_think=\\n####,answer_prefix=\\x20"
"""The bundled model's answers begin with their steps; `####` ends them and begins the answer."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "sample": ("sample", GREEDY),
    "best-of-n": ("best-of-n", "best-of-n:select=weighted"),
    "beam": ("beam", "beam:m=2"),
    "dvts": ("dvts", "dvts:m=2"),
    "weighted-vote": ("weighted-vote", "weighted-vote:scorer=prm"),
    "self-calibration": ("self-calibration", "self-calibration:scorer=prm"),
    "token-mcts": ("token-mcts:simulations=4,k=3,value=step",),
    "stochastic-beam": ("stochastic-beam:scorer=prm",),
    "certaindex": ("certaindex:until=line",),
    "trimr": ("trimr:until=line",),
    "fractured": ("fractured:until=line,depths=2,select=score", "fractured:until=line"),
    "deepconf": ("deepconf:warmup=8,window=8,until=8,batch=8",),
    "speculative-rejection": ("speculative-rejection:memory=128", "speculative-rejection:memory=320"),
    "particle-filter": ("particle-filter", "particle-filter:potential=incremental"),
    "budget-forcing": tuple(f"budget-forcing:max_think={most},{NANO_THINKING}" for most in (8, 16, 32)),
    "thinking-mode": tuple(f"thinking-mode:effort=low,low={most},{NANO_THINKING}" for most in (8, 16, 32)),
    "self-refine": ("self-refine:scorer=prm",),
    "mind-evolution": ("mind-evolution:generations=2,islands=2,conversations=2,turns=1",),
    "archon": ("archon", "archon:layers=generator:8/fuser"),
    "moa": ("moa:layers=2,samples=4",),
    "anytime": (f"anytime:stride=8,{NANO_THINKING}",),
}
"""Specs of a method where its name alone does not do; each is a line of its own."""

SKIPPED: dict[str, str] = {
    "lambada": "it proves statements from given facts and rules, which the bundled models cannot read",
    "smc-steering": "it steers under a constraint, and the task has none; its page has a measured example",
}
"""Methods that cannot run on the bundled models, and why."""

LONGEST_NAME = 48
DEFAULTS = {"task": "countdown", "problems": 60, "budgets": "150,400,1000", "seed": 0}
PAGES = Path("docs/techniques/curves")
HEADER = "<!-- Written by benchmarks/methods.py from measured results: run it again instead of editing. -->"


@dataclass(frozen=True)
class Settings:
    """What is measured on what."""

    task: AnswerTask
    problems: Sequence[Problem]
    pilots: Sequence[Problem]
    budgets: Sequence[str]
    journal: Path
    pages: Path
    seed: int
    concurrency: int
    limit_s: float
    command: str


@dataclass
class Outcome:
    """What came of the methods: their evaluations, and why others have none."""

    measured: dict[str, Evaluation] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


async def measure(specs: Sequence[str], settings: Settings, backend: LocalBackend) -> Evaluation:
    """Evaluate some specs at every budget, as far as the journal does not hold them."""
    return await evaluate(
        [sized(spec, REWARD_MODEL) for spec in specs], settings.task, settings.problems, backend,
        path=settings.journal, model=MODEL, budgets=settings.budgets, seed=settings.seed,
        concurrency=settings.concurrency, pilots=settings.pilots,
    )  # fmt: skip


async def measure_all(names: Sequence[str], settings: Settings, backend: LocalBackend) -> Outcome:
    """The baselines, then every method; one that fails or takes too long stops none of the others."""
    outcome = Outcome()
    base = await measure(BASELINES, settings, backend)
    for name in names:
        if name in SKIPPED:
            outcome.missing[name] = SKIPPED[name]
            continue
        started = time.monotonic()
        try:
            async with asyncio.timeout(settings.limit_s):
                found = await measure(VARIANTS.get(name, (name,)), settings, backend)
            if found.failures:
                raise found.failures[0].error
        except TimeoutError:
            outcome.missing[name] = f"not done after {settings.limit_s:.0f} s; the same command goes on"
        except Exception as error:
            outcome.missing[name] = f"{type(error).__name__}: {error}"
        else:
            outcome.measured[name] = found
            write_page(name, found, base, settings)
        say(f"{name}: {time.monotonic() - started:.0f} s {outcome.missing.get(name, '')}")
    return outcome


def write_page(name: str, found: Evaluation, base: Evaluation, settings: Settings) -> None:
    """The table and the plot of one method."""
    (settings.pages / f"{name}.md").write_text(page(name, found, base, settings), encoding="utf-8")
    own = {run.method for run in found.runs}
    rows = [*found.rows, *(row for row in base.rows if row.method in COMPARED and row.method not in own)]
    plot(points(rows), [settings.pages / f"{name}.svg"])


def page(name: str, found: Evaluation, base: Evaluation, settings: Settings) -> str:
    """What a method's page shows of it."""
    lines = [
        HEADER, "", f"{setting(settings, found)} `{settings.command} --only {name}` makes it.", "",
        f"| budget | spec | right answers (95% interval) | tokens | {' | '.join(f'against {b}' for b in COMPARED)} |",
        "|---|---|---|---|" + "---|" * len(COMPARED),
    ]  # fmt: skip
    too_small = {(one.method, one.budget) for one in found.fits if not one.within}
    for run, row in zip(found.runs, found.rows, strict=True):
        against = [against_text(run, other, base, settings.seed) for other in COMPARED]
        spec = f"`{label(row.strategy)}`" + (" (cut)" if (row.method, row.budget) in too_small else "")
        cells = [tokens_text(row.budget), spec, accuracy_text(row.accuracy), number(row.tokens), *against]
        lines.append(f"| {' | '.join(cells)} |")
    if too_small:
        lines += ["", "(cut): the smallest size takes more than the budget, which ends its runs early."]
    notes = dict.fromkeys(note for row in found.rows for note in row.notes)
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    lines += [
        "",
        f"![Right answers against total tokens: {name} beside {' and '.join(COMPARED)}](curves/{name}.svg)",
        "",
    ]
    return "\n".join(lines)


def setting(settings: Settings, found: Evaluation) -> str:
    """One sentence on what was measured."""
    distinct = len(set(found.groups.values()))
    count = len(settings.problems)
    different = "" if distinct == count else f" ({distinct} different ones, which the intervals are over)"
    return (
        f"{settings.task.name.replace('_', ' ').capitalize()}, {count} held-out problems{different}, `{MODEL}` with "
        f"`{REWARD_MODEL}`. Each budget gets the largest size whose mean tokens, the verifier's included, stay within "
        f"it on {PILOTS} other problems, and caps every problem. Differences are in points, paired by problem."
    )


def tokens_text(budget: str) -> str:
    """A budget's tokens for people."""
    return f"{Budget.parse(budget).tokens:,}"


def against_text(run: Run, other: str, base: Evaluation, seed: int) -> str:
    """A run's difference to a baseline at the same budget."""
    measured = against(run, other, base, seed)
    return "-" if measured is None else difference_text(measured)


def against(run: Run, other: str, base: Evaluation, seed: int) -> Interval | None:
    """The paired difference to a baseline at the same budget; None for the baseline itself."""
    named = [one for one in base.runs if one.method == other and one.budget == run.budget and one.method != run.method]
    return difference(run, named[0], base.groups, seed).accuracy if named else None


def write_overview(outcome: Outcome, base: Evaluation, settings: Settings) -> None:
    """All methods in one table and one plot, by their accuracy at the largest budget."""
    entries: list[tuple[Run, Row, Interval | None]] = []
    top = settings.budgets[-1]
    for found in outcome.measured.values():
        for run, row in zip(found.runs, found.rows, strict=True):
            if run.budget == top:
                entries.append((run, row, against(run, COMPARED[0], base, settings.seed)))
    entries.sort(key=lambda entry: (-entry[1].accuracy.mean, entry[1].tokens))
    every = {(row.method, row.budget): row for found in outcome.measured.values() for row in found.rows}
    lines = [
        HEADER, "", setting(settings, base), "",
        f"| method | {' | '.join(f'{tokens_text(b)} tokens' for b in settings.budgets)} | against {COMPARED[0]} at "
        f"{tokens_text(top)} |",
        "|---|" + "---|" * (len(settings.budgets) + 1),
    ]  # fmt: skip
    for run, _, measured in entries:
        cells = [every.get((run.method, budget)) for budget in settings.budgets]
        shown = ["-" if row is None else accuracy_text(row.accuracy) for row in cells]
        difference_cell = "-" if measured is None else difference_text(measured)
        lines.append(f"| `{label(run.method)}` | {' | '.join(shown)} | {difference_cell} |")
    lines += ["", f"![Difference to {COMPARED[0]} at {top} tokens a problem](curves/overview.svg)", ""]
    chance = "about one in twenty of the intervals leaves out a true difference by chance"
    lines += [
        f"With {len(entries)} comparisons, {chance}. A method whose smallest size takes more than a budget is cut "
        "by it, as its page says, and may have come to no answer by then.",
        "",
    ]
    lines += [f"- `{name}` is not measured: {why}" for name, why in sorted(outcome.missing.items())]
    (settings.pages / "overview.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    ranked = [
        (shorten(label(run.method)), gain) for run, _, gain in entries if gain is not None and not math.isnan(gain.low)
    ]
    ranked.sort(key=lambda entry: -entry[1].mean)
    axis = f"points against {COMPARED[0]} at {tokens_text(top)} tokens, 95% interval"
    plot_ranking(ranked, [settings.pages / "overview.svg"], mark=0.0, label=axis)


def shorten(name: str) -> str:
    """A name that leaves room for a plot."""
    name = ",".join(part for part in name.split(",") if "think=" not in part or "max_think" in part)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def strategy_names(only: str | None) -> list[str]:
    """Registered strategies, or those named.

    Raises:
        ConfigError: one of these is not registered.
    """
    import ramify.strategies  # noqa: F401 - registers them

    if only is None:
        return [entry.name for entry in registry.techniques("strategy")]
    return [registry.technique("strategy", name.strip()).name for name in only.split(",")]


def read_settings(options: argparse.Namespace) -> Settings:
    """Settings from the command line."""
    task, problems = load_task(options.task, options.problems, 0, "question", "answer", False)
    pilots, _ = pilot_problems(task, problems, 0)
    folder = Path("runs/methods") / options.task
    pages = options.pages or (PAGES if options.task == DEFAULTS["task"] else folder / "pages")
    pages.mkdir(parents=True, exist_ok=True)
    budgets = [budget.strip() for budget in options.budgets.split(",")]
    return Settings(
        task, problems, pilots, budgets, folder / "results.jsonl", pages, options.seed, options.concurrency,
        options.limit_s, command(options),
    )  # fmt: skip


def command(options: argparse.Namespace) -> str:
    """The command that measures the same again: what decides the numbers, where it is not the default."""
    given = {name: getattr(options, name) for name in DEFAULTS}
    changed = [f"--{name} {value}" for name, value in given.items() if value != DEFAULTS[name]]
    return " ".join(["python -m benchmarks.methods", *changed])


async def run(options: argparse.Namespace) -> Outcome:
    """Measure and write."""
    names, settings = strategy_names(options.only), read_settings(options)
    async with LocalBackend.load(
        MODEL, reward_models=(REWARD_MODEL,), models=(DRAFTER,), num_threads=1, seed=options.seed
    ) as backend:
        outcome = await measure_all(names, settings, backend)
        if options.only is None:
            write_overview(outcome, await measure(BASELINES, settings, backend), settings)
    return outcome


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run; 1 if a method that should have been measured was not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="names with commas; without it all, and the overview")
    for option, usual in DEFAULTS.items():
        parser.add_argument(f"--{option}", type=type(usual), default=usual, help=f"default: {usual}")
    parser.add_argument("--concurrency", type=int, default=128, help="problems at once")
    parser.add_argument("--limit-s", type=float, default=600.0, help="seconds for one method")
    parser.add_argument("--pages", type=Path, help=f"where tables and plots go; {PAGES} for countdown")
    outcome = asyncio.run(run(parser.parse_args()))
    unexpected = {name: why for name, why in outcome.missing.items() if name not in SKIPPED}
    for name, why in unexpected.items():
        say(f"{name} was not measured: {why}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())

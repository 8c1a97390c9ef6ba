"""Allocating compute, beside the best single way of spending as much: the tables of `docs/guides/planning.md`.

    python -m benchmarks.allocation [--task countdown] [--only osca,...]

Draws pools of 32 samples at four temperatures on 60 training, 60 validation and 100 test problems (once: a run that was
stopped goes on), fits every allocation on the first two and judges it on the third. Writes `docs/guides/planning/*.md`.
The files hold no times: the same settings give the same files.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ramify.backends.local import LocalBackend
from ramify.evals.advice import (
    Parts,
    groups_of,
    mean_tokens,
    measure_pool,
    outcomes_of,
    parts_of,
    predicted_of,
    verified_of,
)
from ramify.evals.allocation import compare_osca, paired, replay_shared
from ramify.evals.estimators import Interval, bootstrap_interval, pass_at_k
from ramify.evals.pools import Pool, draw_pool
from ramify.evals.report import accuracy_text, difference_text
from ramify.evals.tasks import get_task, task_names
from ramify.planning.difficulty import DifficultyPlan, best_option
from ramify.planning.osca import best_single
from ramify.planning.per_prompt import FIRST, Agreement, BetaPrior, Checked
from ramify.planning.recommend import Measured, judge, recommend
from ramify.planning.solve_verify import accuracy_of, best_split, grid
from ramify.randomness import FloatArray
from ramify.strategies import DEFAULT_SAMPLING, parse_strategy

MODEL, REWARD_MODEL = "nano", "nano-prm"
TEMPERATURES = (0.5, 0.8, 1.1, 1.4)
USUAL = 1
"""The place of 0.8, the temperature of the tables that compare no temperatures."""
SAMPLES, TRAIN, TEST = 32, 60, 100
COUNTS = (2, 4, 8, 16)
"""Budgets, in samples of mean length."""
METHODS = ("self-consistency", "best-of-n", "best-of-n:select=weighted", "best-of-n:scorer=logprob")
CHOOSERS = ("self-consistency", "best-of-n:select=weighted", "best-of-n:scorer=logprob")
SPLITS = ((1, 2, 3, 4, 6, 8, 12, 16), (0, 1))
PAGES = Path("docs/guides/planning")
HEADER = "<!-- Written by benchmarks/allocation.py from measured results: run it again instead of editing. -->"


@dataclass(frozen=True)
class Drawn:
    """A task's pools: one a temperature, for each part."""

    parts: Parts
    train: list[Pool]
    validation: list[Pool]
    test: list[Pool]

    @property
    def budgets(self) -> list[float]:
        """Tokens a problem of so many samples at the usual temperature."""
        return [count * mean_tokens(self.train[USUAL]) for count in COUNTS]


async def draw(task_name: str, folder: Path) -> Drawn:
    """Draw what is missing."""
    task = get_task(task_name)
    parts = parts_of(task, [], TRAIN, TEST)
    pools: dict[str, list[Pool]] = {}
    async with LocalBackend.load(MODEL, reward_models=(REWARD_MODEL,), num_threads=1, seed=0) as backend:
        for part, problems in (("train", parts.train), ("validation", parts.validation), ("test", parts.test)):
            pools[part] = [
                await draw_pool(
                    folder / f"{part}-{temperature}.jsonl", task, problems, backend, model=MODEL, n=SAMPLES,
                    params=DEFAULT_SAMPLING.with_(temperature=temperature), reward_models=(REWARD_MODEL,), details=0,
                )
                for temperature in TEMPERATURES
            ]  # fmt: skip
    return Drawn(parts, pools["train"], pools["validation"], pools["test"])


def osca(drawn: Drawn) -> list[str]:
    """OSCA over the temperatures, by pass@k."""
    rows = compare_osca(drawn.train, drawn.validation, drawn.test, drawn.budgets, drawn.parts.test)
    temperatures = " / ".join(map(str, TEMPERATURES))
    lines = [f"| tokens | samples at {temperatures} | solved | best single | solved | difference |", "|" + "---|" * 6]
    for row in rows:
        cells = [
            f"{row['budget']:.0f}", " / ".join(map(str, row["counts"])), _share(row["solved"]),
            " / ".join(map(str, row["single"])), _share(row["single_solved"]), _points(row["difference"]),
        ]  # fmt: skip
        lines.append(_line(cells))
    return lines


def per_prompt(drawn: Drawn) -> list[str]:
    """A shared budget, with a check and without, beside as many samples for everybody at the best temperature."""
    fitted = outcomes_of(drawn.train)
    lines = [_line(["tokens", "answers", "for everybody", "shared", "difference", "tokens used"]), "|" + "---|" * 6]
    vote, voted_sizes = parse_strategy("self-consistency"), [count for count in COUNTS if count >= FIRST]
    train = [measure_pool(pool, vote, vote.name, sizes=voted_sizes) for pool in drawn.train]
    for count, budget in zip(COUNTS, drawn.budgets, strict=True):
        best = best_single(fitted, [mean_tokens(pool) for pool in drawn.train], budget)
        place = int(np.argmax(best.counts))
        pool = drawn.test[place]
        prior = BetaPrior.fit(fitted.correct[:, place].tolist(), fitted.drawn[:, place].tolist())
        alike = np.array(
            [pass_at_k(len(s), sum(x.correct for x in s), best.counts[place]) for s in pool.samples.values()]
        )
        shared, used = replay_shared(pool, Checked(prior), _same(best.counts[place], pool), checked=True)
        lines.append(_compared(f"{budget:.0f}", f"checked, {TEMPERATURES[place]}", alike, shared, used, drawn))
        if count not in voted_sizes:
            continue  # the vote needs its first samples everywhere
        place = int(np.argmax([_at(one, count).mean() for one in train]))
        pool = drawn.test[place]
        alike = _at(measure_pool(pool, vote, vote.name, sizes=[count]), count)
        shared, used = replay_shared(pool, Agreement(), _same(count, pool), checked=False)
        lines.append(_compared(f"{budget:.0f}", f"voted, {TEMPERATURES[place]}", alike, shared, used, drawn))
    return lines


def difficulty(drawn: Drawn) -> list[str]:
    """A method for each bin of agreement, beside the best method for all, at equal mean tokens."""
    chosen = [(spec, parse_strategy(spec)) for spec in CHOOSERS]
    train, test = (predicted_of(pools[USUAL], chosen) for pools in (drawn.train, drawn.test))
    plan = DifficultyPlan.fit(train.agreement, train.table)
    lines = [_line(["tokens", "by bin, hard to easy", "right", "for all", "right", "difference", "tokens used"])]
    lines.append("|" + "---|" * 7)
    content = {problem.id: group for problem, group in zip(drawn.parts.test, groups_of(drawn.parts.test), strict=True)}
    groups = [content[name] for name in test.groups]
    for budget in drawn.budgets[1:]:
        # The first samples and, where the method has one, the reading of the verifier are paid for in both.
        if budget < plan.choices[0].cost:
            continue
        choice, alone = plan.choice(budget), best_option(train.table, budget)
        accuracy, cost = plan.judge(test.agreement, test.table, budget)
        single, single_cost = test.table.accuracy[:, alone], test.table.cost[:, alone]
        cells = [
            f"{budget:.0f}", ", ".join(f"`{plan.names[option]}`" for option in choice.options),
            accuracy_text(bootstrap_interval(accuracy, groups=groups)), f"`{plan.names[alone]}`",
            accuracy_text(bootstrap_interval(single, groups=groups)),
            difference_text(bootstrap_interval(accuracy - single, groups=groups)),
            f"{cost.mean():.0f} / {single_cost.mean():.0f}",
        ]  # fmt: skip
        lines.append(_line(cells))
    return lines


def solve_verify(drawn: Drawn) -> list[str]:
    """Samples that vote, or fewer that the reward model also reads."""
    train, test = (verified_of(pools[USUAL], REWARD_MODEL) for pools in (drawn.train, drawn.test))
    measured = grid(train, *SPLITS, subsets=100)
    lines = [_line(["tokens", "best split", "right", "best without verifying", "right", "difference"])]
    lines.append("|" + "---|" * 6)
    for budget in drawn.budgets:
        best = best_split(measured, budget)
        voted = best_split([split for split in measured if not split.verifications], budget)
        accuracy, plain = (
            np.array([accuracy_of(problem, split.samples, split.verifications, subsets=100) for problem in test])
            for split in (best, voted)
        )
        cells = [
            f"{budget:.0f}", f"{best.samples} samples, {best.verifications} verdicts each", _mean(accuracy, drawn),
            f"{voted.samples} samples", _mean(plain, drawn), difference_text(paired(accuracy, plain, drawn.parts.test)),
        ]  # fmt: skip
        lines.append(_line(cells))
    return lines


def advice(drawn: Drawn) -> list[str]:
    """What `ramify recommend` advises, and what came of it."""
    train, test = (
        [measure_pool(pools[USUAL], parse_strategy(spec), spec) for spec in METHODS]
        for pools in (drawn.train, drawn.test)
    )
    found = recommend(train, drawn.budgets, groups=groups_of(drawn.parts.train))
    lines = [_line(["budget", "use", "tokens", "expected", "measured", "chosen again", "best there was"])]
    lines.append("|" + "---|" * 7)
    for one in found:
        accuracy, tokens = judge(one, test)
        every = [method.accuracy[:, size].mean() for method in test for size in method.within(one.budget)]
        cells = [
            f"{one.budget:.0f}", f"`{one.spec}`", f"{tokens.mean():.0f}", f"{one.expected:.1%} ± {one.error:.1%}",
            _mean(accuracy, drawn), f"{one.chosen:.0%}", f"{max(every):.1%}",
        ]  # fmt: skip
        lines.append(_line(cells))
    return lines


TABLES: dict[str, Callable[[Drawn], list[str]]] = {
    "osca": osca,
    "per-prompt": per_prompt,
    "difficulty": difficulty,
    "solve-verify": solve_verify,
    "recommend": advice,
}


def _same(count: int, pool: Pool) -> int:
    """Tokens that so many samples of every problem take."""
    return int(count * mean_tokens(pool) * len(pool.samples))


def _compared(tokens: str, name: str, alike: FloatArray, shared: FloatArray, used: float, drawn: Drawn) -> str:
    difference = difference_text(paired(shared, alike, drawn.parts.test))
    return _line([tokens, name, _mean(alike, drawn), _mean(shared, drawn), difference, f"{used:.0f}"])


def _mean(accuracy: FloatArray, drawn: Drawn) -> str:
    return accuracy_text(bootstrap_interval(accuracy, groups=groups_of(drawn.parts.test)))


def _at(measured: Measured, size: int) -> FloatArray:
    return measured.accuracy[:, [spec.endswith(f"n={size}") for spec in measured.specs].index(True)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _share(interval: dict[str, float]) -> str:
    return accuracy_text(Interval(**interval))


def _points(interval: dict[str, float]) -> str:
    return difference_text(Interval(**interval))


def main() -> None:
    """Draw, fit, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=task_names(), help="default: all")
    parser.add_argument("--only", help=f"names with commas, of {', '.join(TABLES)}")
    options = parser.parse_args()
    PAGES.mkdir(parents=True, exist_ok=True)
    names = options.only.split(",") if options.only else list(TABLES)
    for task in [options.task] if options.task else task_names():
        drawn = asyncio.run(draw(task, Path("runs/allocation") / task))
        for name in names:
            started = time.monotonic()
            lines = [HEADER, "", *TABLES[name](drawn), ""]
            (PAGES / f"{name}-{task}.md").write_text("\n".join(lines), encoding="utf-8")
            print(f"{task} {name} ({time.monotonic() - started:.0f} s)", *lines[2:], sep="\n", flush=True)


if __name__ == "__main__":
    main()

"""Allocating compute, beside the best single way of spending as much: the tables of `docs/guides/planning.md`.

    python -m benchmarks.allocation [--task countdown] [--only osca,...]

Draws pools of 32 samples at four temperatures on twice 30 problems to fit on and to choose by, and on 100 held-out
ones (once: a run that was stopped goes on). OSCA is fitted on the first, what needs no choice on both together. Writes
`docs/techniques/curves/planning-*.md`.
The files hold no times: the same settings give the same files.
"""

from __future__ import annotations

import argparse
import asyncio
import math
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
from ramify.planning.difficulty import DifficultyPlan, Table, upper_hull
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
SAMPLES, TRAIN, TEST = 32, 30, 100
COUNTS = (2, 4, 8, 16)
"""Budgets, in samples of mean length."""
METHODS = ("self-consistency", "best-of-n", "best-of-n:select=weighted", "best-of-n:scorer=logprob")
CHOOSERS = ("self-consistency", "best-of-n:select=weighted", "best-of-n:scorer=logprob")
SPLITS = ((1, 2, 3, 4, 6, 8, 12, 16), (0, 1))
PAGES = Path("docs/techniques/curves")
HEADER = "<!-- Written by benchmarks/allocation.py from measured results: run it again instead of editing. -->"


@dataclass(frozen=True)
class Drawn:
    """A task's pools: one a temperature, for each part."""

    parts: Parts
    train: list[Pool]
    validation: list[Pool]
    test: list[Pool]

    @property
    def both(self) -> list[Pool]:
        """The pools to fit on and to choose by together, for what needs no choice."""
        pairs = zip(self.train, self.validation, strict=True)
        return [Pool(first.header, {**first.samples, **second.samples}) for first, second in pairs]

    @property
    def budgets(self) -> list[float]:
        """Tokens a problem of so many samples, at the temperature whose samples are longest."""
        return [float(math.ceil(count * max(map(mean_tokens, self.train)))) for count in COUNTS]


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
    fitted = outcomes_of(drawn.both)
    lines = [_line(["tokens", "answers", "for everybody", "shared", "difference", "tokens used"]), "|" + "---|" * 6]
    vote, voted_sizes = parse_strategy("self-consistency"), [count for count in COUNTS if count >= FIRST]
    train = [measure_pool(pool, vote, vote.name, sizes=voted_sizes) for pool in drawn.both]
    for count, budget in zip(COUNTS, drawn.budgets, strict=True):
        best = best_single(fitted, [mean_tokens(pool) for pool in drawn.both], budget)
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
    """A method for each bin of agreement, beside the best mixture of two methods for all at equal mean tokens."""
    chosen = [(spec, parse_strategy(spec)) for spec in CHOOSERS]
    train, test = (predicted_of(pools[USUAL], chosen) for pools in (drawn.both, drawn.test))
    plan = DifficultyPlan.fit(train.agreement, train.table)
    lines = [_line(["tokens", "by bin, hard to easy", "right", "for all", "right", "difference", "tokens used"])]
    lines.append("|" + "---|" * 7)
    content = {problem.id: group for problem, group in zip(drawn.parts.test, groups_of(drawn.parts.test), strict=True)}
    groups = [content[name] for name in test.groups]
    for budget in drawn.budgets:
        if budget < plan.choices[0].cost:
            continue  # every option takes the first samples, and where it scores, the reading of the verifier
        choice = plan.choice(budget)
        accuracy, cost = plan.judge(test.agreement, test.table, budget)
        shares = mixture(train.table, choice.cost)
        alone = np.sum([share * test.table.accuracy[:, option] for option, share in shares.items()], axis=0)
        alone_cost = sum(share * float(test.table.cost[:, option].mean()) for option, share in shares.items())
        cells = [
            f"{budget:.0f}", ", ".join(f"`{plan.names[option]}`" for option in choice.options),
            accuracy_text(bootstrap_interval(accuracy, groups=groups)),
            " + ".join(f"{share:.0%} `{plan.names[option]}`" for option, share in shares.items()),
            accuracy_text(bootstrap_interval(alone, groups=groups)),
            difference_text(bootstrap_interval(accuracy - alone, groups=groups)),
            f"{cost.mean():.0f} / {alone_cost:.0f}",
        ]  # fmt: skip
        lines.append(_line(cells))
    return lines


def mixture(table: Table, budget: float) -> dict[int, float]:
    """The best options for all problems alike, and the share of the problems that each gets to use the budget up."""
    accuracy, cost = table.means()
    hull = upper_hull(cost, accuracy)
    below = [option for option in hull if cost[option] <= budget]
    above = [option for option in hull if cost[option] > budget]
    if not below or not above:
        return {(below or above)[-1 if below else 0]: 1.0}
    share = float((budget - cost[below[-1]]) / (cost[above[0]] - cost[below[-1]]))
    return {below[-1]: 1.0 - share, above[0]: share} if share else {below[-1]: 1.0}


def solve_verify(drawn: Drawn) -> list[str]:
    """Samples that vote, or fewer that the reward model also reads."""
    train, test = (verified_of(pools[USUAL], REWARD_MODEL) for pools in (drawn.both, drawn.test))
    measured = grid(train, *SPLITS, subsets=60)
    lines = [_line(["tokens", "best split", "right", "best without verifying", "right", "difference"])]
    lines.append("|" + "---|" * 6)
    for budget in drawn.budgets:
        best = best_split(measured, budget)
        voted = best_split([split for split in measured if not split.verifications], budget)
        read = f"scored by `{REWARD_MODEL}`" if best.verifications else "voting"
        accuracy, plain = (
            np.array([accuracy_of(problem, split.samples, split.verifications, subsets=60) for problem in test])
            for split in (best, voted)
        )
        cells = [
            f"{budget:.0f}", f"{best.samples} samples, {read}", _mean(accuracy, drawn),
            f"{voted.samples} samples", _mean(plain, drawn), difference_text(paired(accuracy, plain, drawn.parts.test)),
        ]  # fmt: skip
        lines.append(_line(cells))
    return lines


def advice(drawn: Drawn) -> list[str]:
    """What `ramify recommend` advises, and what came of it."""
    train, test = (
        [measure_pool(pools[USUAL], parse_strategy(spec), spec, sizes=SPLITS[0]) for spec in METHODS]
        for pools in (drawn.both, drawn.test)
    )
    found = recommend(train, drawn.budgets, groups=groups_of([*drawn.parts.train, *drawn.parts.validation]))
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
        drawn = asyncio.run(draw(task, Path("runs/planning") / task))
        for name in names:
            started = time.monotonic()
            lines = [HEADER, "", *TABLES[name](drawn), ""]
            (PAGES / f"planning-{name}-{task}.md").write_text("\n".join(lines), encoding="utf-8")
            print(f"{task} {name} ({time.monotonic() - started:.0f} s)", *lines[2:], sep="\n", flush=True)


if __name__ == "__main__":
    main()

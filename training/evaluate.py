"""Measures the bundled models on held-out problems: pass@k, majority voting, PRM best-of-n, greedy; all with intervals.

Every number comes from one pool of samples a problem. The reference for the model card.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np

from ramify.evals.tasks import Task, get_task, task_names
from training.data import render
from training.export import load_bundled
from training.prm import END_MARK, step_scores
from training.sample import sample

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],
    "min": min,
    "product": lambda scores: float(np.prod(scores)),
}


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates of one problem: answer keys, correctness, and step scores if there is a reward model."""

    keys: list[Hashable | None]
    correct: list[bool]
    scores: list[list[float]]


def evaluate(bundled: Path, problems: int, samples: int, temperature: float, seed: int) -> dict[str, object]:
    """Sample a pool for every task and give the table as a plain dictionary."""
    policy, tokenizer = load_bundled(bundled / "nano")
    prm = load_bundled(bundled / "nano-prm")[0] if (bundled / "nano-prm").exists() else None
    table: dict[str, object] = {
        "problems": problems,
        "samples": samples,
        "temperature": temperature,
        "seed": seed,
        "split": "test",
    }
    for name in task_names():
        task, began = get_task(name), time.monotonic()
        asked = task.problems(problems, seed)
        prompts = [render(problem) for problem in asked]
        greedy = sample(policy, tokenizer, prompts, 1, 0.0, seed)
        texts = sample(policy, tokenizer, prompts, samples, temperature, seed)
        pools = []
        for problem, prompt, found in zip(asked, prompts, texts, strict=True):
            cleaned = [text.removesuffix(END_MARK) for text in found]
            scores = step_scores(prm, tokenizer, prompt, cleaned) if prm else []
            keys = [task.answer(text, problem) for text in cleaned]
            pools.append(Pool(keys, [task.correct(text, problem) for text in cleaned], scores))
        right = [task.correct(texts[0].removesuffix(END_MARK), p) for p, texts in zip(asked, greedy, strict=True)]
        row = measure(pools)
        row["greedy"] = interval(np.array(right, float))
        row["label_agreement"] = label_agreement(task, asked, texts, pools) if prm else None
        row["by_difficulty"] = by_difficulty(asked, pools)
        row["seconds"] = round(time.monotonic() - began)
        table[name] = row
        print(name, json.dumps(row), flush=True)
    return table


def measure(pools: list[Pool]) -> dict[str, object]:
    """Give every curve at every k, each as [mean, low, high] with a 95% bootstrap interval over problems."""
    size = len(pools[0].correct)
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= size]
    row: dict[str, object] = {}
    for k in ks:
        row[f"pass@{k}"] = interval(np.array([pass_at_k(size, sum(pool.correct), k) for pool in pools]))
        row[f"majority@{k}"] = interval(np.array([_blocks(pool, k, majority) for pool in pools]))
        if pools[0].scores:
            for name, aggregate in AGGREGATES.items():
                best = np.array(
                    [_blocks(pool, k, lambda p, block, a=aggregate: best_of(p, block, a)) for pool in pools]
                )
                row[f"prm-{name}@{k}"] = interval(best)
            row[f"prm-weighted@{k}"] = interval(np.array([_blocks(pool, k, weighted) for pool in pools]))
    return row


def pass_at_k(n: int, right: int, k: int) -> float:
    """Unbiased chance that k of n samples hold a right one: Chen et al., "Evaluating LLMs Trained on Code" (2021)."""
    return 1.0 - comb(n - right, k) / comb(n, k)


def majority(pool: Pool, block: range) -> bool:
    """Whether the commonest readable answer is right; the first seen wins a tie."""
    votes = Counter(pool.keys[i] for i in block if pool.keys[i] is not None)
    return _first_with(pool, block, votes)


def weighted(pool: Pool, block: range) -> bool:
    """Majority in which every vote weighs its last step's score."""
    votes: Counter[Hashable] = Counter()
    for i in block:
        if pool.keys[i] is not None:
            votes[pool.keys[i]] += pool.scores[i][-1]  # type: ignore[assignment]
    return _first_with(pool, block, votes)


def best_of(pool: Pool, block: range, aggregate: Callable[[Sequence[float]], float]) -> bool:
    """Whether the candidate with the best aggregated score is right."""
    return pool.correct[max(block, key=lambda i: aggregate(pool.scores[i]))]


def interval(values: np.ndarray, draws: int = 2000) -> list[float]:
    """Give [mean, low, high]: the 95% bootstrap interval over problems."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(1)
    return [round(float(x), 4) for x in (values.mean(), *np.quantile(means, (0.025, 0.975)))]


def label_agreement(task: Task, asked: list, texts: list[list[str]], pools: list[Pool]) -> float:
    """Share of sampled lines whose score is on the right side of one half."""
    agree: list[bool] = []
    for problem, found, pool in zip(asked, texts, pools, strict=True):
        for text, scores in zip(found, pool.scores, strict=True):
            labels = task.step_labels(problem, text.removesuffix(END_MARK))
            agree += [(score > 0.5) == label for score, label in zip(scores, labels, strict=True)]
    return round(float(np.mean(agree)), 4)


def by_difficulty(asked: list, pools: list[Pool]) -> dict[int, list[float]]:
    """Give [problems, pass@1, pass@all, majority@all] by the number of reference steps."""
    groups: dict[int, list[Pool]] = {}
    for problem, pool in zip(asked, pools, strict=True):
        groups.setdefault(len(problem.metadata["steps"]), []).append(pool)
    every = range(len(pools[0].correct))
    return {
        steps: [
            len(group),
            *(round(float(x), 3) for x in (
                np.mean([np.mean(pool.correct) for pool in group]),
                np.mean([any(pool.correct) for pool in group]),
                np.mean([majority(pool, every) for pool in group]),
            )),
        ]
        for steps, group in sorted(groups.items())
    }  # fmt: skip


def _blocks(pool: Pool, k: int, right: Callable[[Pool, range], bool]) -> float:
    """Average a selector over the disjoint blocks of k candidates."""
    starts = range(0, len(pool.correct) - k + 1, k)
    return float(np.mean([right(pool, range(start, start + k)) for start in starts]))


def _first_with(pool: Pool, block: range, votes: Counter[Hashable]) -> bool:
    if not votes:
        return False
    most = max(votes.values())
    return next(pool.correct[i] for i in block if pool.keys[i] is not None and votes[pool.keys[i]] == most)

"""Measures the bundled models on held-out problems: greedy, pass@k, majority voting and PRM best-of-n, with intervals.

Every number comes from one pool of samples a problem; the estimators are those of `ramify.evals`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ramify.evals.estimators import best_of_n_at_k, bootstrap_interval, maj_at_k, pass_at_k, weighted_at_k
from ramify.evals.tasks import Split, get_task
from ramify.scoring.problem import Problem
from training.data import render
from training.export import load_bundled
from training.pools import draw_pool, score_pool
from training.prm import END_MARK
from training.sample import sample

KS = (1, 2, 4, 8, 16, 32, 64)
AGGREGATES = {"last": lambda scores: scores[-1], "min": min, "prod": lambda scores: float(np.prod(scores))}


@dataclass(frozen=True, slots=True)
class Judged:
    """The candidates of one problem: answer keys, whether each is right, and the PRM's scores by line."""

    problem: Problem
    keys: list[object]
    correct: list[bool]
    scores: list[list[float]]


def evaluate(
    bundled: Path, work: Path, task: str, split: Split, problems: int, samples: int, temperature: float
) -> dict[str, object]:
    """Measure one task; pools and scores are kept under `work` and used again by a rerun."""
    policy, tokenizer = load_bundled(bundled / "nano")
    texts = draw_pool(policy, tokenizer, task, split, problems, samples, temperature, work / f"{task}-{split}.jsonl")
    scores: list[list[list[float]]] = [[] for _ in texts]
    if (bundled / "nano-prm").exists():
        prm, _ = load_bundled(bundled / "nano-prm")
        scores = score_pool(prm, tokenizer, task, split, texts, work / f"{task}-{split}-scores.jsonl")
    maker = get_task(task)
    asked = maker.problems(problems, split=split)
    judged = [
        Judged(p, [maker.answer(t, p) for t in found], [maker.correct(t, p) for t in found], marks)
        for p, found, marks in zip(asked, texts, scores, strict=True)
    ]
    greedy = sample(policy, tokenizer, [render(problem) for problem in asked], 1, 0.0, 0)
    right = [maker.correct(found[0].removesuffix(END_MARK), p) for found, p in zip(greedy, asked, strict=True)]
    return {
        "task": task,
        "split": split,
        "problems": problems,
        "samples": samples,
        "temperature": temperature,
        "greedy": _interval([float(value) for value in right]),
        **curves(judged),
        "by_steps": by_steps(judged),
        "prm_line_accuracy": line_accuracy(task, judged, texts) if scores[0] else None,
    }


def curves(judged: list[Judged]) -> dict[str, dict[int, list[float]]]:
    """Give every method at every k as [mean, low, high], a 95% bootstrap interval over problems."""
    n = len(judged[0].correct)
    ks = [k for k in KS if k <= n]
    found = {
        "pass": {k: _interval([pass_at_k(n, sum(one.correct), k) for one in judged]) for k in ks},
        "majority": {k: _interval([maj_at_k(one.keys, one.correct, k) for one in judged]) for k in ks},
    }
    if judged[0].scores:
        for name, aggregate in AGGREGATES.items():
            marks = [[aggregate(lines) for lines in one.scores] for one in judged]
            found[f"prm_{name}"] = {
                k: _interval([best_of_n_at_k(m, one.correct, k) for m, one in zip(marks, judged, strict=True)])
                for k in ks
            }
        last = [[lines[-1] for lines in one.scores] for one in judged]
        found["weighted"] = {
            k: _interval([weighted_at_k(one.keys, m, one.correct, k) for m, one in zip(last, judged, strict=True)])
            for k in ks
        }
    return found


def by_steps(judged: list[Judged]) -> dict[int, dict[str, float]]:
    """Group the problems by their number of reference steps."""
    groups: dict[int, list[Judged]] = {}
    for one in judged:
        groups.setdefault(len(one.problem.metadata["steps"]), []).append(one)
    return {
        steps: {
            "problems": len(group),
            "pass@1": round(float(np.mean([np.mean(one.correct) for one in group])), 4),
            "pass@all": round(float(np.mean([any(one.correct) for one in group])), 4),
            "majority@all": round(float(np.mean([maj_at_k(o.keys, o.correct, len(o.correct)) for o in group])), 4),
        }
        for steps, group in sorted(groups.items())
    }


def line_accuracy(task: str, judged: list[Judged], texts: list[list[str]]) -> float:
    """Share of all sampled lines that the PRM puts on the right side of one half."""
    maker = get_task(task)
    agree: list[bool] = []
    for one, found in zip(judged, texts, strict=True):
        for text, scores in zip(found, one.scores, strict=True):
            labels = maker.step_labels(one.problem, text)
            agree += [(score > 0.5) == label for score, label in zip(scores, labels, strict=True)]
    return round(float(np.mean(agree)), 4)


def _interval(values: Sequence[float]) -> list[float]:
    found = bootstrap_interval(values)
    return [round(part, 4) for part in (found.mean, found.low, found.high)]

"""A task over the enumerable toy model: the answer is what was drawn, and some answers are right."""

from collections.abc import Hashable

import numpy as np

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.sampling import TokenIds
from ramify.scoring.problem import Problem

MODEL = ToyModel.random(seed=3)
PROBLEMS = [Problem(f"toy/{i}", f"question {i}", "a", "toy") for i in range(6)]


class ToyTask:
    """Right is what begins with "a"; no text, no answer."""

    name = "toy"

    def answer(self, text: str, problem: Problem) -> Hashable | None:
        return text.strip() or None

    def correct(self, text: str, problem: Problem) -> bool:
        return text.startswith("a")


def reward(tokens: TokenIds) -> float:
    return float(np.mean([token / 4 for token in tokens])) if tokens else 0.0


def make_backend(batch_size: int | None = None) -> ToyBackend:
    return ToyBackend(MODEL, {"toy-prm": reward}, pace=lambda key: 1 + key.low % 3, batch_size=batch_size)

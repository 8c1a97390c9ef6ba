"""Shared by the tests of the searches: runs on toy models made for them, and what a trace says about a tree."""

import asyncio
from collections import Counter

import numpy as np

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.scoring import Problem
from ramify.strategies import parse_strategy, solve
from ramify.strategies.testing import BY_TEXT, rising_reward

TOKEN = parse_strategy("beam:until=1").until
"""A step of one token."""


def endless(tokens=40, depth=5):
    """A model whose answers all have `depth` tokens, each of the others as likely as the next: hardly two are equal."""
    texts = ("", *(f"w{i} " for i in range(1, tokens)))

    class Table(dict):
        def get(self, prefix, default=None):
            ends = len(prefix) >= depth - 1
            return np.eye(tokens)[0] if ends else np.array([0.0, *[1 / (tokens - 1)] * (tokens - 1)])

    return ToyModel(texts, Table())


def search(strategy, seed=0, model=None, reward=rising_reward, budget=None, equivalence=BY_TEXT):
    """One run of a strategy (or a spec of one)."""
    strategy = parse_strategy(strategy) if isinstance(strategy, str) else strategy
    backend = ToyBackend(model or ToyModel.random(0), {"nano-prm": reward}, max_model_len=24)
    options = {} if budget is None else {"budget": budget}
    return asyncio.run(solve(strategy, Problem("p", "xy"), backend, seed=seed, equivalence=equivalence, **options))


def depth_of(tree, node):
    """Steps from the root."""
    depth = 0
    while node.parent is not None:
        node, depth = tree[node.parent], depth + 1
    return depth


def levels(result):
    """How many nodes were drawn at each depth."""
    tree = result.trace.tree()
    return Counter(depth_of(tree, node) for node in tree[1:])


def score(node):
    """The only score of a node of the trace."""
    (value,) = node.scores.values()
    return value


def weighted_winner(candidates):
    """The answer whose finished candidates' scores sum highest."""
    sums = Counter()
    for candidate in candidates:
        if candidate.answer is not None and candidate.node.finish_reason == "stop":
            sums[candidate.answer] += candidate.score
    return sums


def right_so_far(right):
    """A perfect process reward: 1 while the answer can still become `right`."""
    return lambda tokens: float(tuple(tokens) == right[: len(tokens)])


def conditionals(model, right, temperature=0.8):
    """The probability of each token of an answer, given those before it."""
    return [float(model.conditional(right[:i], temperature)[token]) for i, token in enumerate(right)]

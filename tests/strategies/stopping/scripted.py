"""A toy model that follows a script: a chain of the same token, and what it would answer at each length if asked."""

import asyncio

import numpy as np

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.scoring import KeyedBy, Problem
from ramify.strategies import solve

ASK = "?"
TEXTS = ("", "t", ASK, "x", "y", "wait y", "waiter y", "Hmm, y", "\n")
END, THINK, ASKED, X, Y, WAIT, WAITER, HMM, LINE = range(9)
BY_LETTER = KeyedBy(lambda text, problem: text.strip()[-1:] if text.strip()[-1:] in ("x", "y") else None)
"""The last letter, if it is an answer."""


def scripted(answers, last=X):
    """Thinks one token for each of the answers (what it says when asked after so many), then says `last` and ends."""
    one = np.eye(len(TEXTS))
    table = {(THINK,) * done: one[THINK] for done in range(len(answers))}
    table[(THINK,) * len(answers)] = one[last]
    table |= {((THINK,) * (i + 1) + (ASKED,)): one[answer] for i, answer in enumerate(answers)}
    return ToyModel(TEXTS, table)


def run_script(strategy, answers, last=X, reward=None, context=64, **options):
    """The result on a scripted model."""
    backend = ToyBackend(scripted(answers, last), {"nano-prm": reward or (lambda tokens: 0.5)}, max_model_len=context)
    return asyncio.run(solve(strategy, Problem("p", "q"), backend, equivalence=BY_LETTER, **options))

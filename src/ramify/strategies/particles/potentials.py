"""What the particle methods share: weights from rewards, tempered resampling, and one move of a population.

Weights are unnormalised and kept as logarithms, so that their mean estimates the target's normalising constant wherever
the potentials are incremental.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError
from ramify.sampling import SamplingParams
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.trace import Cut
from ramify.strategies.resampling import IntArray, choose
from ramify.strategies.steps import StepSplitter
from ramify.strategies.votes import best_of, finished, vote

Potential = Literal["replace", "incremental"]
Select = Literal["argmax", "sample", "vote"]
LEAST_REWARD = 1e-6  # rewards are kept this far from 0 and 1, where a log-weight would be infinite


@dataclass(frozen=True)
class Population:
    """Particles after a step.

    Attributes:
        nodes: one path each; a path may stand in several slots until they are moved on.
        rewards: [nodes] what the scorer said last.
        log_weights: [nodes], unnormalised.
    """

    nodes: list[Node]
    rewards: FloatArray
    log_weights: FloatArray


def reweighted(
    potential: Potential, log_weights: FloatArray, rewards: FloatArray, before: FloatArray | None, tau: float
) -> FloatArray:
    """Log-weights after a step that took rewards from `before` (None: there were none) to `rewards`.

    "replace" forgets earlier weights: ``logit(r) / tau``. "incremental" makes the reward a twist, adding
    ``log r - log r'``: in the end a weight is proportional to the final reward. A finished particle's does not change.
    """
    now = clipped(rewards)
    if potential == "replace":
        return np.asarray((np.log(now) - np.log1p(-now)) / tau, dtype=np.float64)
    then = 0.0 if before is None else np.log(clipped(before))
    return np.asarray(log_weights + np.log(now) - then, dtype=np.float64)


def entropic_temperature(size: float, n: int, step: int, steps: int) -> float:
    """How much to flatten the weights that are resampled by: ``max(1, (n / size) * (1 - step / steps))``.

    It is 1 in the second half of the steps, and while the effective sample size is at least half of n.
    """
    if 2 * step >= steps or 2 * size >= n:
        return 1.0
    return max(1.0, n / size * (1 - step / steps))


def carried(log_weights: FloatArray, chances: FloatArray, parents: Sequence[int] | IntArray) -> FloatArray:
    """Log-weights of the chosen after they were resampled by `chances` [n], which sum to 1.

    A copy keeps ``w / (n * chance)``: the mean weight where the chances were the normalised weights, and in every case
    what leaves all expectations as they were.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        left = log_weights - np.log(len(chances) * chances)
    return np.asarray(left[np.asarray(parents)], dtype=np.float64)


async def advanced(context: Context, nodes: Sequence[Node], until: StepSplitter, scorer: Scorer) -> list[Node]:
    """One continuation of each open node by one step. The nodes themselves stay alive, to be forked again.

    Those that the budget no longer admits come back closed ("length").
    """
    drawn = [node async for node in context.samples(nodes, 1, until, scored_by=scorer)]
    cut = nodes[len(drawn) :]
    if cut:
        context.emit(Cut([context.number(node) for node in cut]))
    return [*drawn, *(replace(node, finish_reason="length", step_end=False) for node in cut)]


def selected(
    context: Context, select: Select, nodes: Sequence[Node], rewards: FloatArray, weights: FloatArray, mark: float
) -> int | None:
    """Index of the answer to give: the highest reward, a draw by weight, or the winner of a vote by weight."""
    among = finished(nodes)
    if select == "sample" and weights[among].sum() > 0:
        return among[choose(weights[among], mark)]
    if select == "vote":
        winner = vote([context.answer(nodes[i]) for i in among], weights[among], merits=rewards[among])
        if winner is not None:
            return among[winner]
    return best_of(rewards, among)


def check_rewards(scorer: Scorer, method: str) -> None:
    """Raise `ConfigError` for a scorer whose scores are no rewards from 0 to 1."""
    if scorer.range != (0.0, 1.0):
        raise ConfigError(
            f"{method} needs rewards from 0 to 1; {type(scorer).__name__} gives {scorer.range}: use scorer=prm, or "
            "scorer=step-confidence for the model's own"
        )


def clipped(rewards: FloatArray) -> FloatArray:
    """Rewards kept off 0 and 1."""
    return np.clip(rewards, LEAST_REWARD, 1 - LEAST_REWARD)


def answer_limit(context: Context, node: Node) -> int:
    """Tokens that an answer in this tree may have."""
    room = context._backend.max_model_len - len(node.prompt_tokens)
    given = context.sampling.max_tokens
    return room if given is None else min(room, given)


def lineage(node: Node) -> tuple[Node, ...]:
    """The step nodes of a path, from the first step to `node`."""
    path: list[Node] = []
    while node.parent is not None:
        path.append(node)
        node = node.parent
    return tuple(reversed(path))


def undistorted(sampling: SamplingParams) -> bool:
    """Whether tokens are drawn from the model's own distribution, at temperature 1 and with nothing cut or bent."""
    plain = SamplingParams()
    fields = (
        "temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "presence_penalty",
        "frequency_penalty", "logit_bias", "allowed_token_ids", "min_tokens", "ignore_eos",
    )  # fmt: skip
    return all(getattr(sampling, name) == getattr(plain, name) for name in fields)

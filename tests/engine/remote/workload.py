"""Work for an engine: trees with forks, step ends, stop strings, scores and cancels, and what must come of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import astuple

import numpy as np

from ramify.backends.base import Node, StepEnd
from ramify.backends.local import LocalBackend
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams

DRAW = SamplingParams(max_tokens=12, temperature=1.0, ignore_eos=True, logprobs=2)
Told = tuple[object, ...]


def told(node: Node) -> Told:
    """All that is known of a node."""
    return node.tokens, node.text, node.finish_reason, node.step_end, node.token_logprobs, node.details


async def tree(backend: LocalBackend, seed: int) -> tuple[list[Told], Told]:
    """A seeded tree, grown and cut; what its nodes say, and its meter."""
    choices = np.random.default_rng(seed)
    root = await backend.root(f"Tom has {seed} apples", BranchKey.root(seed))
    everything: list[Told] = []
    nodes = [root]
    for level in range(3):
        children: list[Node] = []
        for node in nodes:
            step = [
                StepEnd(max_tokens=3),
                StepEnd(stop=("e", "a t")),
                StepEnd(stop_token_ids=tuple(range(4, 40))),
                None,
            ]
            stops = [(), ("e",), ("ar", "zz"), ()]
            kind, n = int(choices.integers(4)), int(choices.integers(1, 4))
            params = DRAW.with_(stop=stops[int(choices.integers(4))], min_tokens=int(choices.integers(3)))
            drawn = [child async for child in backend.extend(node, params, n, step_end=step[kind])]
            children += sorted(drawn, key=lambda child: (child.key.high, child.key.low))
        if not children:
            break
        everything += map(told, children)
        (scores,) = await backend.logprobs(children[0], [(5, 6, 7)])
        everything.append(tuple(scores.tolist()))
        kept = [child for child in children if child.open and choices.random() < 0.7]
        backend.release([child for child in children if child not in kept])
        if level:
            backend.release(nodes)
        nodes = list(kept)
        if kept:
            nodes[0] = await backend.append(kept[0], (9, 11), BranchKey.root(seed, f"appended {level}"))
            backend.release(kept[:1])
    backend.release([*nodes, root])
    return everything, astuple(root.usage)


async def cancelled(backend: LocalBackend, seed: int) -> None:
    """Extensions that nobody waits for: broken off at the first node, by a cancel, and before they are known."""
    root = await backend.root(f"Ann has {seed} pears", BranchKey.root(seed))
    async with aclosing(backend.extend(root, DRAW.with_(max_tokens=2), 3)) as nodes:  # type: ignore[type-var]
        async for _ in nodes:
            break

    async def wait() -> None:
        async for _ in backend.extend(root, DRAW.with_(max_tokens=200), 3, first_child=10):
            pass

    for delay_s in (0.0, 0.001, 0.03):
        task = asyncio.create_task(wait())
        await asyncio.sleep(delay_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    backend.release([root])

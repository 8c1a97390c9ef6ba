"""Putting the rest of one path behind the beginning of another, for ancestor sampling.

`behind` is where the rest begins: the node of the reference after as many steps as the other path has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ramify.backends.base import FloatArray, Node
from ramify.strategies.kernel.context import Context


def fits(prefix: Node, behind: Node, final: Node, limit: int) -> bool:
    """Whether the rest of a path can stand behind `prefix` within `limit` tokens of answer."""
    return prefix.num_tokens + final.num_tokens - behind.num_tokens < limit


async def tail_logprobs(context: Context, prefixes: Sequence[Node], behind: Node, final: Node) -> FloatArray:
    """Log-probability of the rest of a path behind each prefix, [prefixes]."""
    rest = final.tokens[behind.num_tokens :]
    return np.array([(await context.logprobs(prefix, [rest]))[0].sum() for prefix in prefixes])


async def splice(context: Context, prefix: Node, reference: Sequence[Node], step: int) -> list[Node]:
    """The nodes of the reference after its first `step`, made anew behind `prefix`; the last one ends as it did."""
    nodes: list[Node] = []
    for above, node in zip(reference[step - 1 :], reference[step:], strict=False):
        prefix = await context.append(prefix, node.tokens[above.num_tokens :])
        nodes.append(prefix)
    behind, final = reference[step - 1], reference[-1]
    start = nodes[0].parent
    assert start is not None
    text = start.text + final.text[len(behind.text) :]
    nodes[-1] = replace(nodes[-1], text=text, finish_reason=final.finish_reason, step_end=False)
    return nodes

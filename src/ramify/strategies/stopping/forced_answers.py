"""Asking an unfinished chain for its answer: by a probe that is thrown away, or by cutting the chain for good.

Both put a suffix behind the text so far (say ``"\\n#### "``) and draw a few tokens, to the end of the line at most.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ramify.backends.base import Node
from ramify.errors import ConfigError, PromptTooLongError
from ramify.sampling import TokenIds
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.steps import StepSplitter

ANSWER_SUFFIX = "\n#### "
"""Leads into a marked answer; reasoning models may want ``"\\n</think>\\n\\\\boxed{"``."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a chain would answer now.

    Attributes:
        suffix: what was put behind the chain.
        text: what was drawn behind the suffix.
        answer: the key of the two together; None if nothing was drawn or no answer can be read.
        tokens: ids of suffix and text, where the backend has ids.
    """

    suffix: str
    text: str
    answer: Hashable | None
    tokens: TokenIds = ()

    @property
    def behind(self) -> str | TokenIds:
        """What stood behind the chain, in the very tokens that were drawn where they are known."""
        return self.tokens or self.suffix + self.text


async def probe_answers(
    context: Context, nodes: Sequence[Node], suffix: str, max_tokens: int, **sampling: Any
) -> list[Probe]:
    """Ask each node for its answer in the purse "probe"; the nodes stay as they are."""
    probes: dict[int, Probe] = {}
    fitted = [fitting(suffix, node.text) for node in nodes]
    for asked in dict.fromkeys(fitted):
        places = [i for i, own in enumerate(fitted) if own == asked]
        drawn = await _probed(context, [nodes[i] for i in places], asked, max_tokens, **sampling)
        for place, node in zip(places, drawn, strict=True):
            text = "" if node is None else node.text
            tokens = () if node is None else node.tokens[len(nodes[place].tokens) :]
            probes[place] = Probe(asked, text, context.key(asked + text) if text.strip() else None, tokens)
    return [probes[i] for i in range(len(nodes))]


async def force_answers(
    context: Context, nodes: Sequence[Node], suffix: str, max_tokens: int, n: int = 1, scored_by: Scorer | None = None
) -> list[Node]:
    """Cut each node here and draw `n` answers behind the suffix; the new nodes are finished, the cut ones stay open.

    Fewer than asked for where the budget ends.

    Raises:
        BudgetExhausted: not even one could be drawn.
    """
    cut = [await behind(context, node, suffix, max_tokens) for node in nodes]
    drawn = await context.extend(cut, n, StepSplitter(stop=("\n",), max_tokens=max_tokens), scored_by=scored_by)
    context.retire(cut)
    return [closed(node) for node in drawn]


async def behind(context: Context, node: Node, suffix: str, room: int, keep: int | None = None) -> Node:
    """An open node with the suffix behind `node`, or behind its first `keep` tokens.

    At the end of the model's context the end of the answer gives way, so that `room` tokens can be drawn behind it.
    """
    asked = fitting(suffix, node.text)
    try:
        return await context.append(node, asked, keep)
    except PromptTooLongError:
        return await context.append(node, asked, max(0, len(node.tokens) - len(context.encode(asked)) - room))


def closed(node: Node) -> Node:
    """The node as an answer that nothing follows: whole if it ends a line, else cut."""
    if not node.open:
        return node
    return replace(node, finish_reason="stop" if node.text.endswith("\n") else "length", step_end=False)


def fitting(suffix: str, text: str) -> str:
    """The suffix without those line breaks at its beginning that the text ends with already."""
    there = len(text) - len(text.rstrip("\n"))
    leading = len(suffix) - len(suffix.lstrip("\n"))
    return suffix[min(there, leading) :]


def check_asking(suffix: str, **tokens: int) -> None:
    """Hold a method's options to what can be asked.

    Raises:
        ConfigError: an empty suffix, or no token for the answer.
    """
    if not suffix.strip():
        raise ConfigError(f"suffix={suffix!r} does not work: it has to lead into an answer, such as {ANSWER_SUFFIX!r}")
    for name, count in tokens.items():
        if count < 1:
            raise ConfigError(f"{name}={count} does not work: an answer takes at least one token")


async def _probed(
    context: Context, nodes: Sequence[Node], suffix: str, max_tokens: int, **sampling: Any
) -> list[Node | None]:
    """What each node says behind the suffix; None where the context has no room for asking."""
    try:
        return list(await context.probe(nodes, suffix, max_tokens, stop=("\n",), **sampling))
    except PromptTooLongError:
        if len(nodes) == 1:
            return [None]
        return [seen for node in nodes for seen in await _probed(context, [node], suffix, max_tokens, **sampling)]

"""What the methods of `length/` share: thinking up to a marker or a limit, and answers forced behind it.

All of it works on ids: text that is put in is encoded by itself and appended to the branch, never re-tokenised with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError, RequestError
from ramify.sampling import TokenIds
from ramify.strategies.kernel.context import Context
from ramify.strategies.registry import Method
from ramify.strategies.spec_text import SpecText
from ramify.strategies.steps import StepSplitter

NO_THINKING = (
    "neither the prompt nor the model opened thinking with {marker!r}: a model that was not trained to think in marks "
    "may get worse when its thinking is cut or drawn out"
)


@dataclass(frozen=True)
class Forcing(Method):
    """Base of the methods that control how long a model thinks.

    Attributes:
        start_think: what opens thinking, in the prompt or by the model; empty where answers begin with thinking.
        end_think: what ends thinking, as the model writes it.
        answer_prefix: forced behind `end_think` where thinking is cut.
        answer_tokens: cap of the answer behind the thinking.
    """

    start_think: SpecText = SpecText.of("<think>")
    end_think: SpecText = SpecText.of("</think>")
    answer_prefix: SpecText = SpecText.of("\n\nFinal Answer:")
    answer_tokens: int = 256

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, str) and isinstance(getattr(type(self), name, None), SpecText):
                object.__setattr__(self, name, SpecText.of(value))
        if not self.end_think:
            raise ConfigError("end_think='' does not work: give what ends thinking, </think> say")
        self._at_least_one("answer_tokens")

    def _at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: it must be 1 or more")

    @property
    def requires(self) -> frozenset[Capability]:
        """Branches are continued behind known ids."""
        return frozenset({Capability.CONTINUE, Capability.TOKENS})

    @property
    def forced(self) -> str:
        """What cuts thinking and begins the answer."""
        return str.__add__(self.end_think, self.answer_prefix)

    def thinking_left(self, context: Context, node: Node, max_think: int) -> int:
        """Tokens that thinking may still take, so that the answer stays within the budget; 0 or less for none."""
        left = max_think - node.num_tokens
        if context.budget.tokens is None:
            return left
        unspent = context.budget.tokens - self.reserve - context.ledger().total_tokens
        return min(left, unspent - self.answer_tokens)

    async def think(self, context: Context, node: Node, limit: int) -> Node:
        """Go on thinking, to the end marker, the end of the whole answer, or for `limit` tokens.

        Where the text already ends with the marker's beginning, also to the rest of it (which may turn out to be none).
        """
        begun = max(k for k in range(len(self.end_think)) if node.text.endswith(self.end_think[:k]))
        markers = dict.fromkeys((self.end_think[:], self.end_think[begun:]))
        until = StepSplitter(tuple(markers), self._end_ids(context), limit)
        return (await context.extend([node], until=until))[0]

    def has_ended(self, context: Context, node: Node) -> bool:
        """Whether thinking came to its end by itself: the marker was written, or the whole answer ended."""
        if node.parent is None:
            return False
        by_id = node.tokens[-1:] in [(token,) for token in self._end_ids(context)]
        return by_id or self._marker_at(node) >= 0 or node.finish_reason == "stop"

    async def unended(self, context: Context, node: Node, text: str) -> Node:
        """`text` in the place of the end of `node`'s thinking (of the marker, or of the end of the sequence)."""
        parent = node.parent
        assert parent is not None
        found = self._marker_at(node)
        end = len(node.text) if found < 0 else found
        for keep in range(node.num_tokens - 1, parent.num_tokens - 1, -1):
            added = await context.append(node, text, keep=keep)
            if keep == parent.num_tokens or len(added.text) - len(text) <= end:
                break
            context.retire([added])  # a part of the marker was left
        context.retire([node])
        return added

    async def cut(self, context: Context, node: Node) -> Node:
        """`node` with the answer forced to begin; where the context or `max_tokens` is full, from further back."""
        ids = context.encode(self.forced)
        full = node.finish_reason == "length"
        keep = max(0, node.num_tokens - len(ids) - self.answer_tokens) if full else None
        forced = await context.append(node, ids, keep=keep)
        context.retire([node])
        return forced

    async def answer(self, context: Context, node: Node) -> Node:
        """The answer behind the thinking, under its own cap."""
        limit = node.num_tokens + self.answer_tokens
        whole = context.sampling.max_tokens
        drawn = await context.extend([node], max_tokens=limit if whole is None else min(limit, whole))
        context.retire([node])
        return drawn[0]

    async def opened_by_prompt(self, context: Context) -> bool:
        """Whether the prompt ends inside thinking (chat templates of thinking models often open it)."""
        if not self.start_think:
            return True
        prompt = (await context.root()).prompt_tokens
        opened = _last(prompt, _ids(context, self.start_think))
        return opened is not None and opened >= (_last(prompt, _ids(context, self.end_think)) or 0)

    async def warn_without_marks(self, context: Context, node: Node) -> None:
        """Note it if nobody has opened thinking."""
        if self.start_think not in node.text and not await self.opened_by_prompt(context):
            context.note(NO_THINKING.format(marker=str.__str__(self.start_think)))

    def _marker_at(self, node: Node) -> int:
        """Where the end marker stands in the last extension (or begins shortly before it); -1 if nowhere."""
        assert node.parent is not None
        return node.text.find(self.end_think, max(0, len(node.parent.text) - len(self.end_think) + 1))

    def _end_ids(self, context: Context) -> TokenIds:
        """The end marker's id where it is one token: its text may then be left out as that of a special token."""
        ids = _ids(context, self.end_think)
        return ids if len(ids) == 1 else ()


def _ids(context: Context, text: str) -> TokenIds:
    try:
        return context.encode(text)
    except RequestError:  # a vocabulary that cannot write it, and so never will
        return ()


def _last(tokens: TokenIds, part: TokenIds) -> int | None:
    """Where `part` occurs last in `tokens`."""
    if not part:
        return None
    starts = range(len(tokens) - len(part), -1, -1)
    return next((start for start in starts if tokens[start : start + len(part)] == part), None)

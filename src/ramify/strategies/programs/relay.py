"""`Relay`: one answer that several models write by turns, each with the whole of it in a tree of its own.

Whoever's turn it is gets to read what the others have written since its last turn. Where the prompt has the same ids
for all models they share a vocabulary, and ids are handed on as they were drawn; else text is, and encoded anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ramify.backends.base import Node
from ramify.errors import PromptTooLongError
from ramify.sampling import TokenIds
from ramify.strategies.kernel.context import Context
from ramify.strategies.steps import StepSplitter

FULL = "the context of one of the models was full: the answer is cut there"


class Relay:
    """The answer so far.

    Args:
        context: of the run.
        roots: the problem's root under each model.

    Attributes:
        latest: the whole answer so far, in the tree of the model that wrote its end.
    """

    def __init__(self, context: Context, roots: dict[str | None, Node]) -> None:
        self.latest = next(iter(roots.values()))
        self._context = context
        self._at = dict(roots)
        self._shown: dict[str | None, Node] = {}
        self._share_ids = len({root.prompt_tokens for root in roots.values()}) == 1

    @classmethod
    async def begin(cls, context: Context, *models: str | None) -> Relay:
        """An empty answer. Raises `RequestError` if the backend lacks one of the models."""
        return cls(context, {model: await context.root(model) for model in models})

    async def draft(self, model: str | None, until: StepSplitter, **sampling: Any) -> Node:
        """How a model would go on: no part of the answer until it is accepted.

        Where the budget or a context has no room for another token it is the answer so far, closed ("length").
        """
        drawn: list[Node] = []
        try:
            here = await self.caught_up(model)
            drawn = [node async for node in self._context.samples([here], 1, until, **sampling)]
        except PromptTooLongError:
            self._context.note(FULL)
        return drawn[0] if drawn else replace(self.latest, finish_reason="length", step_end=False, details=())

    async def caught_up(self, model: str | None) -> Node:
        """The answer so far in the tree of a model.

        Raises:
            PromptTooLongError: its context has no room for it.
        """
        here = self._at[model]
        behind = self.behind(here, self.latest)
        if behind:
            self._at[model] = await self._context.append(here, behind)
            self._context.retire([here])
        return self._at[model]

    async def show(self, draft: Node, model: str | None) -> Node:
        """The answer with a draft behind it as another model reads it, to judge it; open, without an end of sequence.

        Raises:
            PromptTooLongError: its context has no room for it.
        """
        here = await self.caught_up(model)
        ended = draft.finish_reason == "stop"  # its ids may end with a token that is no text: it is shown as text
        behind = draft.text[len(here.text) :] if ended else self.behind(here, draft)
        if not behind:
            return here
        self._shown[model] = await self._context.append(here, behind)
        return self._shown[model]

    def behind(self, node: Node, whole: Node) -> TokenIds | str:
        """What `whole` has behind `node`, in the form in which it is handed on."""
        return whole.tokens[len(node.tokens) :] if self._share_ids else whole.text[len(node.text) :]

    def accept(self, draft: Node) -> None:
        """The draft is the answer so far."""
        for model, node in (*self._shown.items(), (draft.model, draft)):
            if node.key != self._at[model].key:
                self._context.retire([self._at[model]])
                self._at[model] = node
        self._shown.clear()
        self.latest = draft
        self._context.report([draft], 0)

    def reject(self, draft: Node) -> None:
        """The draft is thrown away."""
        self._context.retire([draft, *self._shown.values()])
        self._shown.clear()

    async def accept_first(self, draft: Node, count: int) -> None:
        """Only the first `count` tokens of the draft are accepted."""
        assert draft.parent is not None
        if count > 0:
            end = draft.parent.num_tokens + count  # its last token is forced behind the others: nothing is drawn for it
            part = await self._context.append(draft, draft.tokens[end - 1 : end], keep=end - 1)
            self.accept(part)
        self._context.retire([draft])

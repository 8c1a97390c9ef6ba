"""A call of a model on a scorer's behalf: its own tree and meter, paid for by the answer that is judged.

What is drawn counts as `verifier` in the ledger, given words whose log-probabilities are read as `probe`, and what the
model reads as `prompt`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ramify.backends.base import Backend, Node, Usage
from ramify.sampling import Prompt, SamplingParams, TokenIds

T = TypeVar("T")


@dataclass(slots=True)
class VerifierCall:
    """A tree that a scorer grows and throws away.

    Attributes:
        backend: holds the model.
        root: of the prompt.
        meter: what was spent.
    """

    backend: Backend
    root: Node
    meter: Usage
    _nodes: list[Node] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """What the budget is charged so far: drawn tokens and read words."""
        return self.meter.generated + self.meter.probe

    def room(self) -> int:
        """Tokens that the context holds behind the prompt."""
        return self.backend.context_length(self.root.model) - len(self.root.prompt_tokens)

    async def draw(self, params: SamplingParams, n: int = 1, first: int = 0) -> list[Node]:
        """`n` replies in the order of their indices, which begin at `first`."""
        async for reply in self.backend.extend(self.root, params, n, first):
            self._nodes.append(reply)
        order = {self.root.key.child(first + index): index for index in range(n)}
        return sorted((node for node in self._nodes if node.key in order), key=lambda node: order[node.key])

    async def append(self, node: Node, tokens: TokenIds, keep: int) -> Node:
        """Known tokens behind the first `keep` tokens of a reply."""
        added = await self.backend.append(node, tokens, node.key.named("verdict"), keep)
        self._nodes.append(added)
        return added

    def release(self) -> None:
        """Free the memory of all of it."""
        self.backend.release([*reversed(self._nodes), self.root])


@asynccontextmanager
async def verifier_call(
    payer: Node, name: str, prompt: Prompt, backend: Backend, model: str | None
) -> AsyncIterator[VerifierCall]:
    """Ask a model about an answer; when it is left, all is freed and the meter of the payer's tree has the count.

    Args:
        payer: the answer that is judged; the draws depend on its key and on `name`.
        name: of the scorer.
        prompt: what the model is asked.
        backend: holds the model.
        model: its name; None for the main one.
    """
    meter = Usage()
    call = VerifierCall(backend, await backend.root(prompt, payer.key.named(name), meter, model), meter)
    try:
        yield call
    finally:
        call.release()
        spent = Usage(
            prompt=meter.prompt,
            prompt_cached=meter.prompt_cached,
            verifier=meter.generated,
            probe=meter.probe,
            calls=meter.calls,
            lost=meter.lost,
        )
        payer.usage.add(spent)


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order. If one fails the others come to their end before its error is raised, so that none is left."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if not isinstance(result, BaseException)]

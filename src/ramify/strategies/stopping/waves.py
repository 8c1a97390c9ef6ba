"""Drawing answers a few at a time, so that a stop rule can end it: in launch order, and the same ones as all at once.

Branch i below the root is the same however the draws are grouped, so what an early stop has seen is the beginning of
what self-consistency would have drawn under this seed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from ramify.backends.base import Capability, Node
from ramify.scoring.logprob import mean_logprob
from ramify.strategies.kernel.context import Context
from ramify.strategies.stopping.rules import OnlineVote


class Waves:
    """Up to `n` answers from the root, launched in waves.

    Args:
        context: of the run.
        n: answers at most.
        size: how many to launch in the next wave (at least 1), asked when the last one is done.
        options: for `Context.samples`.
    """

    def __init__(self, context: Context, n: int, size: Callable[[], int], **options: Any) -> None:
        self._context = context
        self._n = n
        self._size = size
        self._options = options
        self._launched = 0
        self._received = 0

    async def answers(self) -> AsyncGenerator[Node, None]:
        """The answers in launch order; ends after `n`, or where the budget ends. Close it to cancel what still runs."""
        root = await self._context.root()
        while self._launched < self._n:
            count = min(max(1, self._size()), self._n - self._launched)
            self._launched += count
            async with aclosing(self._context.samples([root], count, **self._options)) as wave:
                async for node in wave:
                    self._received += 1
                    yield node
            if not self.between:
                return  # the budget refused the rest

    def skip_rest(self) -> None:
        """Tell the ledger that what was never launched is not going to be."""
        self._context.skip(self._n - self._launched)

    @property
    def between(self) -> bool:
        """Whether a wave has come in whole, so that nothing runs."""
        return self._received == self._launched


async def vote_until(
    answers: AsyncGenerator[Node, None],
    online: OnlineVote,
    context: Context,
    may_stop: Callable[[], bool] = lambda: True,
) -> tuple[list[Node], bool]:
    """Let answers vote as they come until the rule is satisfied; what still runs then is cancelled.

    Args:
        answers: where they come from.
        online: the vote, and when it ends.
        context: of the run; it is told the best answer so far.
        may_stop: whether it may end here.

    Returns:
        The answers seen, and whether the rule ended it.
    """
    seen: list[Node] = []
    async with aclosing(answers):
        async for node in answers:
            seen.append(node)
            satisfied = online.add(context.answer(node), merit=merit(node))
            context.report(seen, standing(online))
            if satisfied and may_stop():
                return seen, True
    return seen, False


def merit(node: Node) -> float:
    """How well a sample stands for its answer: its mean log-probability, as in self-consistency; 0 where unknown."""
    return 0.0 if node.token_logprobs is None else mean_logprob(node)


def standing(online: OnlineVote) -> int | None:
    """Index of the winner; the first sample while none has an answer, None without samples."""
    winner = online.result()
    return 0 if winner is None and online.poll.answers else winner


def with_logprobs(context: Context) -> dict[str, Any]:
    """Sampling options that bring the log-probabilities of drawn tokens, where the backend gives them."""
    return {"logprobs": 0} if Capability.LOGPROBS in context.capabilities else {}

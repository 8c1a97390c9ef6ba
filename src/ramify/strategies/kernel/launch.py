"""Launching branches: admits them to the purse in order, runs them together, hands them out in launch order.

Nothing here depends on which branch ends first: see `purse` for the allowance of a branch, and `Launch.nodes` for the
order of what comes back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ramify.backends.base import Backend, Node, StepEnd, Usage
from ramify.errors import EngineError
from ramify.sampling import SamplingParams
from ramify.scoring.scorers import Reading, Scorer
from ramify.strategies.kernel.budget import Prices
from ramify.strategies.kernel.purse import NOTHING, Charge, Hold, Purse


@dataclass(frozen=True, slots=True)
class Wish:
    """One branch that a method wants drawn.

    Attributes:
        parent: the open node to continue.
        child: the branch's index below it.
        params: how to draw; ``max_tokens`` is what the answer's own limits leave.
        step_end: where it may stop and stay open.
        scorer: if given, the tokens to score the new node are reserved too.
        read: how many of the parent's tokens it has read.
        opening: what it takes besides if nothing of the tree was scored before; borne by one branch of a batch.
    """

    parent: Node
    child: int
    params: SamplingParams
    step_end: StepEnd | None = None
    scorer: Scorer | None = None
    read: int = 0
    opening: Charge = NOTHING

    @property
    def room(self) -> int:
        """Tokens it may draw at most."""
        limits = [self.params.max_tokens, None if self.step_end is None else self.step_end.max_tokens]
        return min(limit for limit in limits if limit is not None)

    def drawing(self, new_tokens: int, prices: Prices) -> Charge:
        """What drawing so many tokens costs, priced as if nothing of its context were cached."""
        context = len(self.parent.prompt_tokens) + self.parent.num_tokens
        cost = prices.of(self.parent.model).cost(Usage(prompt=context, generated=new_tokens))
        return Charge(new_tokens, cost)

    def scoring(self, new_tokens: int, prices: Prices) -> Charge:
        """Upper bound of what scoring it costs when it has drawn so many."""
        if self.scorer is None:
            return NOTHING
        tokens = self.scorer.cost(self.reading(new_tokens))
        return Charge(tokens, prices.scoring(tokens))

    def cost(self, new_tokens: int, prices: Prices) -> Charge:
        """All of it: what has to be reserved."""
        return self.drawing(new_tokens, prices) + self.scoring(new_tokens, prices) + self.opening

    def reading(self, new_tokens: int, first: bool = False) -> Reading:
        """What the scorer will have to read."""
        tokens = self.parent.num_tokens + new_tokens
        return Reading(len(self.parent.prompt_tokens), tokens, tokens - self.read, first)

    def shares_call_with(self, other: Wish) -> bool:
        """Whether `other`, admitted next, can be drawn in the same call of the backend."""
        same = (self.parent.key, self.params, self.step_end) == (other.parent.key, other.params, other.step_end)
        return same and self.child + 1 == other.child


Outcome = tuple[Node, Wish, Charge]
"""A new node, what it was drawn for, and what stays reserved to score it (without the opening)."""


@dataclass(slots=True, eq=False)
class _Branch:
    wish: Wish
    hold: Hold
    done: asyncio.Future[Outcome | None]


class Launch:
    """A batch of wishes on its way; an async context manager that cancels what still runs when it is left.

    Args:
        drawn: called with each new node as it ends, in any order.
    """

    def __init__(
        self, wishes: Sequence[Wish], purse: Purse, prices: Prices, backend: Backend, drawn: Callable[[Node], None]
    ) -> None:
        self.short = False
        """Whether the budget refused a branch or cut one off."""
        self.delivered = 0
        """Nodes handed out."""
        self.delivered_tokens = 0
        """Tokens that those drew."""
        self._purse = purse
        self._prices = prices
        self._backend = backend
        self._drawn = drawn
        loop = asyncio.get_running_loop()
        self._waiting = deque((wish, loop.create_future()) for wish in wishes)
        self._futures: list[asyncio.Future[Outcome | None]] = [future for _, future in self._waiting]
        self._calls: set[asyncio.Task[None]] = set()
        self._admission = asyncio.create_task(self._admit())

    async def __aenter__(self) -> Launch:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def nodes(self) -> AsyncIterator[Outcome]:
        """The new nodes in launch order; ends at the first that the budget refused."""
        for future in self._futures:
            outcome = await future
            if outcome is None:
                return
            self._deliver(outcome)
            yield outcome

    async def as_finished(self) -> AsyncIterator[Outcome]:
        """The new nodes as they end, which depends on timing; those that the budget refused are left out."""
        for earliest in asyncio.as_completed(self._futures):
            outcome = await earliest
            if outcome is not None:
                self._deliver(outcome)
                yield outcome

    def _deliver(self, outcome: Outcome) -> None:
        self.delivered += 1
        self.delivered_tokens += outcome[0].num_new_tokens

    async def close(self) -> None:
        """Cancel what still runs and wait until it has stopped."""
        tasks = [self._admission, *self._calls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for future in self._futures:
            if future.done() and not future.cancelled():
                future.exception()  # seen: asyncio shall not report it a second time
            future.cancel()

    async def _admit(self) -> None:
        """Admit the wishes in order; those that surely fit start together, another when its turn is clear."""
        try:
            async with self._purse.turn:
                self._purse.begin()
                while self._waiting:
                    group = self._admit_sure() or await self._admit_next()
                    if not group:
                        self.short = True
                        break
                    self._start(group)
            for _, future in self._waiting:
                _settle(future, None)
        except Exception as error:
            for _, future in self._waiting:
                _fail(future, error)

    def _admit_sure(self) -> list[_Branch]:
        """The next wishes that one call can serve and that fit whatever the running branches turn out to cost."""
        group: list[_Branch] = []
        while self._waiting and (not group or group[-1].wish.shares_call_with(self._waiting[0][0])):
            wish, future = self._waiting[0]
            hold = self._purse.try_whole(self._cost_of(wish), wish.room)
            if hold is None:
                break
            group.append(_Branch(wish, hold, future))
            self._waiting.popleft()
        return group

    async def _admit_next(self) -> list[_Branch]:
        """The next wish with what the branches before it leave; empty if that is nothing."""
        wish, future = self._waiting[0]
        hold = await self._purse.admit(self._cost_of(wish), wish.room)
        if hold is None:
            return []
        self._waiting.popleft()
        return [_Branch(wish, hold, future)]

    def _cost_of(self, wish: Wish) -> Callable[[int], Charge]:
        return lambda new_tokens: wish.cost(new_tokens, self._prices)

    def _start(self, group: list[_Branch]) -> None:
        task = asyncio.create_task(self._draw(group))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _draw(self, group: list[_Branch]) -> None:
        """One call of the backend: continuations of one node with one allowance."""
        wish, allowance = group[0].wish, group[0].hold.allowance
        params = wish.params if allowance == wish.room else limited(wish.params, allowance)
        branches = {wish.parent.key.child(branch.wish.child): branch for branch in group}
        stream = self._backend.extend(wish.parent, params, len(group), wish.child, wish.step_end)
        try:
            async with aclosing(stream):
                async for node in stream:
                    self._finish(branches.pop(node.key), node)
            if branches:
                raise EngineError(f"{type(self._backend).__name__} gave {len(branches)} branches too few")
        except Exception as error:
            for branch in branches.values():
                _fail(branch.done, error)
        finally:
            for branch in branches.values():
                # What a cancelled branch had run depends on timing; its whole reservation does not.
                self._purse.settle(branch.hold, branch.hold.charge)

    def _finish(self, branch: _Branch, node: Node) -> None:
        self._drawn(node)
        wish, allowance = branch.wish, branch.hold.allowance
        if allowance < wish.room and node.finish_reason == "length" and node.num_new_tokens >= allowance:
            self.short = True
        self._purse.settle(branch.hold, wish.cost(node.num_new_tokens, self._prices))
        _settle(branch.done, (node, wish, wish.scoring(node.num_new_tokens, self._prices)))


# Cancelling whoever waits for a future cancels the future too, before what it waits for has heard of it.
def _settle(future: asyncio.Future[Outcome | None], outcome: Outcome | None) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: asyncio.Future[Outcome | None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def limited(params: SamplingParams, max_tokens: int) -> SamplingParams:
    """The parameters with another token limit (and a `min_tokens` that it allows)."""
    return params.with_(max_tokens=max_tokens, min_tokens=min(params.min_tokens, max_tokens))

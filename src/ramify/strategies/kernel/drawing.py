"""Drawing and paying: runs batches of wishes against the purse, takes other work out of it, counts what was spent."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from ramify.backends.base import Backend, Node, Usage
from ramify.errors import BudgetExhausted, EngineError
from ramify.strategies.kernel.branches import Branches
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.launch import Launch, Wish
from ramify.strategies.kernel.ledger import Ledger, Meter
from ramify.strategies.kernel.purse import NOTHING, Charge, Purse
from ramify.strategies.kernel.result import Candidate, path_tokens

MAIN = "generated"


class Drawing:
    """The spending of one run.

    Args:
        backend: where tokens come from.
        branches: told of each branch that ends.
        budget: the hard cap.
        reserve: tokens of it held back until `release`.

    Attributes:
        purse: what is left.
        meters: tokens by purse and model; ``generated`` is the method's own trees.
        exhausted: whether the budget has refused or cut a branch.
        num_skipped: answers that could have been drawn and will not be.
        given_up: lengths of the open branches that were dropped and of the parents of cancelled continuations.
    """

    def __init__(self, backend: Backend, branches: Branches, budget: Budget, reserve: int) -> None:
        self.purse = Purse(budget, reserve)
        self.meters: dict[Meter, Usage] = {(MAIN, None): Usage()}
        self.exhausted = False
        self.num_skipped = 0
        self.given_up: list[int] = []
        self._backend = backend
        self._branches = branches
        self._budget = budget
        self._reserve = reserve
        self._launches: set[Launch] = set()
        self._num_handed_out = 0
        self._started_s = time.monotonic()

    def meter(self, purse: str, model: str | None = None) -> Usage:
        """The meter of a purse and a model."""
        return self.meters.setdefault((purse, model), Usage())

    @asynccontextmanager
    async def launch(self, wishes: list[Wish]) -> AsyncGenerator[Launch, None]:
        """A batch on its way; what still runs when it is left is cancelled."""
        async with Launch(wishes, self.purse, self._budget.prices, self._backend, self._branches.drawn) as launch:
            self._launches.add(launch)
            try:
                yield launch
            finally:
                self._launches.discard(launch)
                self._num_handed_out += launch.delivered_tokens
                if not launch.short:
                    self.given_up += [wish.parent.num_tokens for wish in wishes[launch.delivered :]]
        self.exhausted |= launch.short

    async def all(self, wishes: list[Wish]) -> list[Node]:
        """What the budget admits of some wishes, in launch order."""
        async with self.launch(wishes) as launch:
            return [node async for node, _, _ in launch.nodes()]

    async def spend(self, tokens: int, usage: Usage, model: str | None = None) -> None:
        """Take work out of the purse before it is run: so many tokens, and the model's price of `usage`.

        Raises:
            BudgetExhausted: the budget does not hold it.
        """
        charge = Charge(tokens, self._budget.prices.of(model).cost(usage))
        if charge != NOTHING and not await self.purse.pay(charge):
            raise BudgetExhausted(f"{tokens} more tokens are not left of the budget: {self._budget}")

    def release(self) -> None:
        """What was held back can be spent from now on."""
        self.purse.release(self._reserve)

    def ledger(self, candidates: Sequence[Candidate], finished: Sequence[Node]) -> Ledger:
        """What has been spent so far, given what the choice is made among and the answers that came to their end."""
        main = [meter for (purse, _), meter in self.meters.items() if purse == MAIN]
        own = [candidate for candidate in candidates if any(candidate.node.usage is meter for meter in main)]
        on_paths = path_tokens(own)
        return Ledger.of(
            self.meters,
            self._budget.prices,
            discarded=max(0, sum(meter.generated for meter in main) - on_paths),
            shared=max(0, sum(candidate.node.num_tokens for candidate in own) - on_paths),
            saved=self._saved([node.num_tokens for node in finished if node.finish_reason == "stop"]),
            wall_s=time.monotonic() - self._started_s,
        )

    def check(self, ledger: Ledger) -> None:
        """Hold the run to its laws: branches do not add up to more than was metered, and the budget was kept.

        Raises:
            EngineError: a law is broken; either is a fault of the backend or of the kernel.
        """
        drawn, metered = self._branches.num_drawn, sum(meter.generated for meter in self.meters.values())
        if drawn > metered:
            raise EngineError(f"branches have {drawn} tokens, but {metered} were metered: a count is wrong")
        total, limit = ledger.total_tokens, self._budget.tokens
        if limit is not None and total > limit:
            raise EngineError(f"{total} tokens were spent of a budget of {limit}: a reservation was too small")

    async def close(self) -> None:
        """Cancel what still runs."""
        for launch in list(self._launches):
            await launch.close()

    def _saved(self, lengths: Sequence[int]) -> int:
        """What giving up and skipping spared, at the mean length of the finished answers."""
        if not lengths:
            return 0
        length = sum(lengths) / len(lengths)
        cancelled = sum(meter.generated for meter in self.meters.values()) - self._num_handed_out
        spared = self.num_skipped * length + sum(max(0.0, length - had) for had in self.given_up)
        return max(0, round(spared) - cancelled)

"""The purse: reservations against a budget, made before anything is spent, in launch order.

The rule that keeps results independent of timing: branch i may draw ``min(wanted, what the branches launched before it
leave)``. It starts at once where even the worst case of those leaves it enough, and else waits until they have ended;
so every branch's allowance is that of running one after the other, whatever really ran first.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from ramify.strategies.kernel.budget import Budget

_ROUNDING = 1e-12  # dollars are floats: this relative excess is rounding and no overspending


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens and dollars of a piece of work."""

    tokens: int = 0
    dollars: float = 0.0

    def __add__(self, other: Charge) -> Charge:
        return Charge(self.tokens + other.tokens, self.dollars + other.dollars)

    def __sub__(self, other: Charge) -> Charge:
        return Charge(self.tokens - other.tokens, self.dollars - other.dollars)


NOTHING = Charge()


@dataclass(slots=True, eq=False)
class Hold:
    """One reservation: `allowance` tokens may be drawn; `charge` is what it binds in the purse now."""

    allowance: int
    charge: Charge
    running: bool = True


class Purse:
    """What is left of a budget in tokens and dollars.

    Args:
        budget: all there is.
        reserve: tokens of it that are held back until `release`.
    """

    def __init__(self, budget: Budget, reserve: int = 0) -> None:
        self.turn = asyncio.Lock()
        """Held while a batch of branches is admitted, so that batches are served in the order of their calls."""
        self._tokens = math.inf if budget.tokens is None else budget.tokens - reserve
        self._dollars = math.inf if budget.dollars is None else budget.dollars * (1 + _ROUNDING)
        self._bound = Charge()
        self._running = 0
        self._refunds = Charge()
        self._settled = asyncio.Event()

    def begin(self) -> None:
        """Open a batch (with `turn` held): what scoring gave back since the last one counts from here on."""
        self._bound -= self._refunds
        self._refunds = Charge()

    def try_whole(self, cost: Callable[[int], Charge], wanted: int) -> Hold | None:
        """Reserve `wanted` tokens if they are sure to be there, without waiting."""
        charge = cost(wanted)
        return self._hold(wanted, charge) if self._fits(charge) else None

    async def admit(self, cost: Callable[[int], Charge], wanted: int) -> Hold | None:
        """Reserve as many tokens as can be had, up to `wanted`; None if not even one can.

        `cost` gives the charge of drawing so many tokens and all that must follow; it grows with its argument.
        """
        while True:
            hold = self.try_whole(cost, wanted)
            if hold is not None:
                return hold
            if self._running == 0:
                allowance = self._affordable(cost, wanted)
                return self._hold(allowance, cost(allowance)) if allowance else None
            self._settled.clear()
            await self._settled.wait()

    async def pay(self, charge: Charge) -> bool:
        """Take a charge that is known beforehand, as a batch of its own; False if it does not fit."""
        async with self.turn:
            self.begin()
            hold = await self.admit(lambda whole: charge if whole else NOTHING, 1)
        if hold is None:
            return False
        self.settle(hold, charge)
        return True

    def settle(self, hold: Hold, charge: Charge) -> None:
        """The branch has ended: from now on it binds `charge` (never more than it held)."""
        self._bound += charge - hold.charge
        hold.charge = charge
        if hold.running:
            hold.running = False
            self._running -= 1
            self._settled.set()

    def release(self, reserve: int) -> None:
        """Tokens that were held back can be spent from now on."""
        self._tokens += reserve

    def binds(self) -> Charge:
        """What is spent or reserved now."""
        return self._bound

    def refund(self, charge: Charge) -> None:
        """Give back part of what settled branches bind; it can be spent by the next batch."""
        self._refunds += charge

    def _hold(self, allowance: int, charge: Charge) -> Hold:
        self._bound += charge
        self._running += 1
        return Hold(allowance, charge)

    def _fits(self, charge: Charge) -> bool:
        after = self._bound + charge
        return after.tokens <= self._tokens and after.dollars <= self._dollars

    def _affordable(self, cost: Callable[[int], Charge], wanted: int) -> int:
        """The largest number up to `wanted` whose cost fits, by bisection; 0 if none does."""
        low, high = 0, wanted
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._fits(cost(middle)) else (low, middle - 1)
        return low

"""Fitting a strategy's size to a budget: 16 samples do not use up 16,000 tokens, so what is compared is what each
strategy can do with the whole of a budget.

The sizes of a ladder are tried on a few pilot problems, without a cap; a budget gets the largest size whose mean total
tokens stay within it. The cap still holds for every problem. A fit is a function of strategy, model, seed, pilot
problems and budget, and of no other budget or strategy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ramify.errors import ConfigError
from ramify.registry import option_types, parse_spec
from ramify.strategies.registry import Strategy, describe

LADDER = tuple(sorted({2**i for i in range(11)} | {3 * 2**i for i in range(9)}))
"""1, 2, 3, 4, 6, 8, 12, ... 1024: neighbours are close enough that a budget is used by two thirds or more."""
PILOTS = 8
SIZES = ("n", "simulations", "trials", "expansions")
"""Fields that are a strategy's size where its class does not name one; the first that it has."""
PATIENCE = 4
"""Sizes in a row that cost no more than the one before, after which a strategy counts as full."""

MeanTokens = Callable[[Strategy], Awaitable[float | None]]
"""A strategy's mean total tokens on the pilot problems; None if it failed on one."""


@dataclass(frozen=True, slots=True)
class OpenSize:
    """A strategy whose size is left open, to be fitted to each budget.

    Attributes:
        strategy: at its default size.
        field: the field that is its size.
    """

    strategy: Any
    field: str

    @property
    def name(self) -> str:
        """Its spec without the size."""
        return describe(self.strategy)

    def at(self, size: int) -> Strategy | None:
        """The strategy at a size; None where its other options do not allow that (a beam's n is a multiple of m)."""
        try:
            made: Strategy = replace(self.strategy, **{self.field: size})
        except ConfigError:
            return None
        return made


@dataclass(frozen=True, slots=True)
class Fit:
    """The size that a budget gets.

    Attributes:
        method: the strategy's spec without its size.
        budget: as given.
        size: what was chosen.
        tokens: mean total tokens of that size on the pilot problems, without a cap.
        within: whether that is within the budget. If not, the smallest size is beyond it and the cap cuts its runs.
    """

    method: str
    budget: str
    size: int
    tokens: float
    within: bool


def size_name(factory: Callable[..., Any]) -> str | None:
    """The option of a strategy's class that is its size: what it names as ``size = "..."``, else one of `SIZES`."""
    named = getattr(factory, "size", None)
    if isinstance(named, str):
        return named
    known = option_types(factory)
    return next((name for name in SIZES if name in known), None)


def size_field(strategy: Strategy) -> str | None:
    """The field that says how much a strategy does, see `size_name`; None without one.

    A whole number that is None by default is no size: the strategy ends by another rule.
    """
    name = size_name(type(strategy))
    return name if name is not None and isinstance(getattr(strategy, name, None), int) else None


def opened(strategy: Strategy, spec: str) -> Strategy | OpenSize:
    """The strategy of a spec, open where it has a size that the spec does not fix."""
    field = size_field(strategy)
    return strategy if field is None or field in parse_spec(spec)[1] else OpenSize(strategy, field)


async def try_sizes(method: OpenSize, limit: int, mean_tokens: MeanTokens) -> list[tuple[int, float]]:
    """Sizes and their mean total tokens, upwards to the first beyond `limit` tokens.

    Ends early where larger sizes cost no more (a stop rule has the say) or a pilot problem failed.

    Raises:
        ConfigError: no size of the ladder works.
    """
    tried: list[tuple[int, float]] = []
    usable = unchanged = 0
    for size in LADDER:
        strategy = method.at(size)
        if strategy is None:
            continue
        usable += 1
        tokens = await mean_tokens(strategy)
        if tokens is None:
            break
        unchanged = unchanged + 1 if tried and tokens <= tried[-1][1] else 0
        tried.append((size, tokens))
        if tokens > limit or unchanged == PATIENCE:
            break
    if not usable:
        raise ConfigError(f"{method.name} works at no size of 1 to {LADDER[-1]}: give it one ({method.field}=...)")
    return tried


def fit(method: OpenSize, budget: str, limit: int, tried: Sequence[tuple[int, float]]) -> Fit:
    """The largest of the sizes tried whose tokens stay within `limit`; the smallest if none does."""
    within = [(size, tokens) for size, tokens in tried if tokens <= limit]
    size, tokens = max(within) if within else min(tried)
    return Fit(method.name, budget, size, tokens, bool(within))

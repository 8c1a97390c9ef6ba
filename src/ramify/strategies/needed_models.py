"""Which models a strategy names besides the main one, so that whoever loads a backend can load them too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from ramify.backends.base import Capability
from ramify.strategies.registry import Strategy


def reward_models(*strategies: Strategy) -> tuple[str, ...]:
    """Reward models of the scorers that strategies use, wherever in their configuration those stand; each once."""
    return _each_once(_rewards(made) for made in strategies if Capability.REWARD in made.requires)


def other_models(*strategies: Strategy) -> tuple[str, ...]:
    """Models that strategies call by name (their `other_models`), and that judge for their scorers, each once."""
    return _each_once((*getattr(made, "other_models", ()), *_judges(made)) for made in strategies)


def _rewards(part: Any) -> Iterator[str]:
    """Names in a configuration and in what it is made of."""
    if isinstance(part, tuple | list):
        for piece in part:
            yield from _rewards(piece)
    elif dataclasses.is_dataclass(part):
        name = getattr(part, "model", None)
        if isinstance(name, str) and name and Capability.REWARD in getattr(part, "needs", ()):
            yield name
        for field in dataclasses.fields(part):
            yield from _rewards(getattr(part, field.name))


def _judges(part: Any) -> Iterator[str]:
    """Models that scorers ask, other than reward models."""
    if isinstance(part, tuple | list):
        for piece in part:
            yield from _judges(piece)
    elif dataclasses.is_dataclass(part):
        name, needs = getattr(part, "model", None), getattr(part, "needs", None)
        if isinstance(name, str) and name and needs is not None and Capability.REWARD not in needs:
            yield name
        for field in dataclasses.fields(part):
            yield from _judges(getattr(part, field.name))


def _each_once(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))

"""What a client may ask of a method: bounded counts, a bounded budget, nothing that runs a model's programs.

The tokens are bounded by the budget. These bounds are for all that costs no tokens, or costs before the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ramify.sampling import SamplingParams
from ramify.scoring.sandbox import Sandbox
from ramify.serving.auth import Caller
from ramify.serving.errors import ApiError
from ramify.serving.limits import Limits
from ramify.serving.methods.request import Requested
from ramify.serving.model_memory import Kind
from ramify.serving.models import Models
from ramify.strategies.kernel.budget import Budget, Prices
from ramify.strategies.needed_models import other_models, reward_models
from ramify.strategies.particles.smc_steering import SmcSteering
from ramify.strategies.programs.archon_layers import CodeTests
from ramify.strategies.registry import Strategy

_IN_TOKENS = frozenset(
    {
        "answer_tokens", "cut", "foresight", "high", "low", "max_think", "max_tokens", "medium", "memory", "min_answer",
        "min_think", "nudge_tokens", "patience", "probe_tokens", "rationale_tokens", "reserve", "segment", "stride",
        "top", "tokens_per_answer", "window",
    }
)  # fmt: skip
"""Whole numbers that count tokens of a branch and so are bounded by the context; all others multiply the work."""
_GREATEST = 2**31 - 1
_BUNDLED: dict[Kind, tuple[str, ...]] = {"generate": ("nano", "nano-drafter"), "reward": ("nano-prm",)}
"""What every server has, so that every method can be tried on it."""


def check_bounds(asked: Requested, strategy: Strategy, limits: Limits) -> None:
    """Raises ApiError: 400, the method asks for what a client may not have."""
    for place, name, value in _settings(strategy):
        greatest = _GREATEST if name in _IN_TOKENS else max(limits.max_branches, _usual(place, name))
        if abs(value) > greatest:
            raise ApiError(
                400, f"{name}={value} of {asked.name} does not work: this server allows {greatest} at most",
                param=asked.place,
            )  # fmt: skip
    if _runs_programs(strategy):
        raise ApiError(
            400, f"{asked.name} as asked for runs programs that the model writes, which this server does not do: use "
            "another scorer or other layers, or run it in Python", param=asked.place,
        )  # fmt: skip


def budget_of(asked: Requested, limits: Limits, prices: Prices | None, seconds: float | None) -> Budget:
    """The budget of a run: what the call gives, and the server's own bounds.

    Args:
        prices: of the model; None where the server has none.
        seconds: left of the request's time.

    Raises:
        ApiError: 400, more is asked for than the server gives, or dollars without prices.
    """
    tokens = asked.limits.get("tokens")
    if tokens is not None and tokens > limits.max_method_tokens:
        raise ApiError(
            400, f"a budget of {tokens} tokens does not work: this server gives {limits.max_method_tokens} at most",
            param="ramify.budget",
        )  # fmt: skip
    dollars = asked.limits.get("dollars")
    if dollars is not None and (prices is None or prices.free):
        message = f"a budget of ${dollars:g} does not work: this server has no prices: give tokens or seconds"
        raise ApiError(400, message, param="ramify.budget")
    times = [time for time in (asked.limits.get("seconds"), seconds) if time is not None]
    cap = limits.max_method_tokens if tokens is None else int(tokens)
    return Budget(cap, min(times, default=None), dollars, prices or Prices())


def check_form(asked: Requested, strategy: Strategy) -> None:
    """Raises ApiError: 400, the answer is to have a form that the method itself would break."""
    forces = getattr(strategy, "end_think", "") or getattr(strategy, "answer_suffix", "")
    if strategy.sampling.structured_outputs is not None and (forces or isinstance(strategy, SmcSteering)):
        own = "a constraint" if isinstance(strategy, SmcSteering) else "text"
        message = f"{asked.name} puts {own} of its own on the answer, which breaks the form that the call asks for"
        raise ApiError(400, f"{message}: leave out one of the two", param=asked.place)


def check_models(asked: Requested, strategy: Strategy, model: str, models: Models, caller: Caller) -> None:
    """Raises ApiError: 400, a model that the method needs is not there, or is of another kind."""

    def there(kind: Kind) -> list[str]:
        served = [
            name for name in models.names() if caller.may_use(name) and models.facts(name, caller)[0].kind == kind
        ]
        return [*served, *(name for name in _BUNDLED.get(kind, ()) if name not in served)]

    wanted: list[tuple[str, Kind, str]] = [(model, "generate", "model")]
    wanted += [(name, "reward", "ramify.scorer") for name in reward_models(strategy)]
    wanted += [(name, "generate", asked.place) for name in other_models(strategy)]
    for name, kind, place in wanted:
        known = there(kind)
        if name not in known:
            needs = "a reward model" if kind == "reward" else "a model that answers"
            message = f"{asked.name} needs {needs}, and {name[:200]!r} is none here (there are: {', '.join(known)})"
            raise ApiError(400, message, param=place)


def width(strategy: Strategy) -> int:
    """Branches that a strategy is likely to run at once, for admission."""
    counts = [getattr(strategy, name, None) for name in ("n", "width", "k", "samples", "parallel", "conversations")]
    return max((count for count in counts if isinstance(count, int)), default=1)


def _settings(part: Any) -> Iterator[tuple[Any, str, int]]:
    """Whole numbers of a configuration, with what they belong to; those of sampling have bounds of their own."""
    if isinstance(part, tuple | list):
        for piece in part:
            yield from _settings(piece)
    elif dataclasses.is_dataclass(part) and not isinstance(part, SamplingParams):
        for each in dataclasses.fields(part):
            value = getattr(part, each.name)
            if isinstance(value, int) and not isinstance(value, bool):
                yield part, each.name, value
            else:
                yield from _settings(value)
        yield from _settings(getattr(part, "architecture", ()))


def _usual(part: Any, name: str) -> int:
    default = {each.name: each.default for each in dataclasses.fields(part)}[name]
    return default if isinstance(default, int) else 0


def _runs_programs(part: Any) -> bool:
    if isinstance(part, Sandbox | CodeTests):
        return True
    if isinstance(part, tuple | list):
        return any(map(_runs_programs, part))
    if isinstance(part, Mapping) or not dataclasses.is_dataclass(part):
        return False
    own = (getattr(part, each.name) for each in dataclasses.fields(part))
    return any(map(_runs_programs, own)) or _runs_programs(getattr(part, "architecture", ()))

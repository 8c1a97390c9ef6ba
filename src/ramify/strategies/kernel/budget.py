"""`Budget`: the hard cap of one problem's work, in tokens, seconds or dollars, or several of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ramify.backends.base import Usage
from ramify.errors import ConfigError

_PER_PRICE = 1_000_000  # prices are quoted in dollars per million tokens


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars per million tokens; zero where a machine of one's own does the work.

    Attributes:
        models: prices of other models than the main one, by name; one that is not there costs what the main one does.
    """

    prompt: float = 0.0
    prompt_cached: float = 0.0
    generated: float = 0.0
    verifier: float = 0.0
    probe: float = 0.0
    models: Mapping[str, Prices] = field(default_factory=dict)

    def of(self, model: str | None) -> Prices:
        """The prices of a model; None is the main one."""
        return self if model is None else self.models.get(model, self)

    def cost(self, usage: Usage) -> float:
        """Dollars for what was run."""
        uncached = usage.prompt - usage.prompt_cached
        total = uncached * self.prompt + usage.prompt_cached * self.prompt_cached + usage.generated * self.generated
        return (total + usage.verifier * self.verifier + usage.probe * self.probe) / _PER_PRICE

    def scoring(self, num_tokens: int) -> float:
        """Dollars at most for scoring: a scorer's tokens are the verifier's or, of given text, a probe's."""
        return num_tokens * max(self.verifier, self.probe) / _PER_PRICE

    @property
    def free(self) -> bool:
        """Whether everything costs nothing."""
        own = (self.prompt, self.prompt_cached, self.generated, self.verifier, self.probe)
        return not any(own) and all(prices.free for prices in self.models.values())


@dataclass(frozen=True, slots=True)
class Budget:
    """What one problem may cost; the first limit that is reached ends the run with a valid result.

    Attributes:
        tokens: generated, verifier, probe and program tokens together. Charged before they are spent, so never passed.
        seconds: wall-clock time; what still runs then is cancelled.
        dollars: under `prices`; reserved at the price of uncached prompts.
        prices: what tokens cost; also gives the ledger's `cost`.

    Raises:
        ConfigError: a limit is not above 0, or dollars are given without prices.
    """

    tokens: int | None = None
    seconds: float | None = None
    dollars: float | None = None
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        for name in ("tokens", "seconds", "dollars"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"budget {name}={value!r} does not work: it must be above 0 (or None for no limit)")
        if self.dollars is not None and self.prices.free:
            raise ConfigError(f"a budget of ${self.dollars} needs prices: Budget(dollars=..., prices=Prices(...))")

    @classmethod
    def parse(cls, text: str, prices: Prices | None = None) -> Budget:
        """Read ``2000`` (tokens), ``30s``, ``$0.05``, or several of them with commas.

        Raises:
            ConfigError: a part is none of these.
        """
        limits: dict[str, Any] = {}
        for part in filter(None, (part.strip().lower() for part in text.split(","))):
            name, value = _limit(part, text)
            if name in limits:
                raise ConfigError(f"budget {text!r} gives {name} twice: keep one")
            limits[name] = value
        return cls(**limits, prices=prices or Prices())


def _limit(part: str, whole: str) -> tuple[str, float]:
    match = re.fullmatch(r"(?P<dollars>\$)?\s*(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>s|seconds|tokens|k)?", part)
    if match is None or (match["dollars"] and match["unit"]):
        raise ConfigError(f"budget {whole!r} is not understood at {part!r}: write e.g. 2000, 4k, 30s or $0.05")
    number = float(match["number"])
    if match["dollars"]:
        return "dollars", number
    if match["unit"] in ("s", "seconds"):
        return "seconds", number
    number *= 1000 if match["unit"] == "k" else 1
    if number != int(number):
        raise ConfigError(f"budget {whole!r} asks for a broken number of tokens: write a whole one")
    return "tokens", int(number)

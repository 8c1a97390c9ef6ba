"""`Ledger`: every token that the backend ran for one result, by purpose. Its sums equal the backend's own count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ramify.backends.base import Usage
from ramify.strategies.kernel.budget import Prices

Meter = tuple[str, str | None]
"""A purse and the model that spends from it (None: the main one)."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a result cost.

    Attributes:
        prompt: prompt and forced tokens presented to the model, cached ones included.
        prompt_cached: of these, the tokens whose KV was there already (a fork's or the prefix cache's).
        generated: tokens drawn by the method's own branches.
        verifier: tokens that scorers read (a reward model reads the prompt once and each token of a tree once).
        probe: tokens of probes (scored continuations, trial answers).
        program: tokens drawn by calls of a program (critics, judges, planners).
        discarded: of `generated`, the tokens on no candidate's path: dropped, cancelled or superseded work.
        shared: tokens that candidates share through forks instead of drawing them again.
        saved: what finishing the branches that were given up, and drawing the answers that were skipped, would have
            taken at the mean length of the finished answers, less what cancelled branches had drawn (an estimate).
        calls: calls of the backend.
        lost: tokens of attempts that broke off and were drawn again; in no budget.
        wall_s: seconds from start to result.
        cost: dollars under the budget's prices.
    """

    prompt: int = 0
    prompt_cached: int = 0
    generated: int = 0
    verifier: int = 0
    probe: int = 0
    program: int = 0
    discarded: int = 0
    shared: int = 0
    saved: int = 0
    calls: int = 0
    lost: int = 0
    wall_s: float = 0.0
    cost: float = 0.0

    @property
    def total_tokens(self) -> int:
        """What a token budget caps: generated, verifier, probe and program tokens."""
        return self.generated + self.verifier + self.probe + self.program

    @classmethod
    def of(cls, meters: Mapping[Meter, Usage], prices: Prices, **counts: Any) -> Ledger:
        """The ledger of some meters: ``generated`` for the method's own trees, the other purses by name."""
        everything = Usage()
        for meter in meters.values():
            everything.add(meter)

        def drawn_for(purse: str) -> int:
            return sum(meter.generated for (name, _), meter in meters.items() if name == purse)

        return cls(
            prompt=everything.prompt,
            prompt_cached=everything.prompt_cached,
            generated=drawn_for("generated"),
            verifier=everything.verifier + drawn_for("verifier"),
            probe=everything.probe + drawn_for("probe"),
            program=drawn_for("program"),
            calls=everything.calls,
            lost=everything.lost,
            cost=sum(prices.of(model).cost(meter) for (_, model), meter in meters.items()),
            **counts,
        )

    def to_dict(self) -> dict[str, Any]:
        """All entries and `total_tokens`, for JSON."""
        entries = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**entries, "total_tokens": self.total_tokens}

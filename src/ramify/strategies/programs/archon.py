"""Archon: layers of generators, critics, rankers, fusers, verifiers and tests (arXiv:2409.15254).

What one model call cannot do, a program of calls can: draw several answers, say what is weak in each, order them, and
write one from the best. Which layers, and in which order, is data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.archon_layers import Component, Layer, one_answer, read_layers, write_layers
from ramify.strategies.programs.archon_prompts import Prompts
from ramify.strategies.programs.archon_run import LayerRun
from ramify.strategies.registry import Method, strategy

LAYERS = "generator:8/critic/ranker:4/fuser"


@strategy("archon", kind="approximate", paper="arXiv:2409.15254")
@dataclass(frozen=True)
class Archon(Prompts, Method):
    """Layers of components, each working on what the one before it left.

    Attributes:
        layers: as a spec writes them (see `archon_layers`), or a sequence of components and of sequences of them; kept
            as the former.
        final: what the last layer has to leave: any number of candidates, of which the first ranked or the majority is
            the answer ("vote"), or exactly one ("single").
        retries: how often a critic whose reply cannot be read is asked again, before it is asked about each candidate.
    """

    layers: str | Sequence[Component | Sequence[Component]] = LAYERS
    final: Literal["vote", "single"] = "vote"
    retries: int = 3

    def __post_init__(self) -> None:
        given = read_layers(self.layers) if isinstance(self.layers, str) else self.layers
        object.__setattr__(self, "layers", write_layers(given))
        if self.final == "single" and not one_answer(self.architecture):
            raise ConfigError(f"layers={self.layers} may leave several answers: end them with fuser, or use final=vote")
        if not 0 <= self.retries <= 3:
            raise ConfigError(f"retries={self.retries} does not work: it must be 0 to 3")
        self.check_prompts()

    @property
    def architecture(self) -> tuple[Layer, ...]:
        """The layers as components."""
        return read_layers(str(self.layers))

    @property
    def other_models(self) -> tuple[str, ...]:
        """Those that its components ask, besides the main one."""
        named = (component.model for layer in self.architecture for component in layer)
        return tuple(dict.fromkeys(name for name in named if name))

    async def run(self, problem: Problem, context: Context) -> Result:
        """The layers in order."""
        return await LayerRun(problem, context, self, self.retries).run(self.architecture)

"""Mixture of agents: each layer of models answers with the answers of the layer before it in view (arXiv:2406.04692).

Models write better with other models' answers before them, even with worse ones: that is what the layers rest on.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.archon_layers import Fuser, Generator, Layer, check_layers
from ramify.strategies.programs.archon_prompts import ITEM, Prompts
from ramify.strategies.programs.archon_run import LayerRun
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.prompts import check_template
from ramify.strategies.spec_text import SpecText

MAIN = "main"
"""What the main model is called in the list of models."""
PROMPT = SpecText.of("""Several models were asked the question at the end. These are their answers:

{answers}

Use them to write your own answer to the question. Do not trust them: some may be wrong or one-sided. Take what holds,
put it in order, and do not simply repeat one of them. Give the final answer in the form the question asks for.

The question:
{question}""")


@strategy("moa", kind="approximate", paper="arXiv:2406.04692")
@dataclass(frozen=True)
class MixtureOfAgents(Method):
    """Layers of proposers, each shown all answers of the layer before it, and an aggregator at the end.

    Attributes:
        layers: with the aggregator's; 1 is the aggregator alone, which then answers the problem's own prompt.
        models: the proposers, as names with ``+`` between them; "main" is the main model.
        samples: answers of each proposer in each layer.
        aggregator: the model that writes the last answer.
        prompt: what proposers behind the first layer and the aggregator are asked, with ``{answers}`` (``{question}``).
        item: each of the answers in it, with ``{number}`` and ``{answer}``.
    """

    layers: int = 3
    models: str = MAIN
    samples: int = 3
    aggregator: str = MAIN
    prompt: SpecText = PROMPT
    item: SpecText = ITEM

    def __post_init__(self) -> None:
        for name, value in (("layers", self.layers), ("samples", self.samples)):
            if value < 1:
                raise ConfigError(f"{name}={value} does not work: it must be 1 or more")
        if not all(self.models.split("+")) or not self.aggregator:
            raise ConfigError(f"models={self.models!r}, aggregator={self.aggregator!r}: write names, as in main+small")
        check_template(self.prompt, "answers")
        check_template(self.item, "answer")
        check_layers(self.architecture)

    @property
    def architecture(self) -> tuple[Layer, ...]:
        """The same as layers of Archon's components."""
        models = [_model(name) for name in self.models.split("+")]
        last = _model(self.aggregator)
        if self.layers == 1:
            return ((Generator(1, last),),)
        first = tuple(Generator(self.samples, model) for model in models)
        between = tuple(Fuser(self.samples, model) for model in models)
        return (first, *([between] * (self.layers - 2)), (Fuser(1, last),))

    @property
    def other_models(self) -> tuple[str, ...]:
        """All that it names besides the main one."""
        named = map(_model, (*self.models.split("+"), self.aggregator))
        return tuple(dict.fromkeys(name for name in named if name))

    async def run(self, problem: Problem, context: Context) -> Result:
        """Propose, propose again, aggregate."""
        prompts = Prompts(fuser_prompt=self.prompt, item=self.item)
        return await LayerRun(problem, context, prompts).run(self.architecture)


def _model(name: str) -> str | None:
    return None if name == MAIN else name

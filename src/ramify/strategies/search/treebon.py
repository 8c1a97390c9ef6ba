"""Tree search for best-of-n: a few layers of segments, the poor beginnings pruned early (arXiv:2410.16033)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ramify.backends.base import Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.search.paths import check_tree, choose, distinct, families, ranked
from ramify.strategies.steps import StepSplitter


@strategy("treebon", kind="approximate", paper="arXiv:2410.16033", needs=("scorer",))
@dataclass(frozen=True)
class TreeBoN(Method):
    """Best-of-n whose poor beginnings are pruned: n paths a layer, of which n/m go on with m children each.

    The first layers draw segments of a fixed number of tokens, the last one draws to the end; the best leaf under the
    scorer is the answer. A path that ends early is a leaf and waits for the others. The paper rewards a beginning with
    the weighted log-ratio of a preference-tuned model and its reference; here the scorer judges the partial text.

    Attributes:
        n: paths a layer.
        m: children of each path that goes on; n must be a multiple of it, and n/m go on.
        scorer: judges a path so far and the leaves; a process reward model by default.
        layers: how often is drawn; 1 is best-of-n.
        segment: tokens of a path in each layer but the last.
    """

    n: int = 16
    m: int = 4
    scorer: Scorer = field(default_factory=ProcessReward)
    layers: int = 3
    segment: int = 16

    def __post_init__(self) -> None:
        check_tree(self.n, self.m)
        if self.layers < 1 or self.segment < 1:
            raise ConfigError(f"layers={self.layers}, segment={self.segment} do not work: both must be at least 1")

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw, prune and branch, layer by layer."""
        segment = StepSplitter(max_tokens=self.segment)
        root = await context.root()
        paths = await context.extend([root], self.n, None if self.layers == 1 else segment, scored_by=self.scorer)
        for layer in range(2, self.layers + 1):
            scores = await context.score(paths, self.scorer)
            await self._report(context, paths)
            parents = [paths[i] for i in ranked(paths, scores, self.n // self.m)]
            if not parents:
                break
            context.drop(node for node in paths if node.open and node not in parents)
            until = segment if layer < self.layers else None
            drawn = await context.extend(parents, self.m, until, scored_by=self.scorer)
            context.retire(parents)
            below = dict(zip((node.key for node in parents), families(parents, drawn), strict=True))
            paths = [after for node in paths for after in ([node] if not node.open else below.get(node.key, []))]
        return await self._report(context, paths)

    async def _report(self, context: Context, nodes: Sequence[Node]) -> Result:
        leaves = distinct(nodes)
        scores = await context.score(leaves, self.scorer)
        return context.result(leaves, choose(context, leaves, scores, "best"), scores=scores)

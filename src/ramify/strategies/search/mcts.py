"""Monte-Carlo tree search over reasoning steps: AlphaZero-like search with a language model as the policy.

Feng et al., arXiv:2309.17179; the exploration schedule is AlphaZero's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.randomness import BranchKey
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.search.tree_policy import (
    PUCT_EXPLORATION,
    UCT_EXPLORATION,
    Branch,
    Rule,
    choose_leaves,
    land,
    puct,
    uct,
)
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of, finished, vote

Step = Branch[Node]


@strategy("mcts", kind="approximate", paper="arXiv:2309.17179", needs=("scorer",))
@dataclass(frozen=True)
class MCTS(Method):
    """Monte-Carlo tree search whose moves are reasoning steps.

    A simulation goes down from the root to a leaf, draws `width` next steps of it, evaluates each and adds each value
    to every branch above. Steps drawn twice are one branch with twice the prior, so priors are shares of the draws. A
    leaf that is finished is not drawn again; its value counts once more. At the last level of `depth` a branch runs on
    to the answer's end.

    Attributes:
        simulations: leaves chosen: the budget of the search.
        width: steps drawn when a leaf is expanded.
        depth: steps of a path at most.
        rule: "puct" (mean, prior and visits) or "uct" (mean and visits).
        exploration: weight of the rule's second part; 1.25 for puct and the root of 2 for uct unless given.
        value: of a step: "scorer" asks the scorer about the path so far; "rollout" runs it to the answer's end and asks
            about that; "agreement" runs it to the end and takes the share of all answers so far that say the same
            (no scorer).
        parallel: leaves chosen at once, each under the virtual losses of those before it, and expanded together.
        select: "vote" lets the finished answers vote, weighed by their values (equally under "agreement"); "value"
            takes the highest value; "visits" follows the most visited branch from the root.
        scorer: gives values from 0 to 1; a process reward model by default.
        until: where a step ends; a line by default.
    """

    simulations: int = 16
    width: int = 4
    depth: int = 32
    rule: Literal["puct", "uct"] = "puct"
    exploration: float | None = None
    value: Literal["scorer", "rollout", "agreement"] = "scorer"
    parallel: int = 1
    select: Literal["vote", "value", "visits"] = "vote"
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)

    def __post_init__(self) -> None:
        if min(self.simulations, self.width, self.depth, self.parallel) < 1:
            raise ConfigError(
                f"simulations={self.simulations}, width={self.width}, depth={self.depth}, parallel={self.parallel} "
                "do not work: each must be at least 1"
            )
        if self.exploration is not None and not self.exploration >= 0:
            raise ConfigError(f"exploration={self.exploration} does not work: it must be 0 or more")
        if self.value != "agreement" and self.scorer.range != (0.0, 1.0):
            raise ConfigError(
                f"mcts needs values from 0 to 1; {type(self.scorer).__name__} gives {self.scorer.range}: "
                "use scorer=prm, scorer=rule or value=agreement"
            )

    @property
    def requires(self) -> frozenset[Capability]:
        """What the scorer needs, where one is used."""
        return frozenset() if self.value == "agreement" else self.scorer.needs

    async def run(self, problem: Problem, context: Context) -> Result:
        """Choose leaves, expand them, back up; then choose among the finished answers."""
        search = _Search(self, context, Branch(await context.root()))
        simulated = 0
        while simulated < self.simulations:
            leaves = choose_leaves(search.root, self._rule(), min(self.parallel, self.simulations - simulated))
            await search.expand([leaf for leaf in leaves if leaf.state.open])
            for leaf in leaves:
                land(leaf)
                if not leaf.state.open:
                    leaf.back_up(leaf.value)
            simulated += len(leaves)
            search.report()
        return search.report()

    def _rule(self) -> Rule[Node]:
        if self.rule == "uct":
            return uct(UCT_EXPLORATION if self.exploration is None else self.exploration)
        return puct(PUCT_EXPLORATION if self.exploration is None else self.exploration)


class _Search:
    """The tree of one run, and the answers it has come to."""

    def __init__(self, method: MCTS, context: Context, root: Step) -> None:
        self.root = root
        self._method = method
        self._context = context
        self._ends: list[tuple[Node, float, Step]] = []
        """Finished answers, their values, and the branch that each stands in (a rollout: where it began)."""
        self._said: Counter[Hashable] = Counter()

    async def expand(self, leaves: Sequence[Step]) -> None:
        """Draw, evaluate and add the children of some leaves."""
        method, context = self._method, self._context
        scored_by = method.scorer if method.value == "scorer" else None
        above = {leaf.state.key: leaf for leaf in leaves}
        last = [leaf.state for leaf in leaves if len(leaf.path) >= method.depth]
        inner = [leaf.state for leaf in leaves if len(leaf.path) < method.depth]
        drawn: list[Node] = []
        for nodes, until in ((inner, method.until), (last, None)):
            drawn += await context.extend(nodes, method.width, until, scored_by=scored_by) if nodes else []
        children = []
        for parent, nodes in _by_parent(drawn, above):
            for node, share in _merged(nodes):
                children.append((parent, node, share))
            kept = {child.key for _, child, _ in children}
            context.drop(node for node in nodes if node.key not in kept)
        values = await self._evaluate([node for _, node, _ in children])
        for parent, node, share in children:
            if node.key in values:
                child = parent.add(node, share)
                end, child.value = values[node.key]
                child.back_up(child.value)
                if not end.open:
                    self._ends.append((end, child.value, child))
        context.retire([leaf.state for leaf in leaves if leaf.children])  # the others the budget left without

    async def _evaluate(self, nodes: Sequence[Node]) -> dict[BranchKey, tuple[Node, float]]:
        """By key of each node: the end it came to (itself where nothing was rolled out) and its value."""
        method, context = self._method, self._context
        if method.value == "scorer":
            scores = await context.score(nodes, method.scorer)
            return {node.key: (node, float(score)) for node, score in zip(nodes, scores, strict=True)}
        ends = {node.key: node for node in nodes if not node.open}
        going = [node for node in nodes if node.open]
        scored_by = method.scorer if method.value == "rollout" else None
        for end in await context.extend(going, scored_by=scored_by):
            assert end.parent is not None
            ends[end.parent.key] = end
        ends = {node.key: ends[node.key] for node in nodes if node.key in ends}
        values = await self._judge(list(ends.values()))
        return {key: (end, value) for (key, end), value in zip(ends.items(), values, strict=True)}

    async def _judge(self, ends: Sequence[Node]) -> list[float]:
        if self._method.value == "rollout":
            return [float(score) for score in await self._context.score(ends, self._method.scorer)]
        answers = [self._context.answer(end) for end in ends]
        self._said.update(answer for answer in answers if answer is not None)
        return [self._said[answer] / self._said.total() if answer is not None else 0.0 for answer in answers]

    def report(self) -> Result:
        """The finished answers; while there are none, the leaves."""
        ends = self._ends or [(leaf.state, leaf.value, leaf) for leaf in self.root.walk() if not leaf.children]
        nodes, values, steps = ([*column] for column in zip(*ends, strict=True))
        among = finished(nodes)
        best = best_of(values, among)
        if self._method.select == "visits":
            best = max(among, key=lambda i: ([branch.visits for branch in steps[i].path], values[i]))
        elif self._method.select == "vote":
            weights = [1.0 if self._method.value == "agreement" else values[i] for i in among]
            winner = vote([self._context.answer(nodes[i]) for i in among], weights, merits=[values[i] for i in among])
            best = best if winner is None else among[winner]
        return self._context.result(nodes, best, scores=values)


def _by_parent(drawn: Sequence[Node], above: dict[BranchKey, Step]) -> list[tuple[Step, list[Node]]]:
    """The new nodes of each leaf, in launch order."""
    below: dict[BranchKey, list[Node]] = {}
    for node in drawn:
        assert node.parent is not None
        below.setdefault(node.parent.key, []).append(node)
    return [(above[key], nodes) for key, nodes in below.items()]


def _merged(nodes: Sequence[Node]) -> list[tuple[Node, float]]:
    """Different steps (the first of equals stays), each with its share of the draws."""
    same: dict[object, list[Node]] = {}
    for node in nodes:
        same.setdefault((node.tokens or node.text, node.open), []).append(node)
    return [(group[0], len(group) / len(nodes)) for group in same.values()]

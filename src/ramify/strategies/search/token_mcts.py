"""Token-level tree search guided by a value model: Monte-Carlo search before every token (arXiv:2309.15028)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.search.tree_policy import PUCT_EXPLORATION, Branch, descend, puct
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of

ONE_TOKEN = StepSplitter(max_tokens=1)
UNKNOWN_VALUE = 0.5  # of the empty answer, which no value model has judged: the middle of the range


@dataclass(slots=True, eq=False)
class Token:
    """A possible next token: its id, and its node once it was run."""

    id: int
    node: Node | None = None


@strategy("token-mcts", kind="approximate", paper="arXiv:2309.15028", needs=("scorer", Capability.LOGPROBS))
@dataclass(frozen=True)
class TokenMCTS(Method):
    """Monte-Carlo tree search before each token: the policy gives priors, the value model says what a prefix is worth.

    A simulation goes down by PUCT to a token that was not run yet, runs it, asks for its value, takes the `k` most
    likely next tokens as its children (worth what it is worth until they are visited) and adds the value to everything
    above. After `simulations` of them the most visited token is committed and its subtree kept. The paper's penalty for
    leaving the policy is not in the value; the priors hold the search near it.

    Attributes:
        simulations: for each token of the answer.
        k: likeliest next tokens that are considered.
        exploration: PUCT's weight of the prior.
        prior_temperature: flattens (above 1) or sharpens the priors among the k.
        commit_temperature: 0 commits the most visited token; above it one is drawn in proportion to
            ``visits ** (1 / commit_temperature)``.
        value: "prefix" asks the value model about the text up to the token (the paper's); "step" first runs it on
            greedily to the end of the step, for a model that was trained to judge whole steps.
        scorer: the value model, from 0 to 1; a process reward model by default.
        until: where a step ends, for value=step; a line by default.
    """

    simulations: int = 8
    k: int = 4
    exploration: float = PUCT_EXPLORATION
    prior_temperature: float = 1.0
    commit_temperature: float = 0.0
    value: Literal["prefix", "step"] = "prefix"
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.LOGPROBS, Capability.TOKENS})

    def __post_init__(self) -> None:
        if self.simulations < 1 or self.k < 1:
            raise ConfigError(f"simulations={self.simulations}, k={self.k} do not work: both must be at least 1")
        if not (self.exploration >= 0 and self.prior_temperature > 0 and self.commit_temperature >= 0):
            raise ConfigError(
                f"exploration={self.exploration}, prior_temperature={self.prior_temperature}, "
                f"commit_temperature={self.commit_temperature} do not work: none may be negative, nor the priors' 0"
            )
        if self.scorer.range != (0.0, 1.0):
            raise ConfigError(
                f"token-mcts needs values from 0 to 1; {type(self.scorer).__name__} gives {self.scorer.range}: "
                "use scorer=prm"
            )

    @property
    def requires(self) -> frozenset[Capability]:
        """Token ids and log-probabilities, and what the scorer needs."""
        return self.scorer.needs | self.capabilities

    @property
    def _reader(self) -> Scorer | None:
        """Who will read a token once it is drawn, so that its reading is reserved."""
        return self.scorer if self.value == "prefix" else None

    async def run(self, problem: Problem, context: Context) -> Result:
        """Search, commit a token, search on below it."""
        answer = await context.root()
        root = Branch(Token(-1, answer), first_value=UNKNOWN_VALUE)
        ends: dict[Node, float] = {}
        while answer.open:
            if not root.children:
                await self._expand(context, root, UNKNOWN_VALUE)
            for _ in range(self.simulations):
                await self._simulate(context, root, ends)
                self._report(context, answer, root.value, ends)
            chosen = self._choose(context, root, answer.num_tokens)
            assert chosen.state.node is not None
            self._commit(context, root, chosen)
            root, answer = chosen, chosen.state.node
        return self._report(context, answer, root.value, ends)

    async def _simulate(self, context: Context, root: Branch[Token], ends: dict[Node, float]) -> None:
        leaf = descend(root, puct(self.exploration))
        node = leaf.state.node
        if node is None:
            assert leaf.parent is not None
            assert leaf.parent.state.node is not None
            forced = {"allowed_token_ids": [leaf.state.id]}
            (node,) = await context.extend([leaf.parent.state.node], 1, ONE_TOKEN, scored_by=self._reader, **forced)
            leaf.state.node = node
        if leaf.visits == 0:
            leaf.value = await self._judge(context, node, ends)
            if node.open:
                await self._expand(context, leaf, leaf.value)
        leaf.back_up(leaf.value)

    async def _judge(self, context: Context, node: Node, ends: dict[Node, float]) -> float:
        """The value of a prefix; a finished answer that it meets is noted in `ends`."""
        judged = node
        if self.value == "step" and node.open and not node.text.endswith(self.until.stop):
            (judged,) = await context.extend([node], 1, self.until, scored_by=self.scorer, temperature=0.0)
        value = float((await context.score([judged], self.scorer))[0])
        if not judged.open:
            ends[judged] = value
        elif judged is not node:
            context.retire([judged])
        return value

    async def _expand(self, context: Context, leaf: Branch[Token], value: float) -> None:
        """Add the likeliest next tokens. They show when one is drawn, which is kept if it is among them."""
        assert leaf.state.node is not None
        (drawn,) = await context.extend(
            [leaf.state.node], 1, ONE_TOKEN, scored_by=self._reader, logprobs=max(self.k, self.sampling.logprobs or 0)
        )
        assert drawn.details is not None
        likeliest = [(token, logprob) for token, logprob in drawn.details[0].top if np.isfinite(logprob)][: self.k]
        logits = np.array([logprob for _, logprob in likeliest]) / self.prior_temperature
        priors = np.exp(logits - logits.max())
        for (token, _), prior in zip(likeliest, priors / priors.sum(), strict=True):
            leaf.add(Token(token, drawn if token == drawn.tokens[-1] else None), float(prior), value)
        if all(child.state.node is None for child in leaf.children):
            context.drop([drawn])

    def _choose(self, context: Context, root: Branch[Token], place: int) -> Branch[Token]:
        if self.commit_temperature == 0:
            return max(root.children, key=lambda child: (child.visits, child.mean))
        visits = np.array([child.visits for child in root.children], dtype=np.float64)
        heights = np.cumsum((visits / visits.max()) ** (1 / self.commit_temperature))
        mark = context.uniform("commit", place) * heights[-1]
        return root.children[min(int(np.searchsorted(heights, mark, side="right")), len(heights) - 1)]

    def _commit(self, context: Context, root: Branch[Token], chosen: Branch[Token]) -> None:
        """Free the memory of the other tokens and of what is below them; finished answers stay known."""
        assert root.state.node is not None
        others = [branch for child in root.children if child is not chosen for branch in child.walk()]
        for branch in others:
            if branch.state.node is not None and branch.state.node.open:
                free = context.retire if branch.visits else context.drop
                free([branch.state.node])
        context.retire([root.state.node])
        chosen.parent = None

    def _report(self, context: Context, answer: Node, value: float, ends: dict[Node, float]) -> Result:
        """The answer as committed so far; while it is unfinished, a finished one that the search came by is better."""
        values = {answer: value, **ends}
        nodes, scores = list(values), list(values.values())
        best = best_of(scores, range(1, len(nodes))) if answer.open and ends else 0
        return context.result(nodes, best, scores=scores)

"""The score book: runs scorers, charges each node once, and keeps what was reserved for nodes that wait for a score."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.backends.base import Backend, Node, Usage
from ramify.errors import BudgetExhausted, ScorerError
from ramify.randomness import BranchKey
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer, checked_scores
from ramify.strategies.budget import Prices
from ramify.strategies.purse import Charge, Purse


class ScoreBook:
    """Scores by scorer and node, and the reservations of nodes not scored yet."""

    def __init__(self, purse: Purse, prices: Prices) -> None:
        self._purse = purse
        self._prices = prices
        self._scores: dict[tuple[Scorer, BranchKey], float] = {}
        self._reserved: dict[BranchKey, Charge] = {}

    def reserve(self, node: Node, charge: Charge) -> None:
        """Note what the purse holds back for scoring a node."""
        if charge != Charge():
            self._reserved[node.key] = charge

    def forget(self, node: Node) -> None:
        """The node will not be scored: give its reservation back."""
        self._purse.refund(self._reserved.pop(node.key, Charge()))

    def missing(self, nodes: Sequence[Node], scorer: Scorer) -> list[Node]:
        """The nodes without a score, each once."""
        return list({node.key: node for node in nodes if (scorer, node.key) not in self._scores}.values())

    def value(self, node: Node, scorer: Scorer) -> float:
        """The score of a node that has one."""
        return self._scores[scorer, node.key]

    async def run(self, nodes: Sequence[Node], scorer: Scorer, problem: Problem, backend: Backend) -> None:
        """Score nodes that have no score yet.

        Raises:
            BudgetExhausted: what is reserved and left does not suffice.
            ScorerError: the scorer failed, broke its contract, or ran more than it had declared.
        """
        bounds = {node.key: scorer.cost(len(node.prompt_tokens), node.num_tokens) for node in nodes}
        unreserved = sum(bound for key, bound in bounds.items() if key not in self._reserved)
        held = await self._reserve_now(unreserved)
        for key in bounds:
            held += self._reserved.pop(key, Charge())
        batch = await checked_scores(scorer, nodes, problem, backend)
        if batch.num_tokens > held.tokens:
            raise ScorerError(
                f"{type(scorer).__name__} ran {batch.num_tokens} tokens where its cost() had declared {held.tokens}: "
                "a bound that is too low would let it pass the budget"
            )
        spent = Charge(batch.num_tokens, self._prices.cost(Usage(verifier=batch.num_tokens)))
        self._purse.refund(held - spent)
        for node, value in zip(nodes, batch.values, strict=True):
            self._scores[scorer, node.key] = float(value)

    async def _reserve_now(self, tokens: int) -> Charge:
        charge = Charge(tokens, self._prices.cost(Usage(verifier=tokens)))
        if tokens == 0:
            return charge
        async with self._purse.turn:
            self._purse.begin()
            hold = await self._purse.admit(lambda whole: charge if whole else Charge(), 1)
        if hold is None:
            raise BudgetExhausted(f"scoring takes up to {tokens} tokens, more than the budget has left")
        self._purse.settle(hold, charge)
        return charge

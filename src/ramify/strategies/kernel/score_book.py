"""The score book: runs scorers, charges each node once, and keeps what was reserved for nodes that wait for a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ramify.backends.base import Backend, Node
from ramify.errors import BudgetExhausted, ScorerError
from ramify.randomness import BranchKey
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, Scorer, checked_scores
from ramify.strategies.kernel.budget import Prices
from ramify.strategies.kernel.launch import Wish
from ramify.strategies.kernel.purse import NOTHING, Charge, Purse

Place = tuple[Scorer, BranchKey]
"""A scorer and the root of a tree that it reads: it reads a prompt once a tree."""


class ScoreBook:
    """Scores by scorer and node, and the reservations of nodes not scored yet."""

    def __init__(self, purse: Purse, prices: Prices) -> None:
        self._purse = purse
        self._prices = prices
        self._scores: dict[tuple[Scorer, BranchKey], float] = {}
        self._reserved: dict[BranchKey, Charge] = {}
        self._opened: dict[Place, Charge] = {}
        """Trees that a scorer has begun to read, with what is still reserved for the beginning."""

    def prepare(self, wishes: Sequence[Wish]) -> list[Wish]:
        """The wishes with what their scorer has read and, on the first one of a tree, what it takes to begin."""
        prepared: list[Wish] = []
        begun: set[Place] = set()
        for wish in wishes:
            wish = replace(wish, read=self._read(wish.parent, wish.scorer))
            if wish.scorer is not None:
                place = _place(wish.scorer, wish.parent)
                if place not in self._opened and place not in begun:
                    extra = wish.scorer.cost(wish.reading(0, first=True)) - wish.scorer.cost(wish.reading(0))
                    wish = replace(wish, opening=self._charge(extra))
                begun.add(place)
            prepared.append(wish)
        return prepared

    def reserve(self, node: Node, wish: Wish, charge: Charge) -> None:
        """Note what the purse holds back for scoring a new node."""
        if wish.scorer is None:
            return
        self._reserved[node.key] = charge
        place = _place(wish.scorer, node)
        if wish.opening != NOTHING or place not in self._opened:
            self._opened[place] = self._opened.get(place, NOTHING) + wish.opening

    def forget(self, node: Node) -> None:
        """The node will not be scored: give its reservation back."""
        self._purse.refund(self._reserved.pop(node.key, NOTHING))

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
            ScorerError: the scorer failed, broke its contract, or charged more than it had declared.
        """
        held = await self._reserve_now(nodes, scorer)
        for node in nodes:
            held += self._reserved.pop(node.key, NOTHING)
        for place in {_place(scorer, node) for node in nodes}:
            held += self._opened.get(place, NOTHING)
            self._opened[place] = NOTHING
        batch = await checked_scores(scorer, nodes, problem, backend)
        if batch.num_tokens > held.tokens:
            raise ScorerError(
                f"{type(scorer).__name__} charged {batch.num_tokens} tokens where its cost() had declared "
                f"{held.tokens}: a bound that is too low would let it pass the budget"
            )
        self._purse.refund(held - self._charge(batch.num_tokens))
        for node, value in zip(nodes, batch.values, strict=True):
            self._scores[scorer, node.key] = float(value)

    async def _reserve_now(self, nodes: Sequence[Node], scorer: Scorer) -> Charge:
        """Reserve for those nodes for which nothing is reserved."""
        tokens, begun = 0, set(self._opened)
        for node in nodes:
            if node.key not in self._reserved:
                place = _place(scorer, node)
                unread = node.num_tokens - self._read(node.parent, scorer)
                first = place not in begun
                tokens += scorer.cost(Reading(len(node.prompt_tokens), node.num_tokens, unread, first))
                begun.add(place)
        charge = self._charge(tokens)
        if tokens and not await self._purse.pay(charge):
            raise BudgetExhausted(f"scoring takes up to {tokens} tokens, more than the budget has left")
        return charge

    def _read(self, node: Node | None, scorer: Scorer | None) -> int:
        """Tokens on the way to a node that the scorer has read."""
        while node is not None and scorer is not None and (scorer, node.key) not in self._scores:
            node = node.parent
        return 0 if node is None or scorer is None else node.num_tokens

    def _charge(self, tokens: int) -> Charge:
        return Charge(tokens, self._prices.scoring(tokens))


def _place(scorer: Scorer, node: Node) -> Place:
    return scorer, node.root.key

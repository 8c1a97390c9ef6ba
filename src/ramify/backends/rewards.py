"""Process reward models on the local engine: the probability that an answer is right so far, after each step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ramify.backends.base import Node, StepScores
from ramify.engine.async_engine import AsyncEngine, settle
from ramify.engine.request import EngineRequest, SequenceOutput
from ramify.errors import RequestError, ScorerError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds
from ramify.text.tokenizer import Tokenizer

_NOTHING = SamplingParams(max_tokens=0, detokenize=False)
_KEY = BranchKey.root(0, "reward")  # nothing is drawn


@dataclass(slots=True)
class _Scored:
    """What is known of a node: its ids, its steps' scores, and the parked sequence that has read it."""

    ids: TokenIds
    scores: tuple[float, ...] = ()
    sequence_id: int | None = None
    pins: int = 0  # nodes that will continue from here
    released: bool = False


@dataclass(slots=True)
class _Tree:
    """The scored nodes of one tree, and for nodes yet to be scored where they continue from; `reading` is the prompt's
    own run."""

    nodes: dict[BranchKey, _Scored] = field(default_factory=dict)
    bases: dict[BranchKey, _Scored] = field(default_factory=dict)
    reading: asyncio.Task[_Scored] | None = None


class RewardModel:
    """One reward model in causal-LM form: the logits of two tokens, read where a step ends.

    A node continues from the nearest scored ancestor's KV (the prompt at least), so each token of a tree is run once.

    Args:
        name: for messages.
        engine: runs it.
        tokenizer: its own.
        policy_tokenizer: of the model whose nodes are scored; must encode alike.

    Raises:
        RequestError: the model has no reward head, or another vocabulary than the policy.
    """

    def __init__(self, name: str, engine: AsyncEngine, tokenizer: Tokenizer, policy_tokenizer: Tokenizer) -> None:
        head = engine.core.model_config.reward
        if head is None:
            raise RequestError(f"{name} is no reward model: its config.json has no reward head (ramify.kind = prm)")
        self.name = name
        self.engine = engine
        self._tokenizer = tokenizer
        self._compatible: set[int] = set()
        self.check_vocabulary(policy_tokenizer)
        self._step_token = head.step_token
        self._ids = (tokenizer.token_id(head.good_token), tokenizer.token_id(head.bad_token))
        self._trees: dict[Node, _Tree] = {}  # by root: two runs of one problem have equal keys

    def check_vocabulary(self, policy_tokenizer: Tokenizer) -> None:
        """Raises `RequestError` if the ids of a policy do not mean the same here."""
        if id(policy_tokenizer) in self._compatible:
            return
        if self._tokenizer.backend.get_vocab() != policy_tokenizer.backend.get_vocab():
            raise RequestError(
                f"reward model {self.name} has another vocabulary than the policy: choose one that shares it"
            )
        self._compatible.add(id(policy_tokenizer))

    async def score(self, nodes: Sequence[Node]) -> list[StepScores]:
        """One `StepScores` a node. The prompt is charged to the first node of its tree that is scored."""
        scores: list[StepScores | None] = [None] * len(nodes)
        fresh: dict[BranchKey, list[int]] = {}
        for place, node in enumerate(nodes):
            known = self._tree(node).nodes.get(node.key)
            if known is not None and node.parent is not None:
                scores[place] = StepScores(known.scores, 0)
            else:
                fresh.setdefault(node.key, []).append(place)
        charges = [self._charge_of_prompt(nodes[places[0]]) for places in fresh.values()]
        results = await asyncio.gather(*(self._score(nodes[places[0]]) for places in fresh.values()))
        for places, (found, num_tokens), prompt in zip(fresh.values(), results, charges, strict=True):
            scores[places[0]] = StepScores(found, num_tokens + prompt)
            for twin in places[1:]:
                scores[twin] = StepScores(found, 0)
        return [score for score in scores if score is not None]

    def release(self, node: Node) -> None:
        """Forget a node; with the root, its whole tree."""
        root = _root(node)
        tree = self._trees.get(root)
        if tree is None:
            return
        if node is root:
            del self._trees[root]
            self.engine.drop([known.sequence_id for known in tree.nodes.values() if known.sequence_id is not None])
            if tree.reading is not None and not tree.reading.done():
                tree.reading.add_done_callback(self._drop_late)
            return
        self._unpin(tree, node.key)
        scored = tree.nodes.get(node.key)
        if scored is not None:
            scored.released = True
            self._drop_if_unused(tree, scored)

    def adopt(self, node: Node) -> None:
        """A new node: the nearest scored ancestor is kept until it is scored itself, also if it is released before."""
        tree = self._trees.get(_root(node))
        base = None if tree is None else self._nearest(tree, node.parent)
        if tree is not None and base is not None:
            base.pins += 1
            tree.bases[node.key] = base

    def _nearest(self, tree: _Tree, node: Node | None) -> _Scored | None:
        while node is not None and node.parent is not None:
            known = tree.nodes.get(node.key)
            if known is not None:
                return known
            node = node.parent
        return None

    def _unpin(self, tree: _Tree, key: BranchKey) -> None:
        base = tree.bases.pop(key, None)
        if base is not None:
            base.pins -= 1
            self._drop_if_unused(tree, base)

    def _drop_if_unused(self, tree: _Tree, scored: _Scored) -> None:
        if scored.released and scored.pins == 0 and scored.sequence_id is not None:
            self.engine.drop([scored.sequence_id])
            tree.nodes = {key: known for key, known in tree.nodes.items() if known is not scored}

    def _drop_late(self, reading: asyncio.Task[_Scored]) -> None:
        if not reading.cancelled() and reading.exception() is None:
            sequence_id = reading.result().sequence_id
            if sequence_id is not None:
                self.engine.drop([sequence_id])

    def _tree(self, node: Node) -> _Tree:
        return self._trees.setdefault(_root(node), _Tree())

    def _charge_of_prompt(self, node: Node) -> int:
        """Starts the prompt's run if this is the tree's first node; its tokens are then this node's to pay."""
        tree, root = self._tree(node), _root(node)
        if tree.reading is not None:
            return 0
        tree.reading = asyncio.create_task(self._read_prompt(tree, root))
        return len(root.prompt_tokens)

    async def _read_prompt(self, tree: _Tree, root: Node) -> _Scored:
        done: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
        request = EngineRequest(root.prompt_tokens, _NOTHING, _KEY, keep=True)
        (sequence_id,) = await self.engine.add(request, settle(done))
        await self._finished(sequence_id, done)
        scored = _Scored(root.prompt_tokens, (), sequence_id)
        tree.nodes[root.key] = scored
        return scored

    async def _score(self, node: Node) -> tuple[tuple[float, ...], int]:
        tree = self._tree(node)
        assert tree.reading is not None
        prompt = await asyncio.shield(tree.reading)
        known = (prompt, tree.bases.get(node.key), self._nearest(tree, node.parent))
        base = max((scored for scored in known if scored is not None), key=lambda scored: len(scored.ids))
        ids = (*node.prompt_tokens, *node.tokens)
        append = ids[len(base.ids) :]
        if not append:
            raise ScorerError(f"reward model {self.name}: a node without tokens of its own has no step to score")
        ends = self._step_ends(ids, len(base.ids))
        sequence_id, logits = await self._run_on(base, append, ends)
        fresh = tuple(_probabilities_of_good(logits).tolist())
        # A cut-off last line of the ancestor was scored where it was cut; its true end comes with the new tokens.
        whole = base.scores if not base.scores or self._ends_step(base.ids[-1]) else base.scores[:-1]
        tree.nodes[node.key] = _Scored(ids, whole + fresh, sequence_id)
        self._unpin(tree, node.key)
        return whole + fresh, len(append)

    async def _run_on(
        self, base: _Scored, append: TokenIds, ends: tuple[int, ...]
    ) -> tuple[int, npt.NDArray[np.float32]]:
        assert base.sequence_id is not None
        done: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
        (sequence_id,) = await self.engine.fork_and_extend(
            base.sequence_id, _KEY, 1, 0, _NOTHING, settle(done), append, ends, self._ids
        )
        output = await self._finished(sequence_id, done)
        if output.scores is None:
            raise ScorerError(f"reward model {self.name} gave no scores")
        return sequence_id, output.scores

    async def _finished(self, sequence_id: int, done: asyncio.Future[SequenceOutput]) -> SequenceOutput:
        try:
            output = await done
        except asyncio.CancelledError:
            await self.engine.dropped([sequence_id])
            raise
        if output.error is not None:
            raise ScorerError(f"reward model {self.name} failed: {output.error}") from output.error
        return output

    def _ends_step(self, token: int) -> bool:
        return self._step_token in self._tokenizer.token_text(token)

    def _step_ends(self, ids: TokenIds, start: int) -> tuple[int, ...]:
        """Positions from `start` on where a step ends; the last token ends the last step wherever it stands."""
        ends = [position for position in range(start, len(ids)) if self._ends_step(ids[position])]
        if not ends or ends[-1] != len(ids) - 1:
            ends.append(len(ids) - 1)
        return tuple(ends)


def _root(node: Node) -> Node:
    while node.parent is not None:
        node = node.parent
    return node


def _probabilities_of_good(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """[steps, 2] logits of (good, bad) -> [steps] probability of good."""
    difference = logits[:, 1].astype(np.float64) - logits[:, 0].astype(np.float64)
    if not np.isfinite(difference).all():
        raise ScorerError("the reward model's logits are not finite")
    probabilities: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(np.clip(difference, -700, 700)))
    return probabilities

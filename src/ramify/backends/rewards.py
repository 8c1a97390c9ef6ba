"""Reward models on the local engine: process rewards after each step, or one outcome reward of the answer.

A node continues from the nearest scored ancestor's KV (the prompt at least), so each token of a tree is run once.
Where a model wants a mark of its own behind each step, what it reads is the answer with marks in it; the mark behind
an unfinished last step is read on a fork, so that the answer can go on without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ramify.backends.base import Node, StepScores
from ramify.engine.engine import Engine, settle
from ramify.engine.request import EngineRequest, SequenceOutput
from ramify.errors import EngineDiedError, RequestError, ScorerError
from ramify.models.reward_head import RewardHead
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds
from ramify.text.tokenizer import Tokenizer

_NOTHING = SamplingParams(max_tokens=0, detokenize=False)
_KEY = BranchKey.root(0, "reward")  # nothing is drawn
_UNIT = (0.0, 1.0)
_UNBOUNDED = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True)
class _OpenStep:
    """The last step of what was read, where it has not ended."""

    text: str = ""  # its last characters, in which the end of the step may have begun
    blank: bool = True  # whether it is nothing but space so far


@dataclass(slots=True)
class _Scored:
    """What is known of a node: its scores, and the parked sequence that has read it.

    Attributes:
        num_read: tokens of prompt and answer that were read.
        length: of the sequence, with marks.
        whole: scores of the steps that have ended.
        scores: the same, and of a last step that has not.
        step: that last step.
        pins: nodes that will continue from here.
    """

    num_read: int
    length: int
    whole: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    step: _OpenStep = _OpenStep()
    sequence_id: int | None = None
    pins: int = 0
    released: bool = False


@dataclass(slots=True)
class _Tree:
    """The scored nodes of one tree, and for nodes yet to be scored where they continue from; `reading` is the prompt's
    own run."""

    nodes: dict[BranchKey, _Scored] = field(default_factory=dict)
    bases: dict[BranchKey, _Scored] = field(default_factory=dict)
    reading: asyncio.Task[_Scored] | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """Some tokens of an answer as a reward model reads them.

    Attributes:
        ids: with marks.
        places: where in `ids` a step is read: at the end of each, and at the last token where no mark is wanted there.
        num_ended: how many of these are of steps that have ended.
        step: the last step, where it has not ended.
    """

    ids: TokenIds
    places: tuple[int, ...]
    num_ended: int
    step: _OpenStep


class StepReader:
    """Where the steps of an answer end, and the marks that a model wants there.

    Args:
        head: of the reward model.
        tokenizer: the reward model's.
        ends_of_text: ids that end an answer; a model with marks does not read them.
    """

    def __init__(self, head: RewardHead, tokenizer: Tokenizer, ends_of_text: frozenset[int]) -> None:
        self.step_token = "" if head.kind == "orm" else head.step_token or ""
        self.mark = None if head.kind == "orm" or head.mark is None else tokenizer.token_id(head.mark)
        self._text_of = tokenizer.token_text
        self._silent = frozenset() if self.mark is None else ends_of_text

    def read(self, tokens: TokenIds, step: _OpenStep) -> Passage:
        """Go on behind an open step. A mark stands in front of a token that is nothing but the end of the step."""
        ids: list[int] = []
        places: list[int] = []
        for token in tokens:
            if token in self._silent:
                continue
            text = self._text_of(token)
            seen, blank = step.text + text, step.blank and not text.strip()
            ids.append(token)
            if not self.step_token or self.step_token not in seen:
                step = _OpenStep(seen[max(0, len(seen) - len(self.step_token) + 1) :], blank)
                continue
            step = _OpenStep()
            if self.mark is None:
                places.append(len(ids) - 1)
            elif not blank:
                places.append(len(ids) if text.strip() else len(ids) - 1)
                ids.insert(places[-1], self.mark)
        num_ended, last = len(places), len(ids) - 1
        if self.mark is None and ids and last not in places[-1:]:
            places.append(last)
        return Passage(tuple(ids), tuple(places), num_ended, step)


_foreign_ids: WeakKeyDictionary[Tokenizer, WeakKeyDictionary[Tokenizer, frozenset[int]]] = WeakKeyDictionary()


def foreign_ids(tokenizer: Tokenizer, policy_tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of a policy that mean something else, or nothing, to another model. Slow once for each two."""
    known = _foreign_ids.setdefault(tokenizer, WeakKeyDictionary())
    if policy_tokenizer not in known:
        own, policy = tokenizer.backend.get_vocab(), policy_tokenizer.backend.get_vocab()
        known[policy_tokenizer] = frozenset(i for text, i in policy.items() if own.get(text) != i)
    return known[policy_tokenizer]


class RewardModel:
    """One reward model: the columns of its head, read where a step ends or at the end of the answer.

    Args:
        name: for messages.
        engine: runs it.
        tokenizer: its own.
        policy_tokenizer: of the model whose nodes are scored; must encode alike.

    Raises:
        RequestError: the model has no reward head, or another vocabulary than the policy.
        ModelError: a token of its reward head is not one of its vocabulary.
    """

    def __init__(self, name: str, engine: Engine, tokenizer: Tokenizer, policy_tokenizer: Tokenizer) -> None:
        model = engine.model_config
        head = model.reward
        if head is None:
            raise RequestError(f"{name} is no reward model: its config.json has no reward head (ramify.kind = prm)")
        self.name = name
        self.engine = engine
        self._tokenizer = tokenizer
        self._compatible: set[int] = set()
        self._foreign: set[int] = set()
        self.check_vocabulary(policy_tokenizer)
        self._outcome = head.kind == "orm"
        self._reader = StepReader(head, tokenizer, frozenset(model.eos_token_ids) | tokenizer.special_ids)
        if model.head == "vocabulary":
            assert head.good_token is not None
            assert head.bad_token is not None
            self._columns: tuple[int, ...] = (tokenizer.token_id(head.good_token), tokenizer.token_id(head.bad_token))
            self._good: int | None = 0
        else:
            self._columns = tuple(range(model.num_outputs))
            self._good = head.good_label
        self._range = _UNBOUNDED if self._outcome and self._good is None else _UNIT
        self._trees: dict[Node, _Tree] = {}  # by root: two runs of one problem have equal keys

    def check_vocabulary(self, policy_tokenizer: Tokenizer) -> None:
        """Raises `RequestError` if the ids of a policy do not mean the same here.

        Further ids do no harm. A special token may have another name (some reward models took an unused one for their
        mark) as long as it does not occur.
        """
        if policy_tokenizer is self._tokenizer or id(policy_tokenizer) in self._compatible:
            return
        others = foreign_ids(self._tokenizer, policy_tokenizer)
        if not others <= policy_tokenizer.special_ids:
            raise RequestError(
                f"reward model {self.name} has another vocabulary than the policy: choose one that shares it"
            )
        self._foreign |= others
        self._compatible.add(id(policy_tokenizer))

    def _check_ids(self, tokens: TokenIds) -> None:
        foreign = self._foreign.intersection(tokens) if self._foreign else ()
        for token in foreign:
            raise ScorerError(
                f"token {token} is {self._tokenizer.token_text(token)!r} to reward model {self.name} and a special "
                "token of another name to the policy: it cannot be scored"
            )

    async def score(self, nodes: Sequence[Node]) -> list[StepScores]:
        """One `StepScores` a node. The prompt is charged to the first node of its tree that is scored."""
        scores: list[StepScores | None] = [None] * len(nodes)
        fresh: dict[BranchKey, list[int]] = {}
        for place, node in enumerate(nodes):
            known = self._tree(node).nodes.get(node.key)
            if known is not None and node.parent is not None:
                scores[place] = StepScores(known.scores, 0, self._range)
            else:
                fresh.setdefault(node.key, []).append(place)
        charges = [self._charge_of_prompt(nodes[places[0]]) for places in fresh.values()]
        results = await asyncio.gather(*(self._score(nodes[places[0]]) for places in fresh.values()))
        for places, (found, num_tokens, num_marks), prompt in zip(fresh.values(), results, charges, strict=True):
            scores[places[0]] = StepScores(found, num_tokens + prompt, self._range, num_marks)
            for twin in places[1:]:
                scores[twin] = StepScores(found, 0, self._range)
        return [score for score in scores if score is not None]

    def release(self, node: Node) -> None:
        """Forget a node; with the root, its whole tree."""
        root = node.root
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
        tree = self._trees.get(node.root)
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
        return self._trees.setdefault(node.root, _Tree())

    def _charge_of_prompt(self, node: Node) -> int:
        """Starts the prompt's run if this is the tree's first node; its tokens are then this node's to pay."""
        tree, root = self._tree(node), node.root
        if tree.reading is not None:
            return 0
        tree.reading = asyncio.create_task(self._read_prompt(tree, root))
        return len(root.prompt_tokens)

    async def _read_prompt(self, tree: _Tree, root: Node) -> _Scored:
        self._check_ids(root.prompt_tokens)
        done: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
        request = EngineRequest(root.prompt_tokens, _NOTHING, _KEY, keep=True)
        (sequence_id,) = await self.engine.add(request, settle(done))
        await self._finished(sequence_id, done)
        length = len(root.prompt_tokens)
        scored = _Scored(length, length, sequence_id=sequence_id)
        tree.nodes[root.key] = scored
        return scored

    async def _score(self, node: Node) -> tuple[tuple[float, ...], int, int]:
        """Scores of a node, the tokens that were read for it, and how many of them are marks."""
        tree = self._tree(node)
        assert tree.reading is not None
        prompt = await asyncio.shield(tree.reading)
        known = (prompt, tree.bases.get(node.key), self._nearest(tree, node.parent))
        base = max((scored for scored in known if scored is not None), key=lambda scored: scored.num_read)
        tokens = (*node.prompt_tokens, *node.tokens)
        self._check_ids(tokens[base.num_read :])
        passage = self._reader.read(tokens[base.num_read :], base.step)
        if not passage.ids and base.scores:
            return base.scores, 0, 0
        marks = self._reader.mark is not None
        if len(tokens) == prompt.num_read or not (passage.ids or marks):
            raise ScorerError(f"reward model {self.name}: a node without tokens of its own has no step to score")
        scored = _Scored(len(tokens), base.length + len(passage.ids), base.whole, step=passage.step)
        if passage.ids:
            places = tuple(base.length + place for place in passage.places)
            scored.sequence_id, found = await self._run_on(base, passage.ids, places)
            scored.whole, scored.scores = base.whole + found[: passage.num_ended], base.whole + found
        num_tokens, num_marks = len(passage.ids), passage.num_ended if marks else 0
        if marks and not (scored.scores and passage.step.blank):
            scored.scores += await self._read_mark(base, scored)
            num_tokens, num_marks = num_tokens + 1, num_marks + 1
        if scored.sequence_id is not None:
            tree.nodes[node.key] = scored
            self._unpin(tree, node.key)
        return scored.scores, num_tokens, num_marks

    async def _read_mark(self, base: _Scored, scored: _Scored) -> tuple[float, ...]:
        """The score of a last step that has not ended, at a mark that is not kept."""
        assert self._reader.mark is not None
        behind = base if scored.sequence_id is None else scored
        try:
            sequence_id, found = await self._run_on(behind, (self._reader.mark,), (behind.length,))
        except BaseException:
            if scored.sequence_id is not None:
                self.engine.drop([scored.sequence_id])
            raise
        self.engine.drop([sequence_id])
        return found

    async def _run_on(self, base: _Scored, append: TokenIds, places: tuple[int, ...]) -> tuple[int, tuple[float, ...]]:
        """A fork that reads on, and its scores at some places."""
        assert base.sequence_id is not None
        done: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
        (sequence_id,) = await self.engine.fork_and_extend(
            base.sequence_id, _KEY, 1, 0, _NOTHING, settle(done), append, places, self._columns if places else ()
        )
        output = await self._finished(sequence_id, done)
        if not places:
            return sequence_id, ()
        if output.scores is None:
            raise ScorerError(f"reward model {self.name} gave no scores")
        return sequence_id, tuple(self._values(output.scores).tolist())

    def _values(self, columns: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """[places, columns] of the head -> [places] scores."""
        logits = columns.astype(np.float64)
        if not np.isfinite(logits).all():
            raise ScorerError(
                f"what reward model {self.name} gives is not finite: its weights or its dtype do not work"
            )
        if self._good is not None:
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities: npt.NDArray[np.float64] = odds[:, self._good] / odds.sum(axis=1)
            return probabilities
        return logits[:, 0] if self._outcome else 1.0 / (1.0 + np.exp(np.clip(-logits[:, 0], -700, 700)))

    async def _finished(self, sequence_id: int, done: asyncio.Future[SequenceOutput]) -> SequenceOutput:
        try:
            output = await done
        except asyncio.CancelledError:
            await self.engine.dropped([sequence_id])
            raise
        if isinstance(output.error, EngineDiedError):
            raise output.error
        if output.error is not None:
            raise ScorerError(f"reward model {self.name} failed: {output.error}") from output.error
        return output

"""`Context`: what a strategy may do. It owns the purse, the draws, the trace and the answers; a strategy owns nothing.

Every token is reserved before it is spent. All calls give results in launch order, so that a strategy written as plain
control flow gives one result per seed whatever ran first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ramify.backends.base import Backend, FloatArray, Node, Usage
from ramify.errors import BudgetExhausted, ConfigError
from ramify.randomness import BranchKey, uniform_counters
from ramify.sampling import Prompt, SamplingParams, TokenIds
from ramify.scoring.equivalence import Equivalence
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.branches import Branches
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.drawing import MAIN, Drawing
from ramify.strategies.kernel.launch import Wish
from ramify.strategies.kernel.ledger import Ledger
from ramify.strategies.kernel.result import Result, StopReason, show_answer
from ramify.strategies.kernel.score_book import ScoreBook
from ramify.strategies.kernel.standing import Numbers, Standing
from ramify.strategies.kernel.trace import (
    AnyEvent,
    Asked,
    Cut,
    Dropped,
    Forced,
    Grown,
    Noted,
    Probed,
    Ran,
    Reported,
    Rooted,
    Scored,
    Trace,
)
from ramify.strategies.steps import StepSplitter

Order = Literal["launch", "finish"]
_FREE: dict[str, Any] = {"structured_outputs": None}
"""What a judge or a probe says is no answer, and has not the form that answers are to have."""
FINISH_ORDER = "answers were taken as they finished: the result depends on timing and favours short ones"


class Context:
    """One run of one strategy on one problem. Made by `runtime.solve`.

    Args:
        problem: what is to be answered.
        backend: where tokens come from.
        key: the root's branch key.
        sampling: how tokens are drawn unless a call says otherwise; ``max_tokens`` limits a whole answer.
        budget: the hard cap.
        equivalence: what makes two answers the same.
        listener: called with every trace event.
        reserve: tokens of the budget that are held back for `complete`.
    """

    def __init__(
        self,
        problem: Problem,
        backend: Backend,
        key: BranchKey,
        sampling: SamplingParams,
        budget: Budget,
        equivalence: Equivalence,
        listener: Callable[[AnyEvent], None] | None = None,
        reserve: int = 0,
    ) -> None:
        self.problem = problem
        self.budget = budget
        self.sampling = sampling
        self.capabilities = backend.capabilities
        self.trace = Trace(listener=listener)
        self._backend = backend
        self._key = key
        self._branches = Branches(backend, sampling)
        self._branches.numbers[key] = 0
        self._drawing = Drawing(backend, self._branches, budget, reserve)
        self._book = ScoreBook(self._drawing.purse, budget.prices)
        self._standing = Standing(problem, equivalence)
        self._roots: dict[str | None, Node] = {}
        self._num_asked = 0
        self._notes: list[str] = []

    @property
    def exhausted(self) -> bool:
        """Whether the budget has refused or cut a branch."""
        return self._drawing.exhausted

    async def root(self, model: str | None = None) -> Node:
        """The root of the problem's tree (the same node at each call), under the main model or another. Runs nothing.

        Raises:
            RequestError: the backend has no such model.
        """
        if model not in self._roots:
            key = self._key if model is None else self._key.named(f"model/{model}")
            root = await self._backend.root(self.problem.prompt, key, self._drawing.meter(MAIN, model), model)
            self._roots[model] = self._branches.live[key] = root
            if model is not None:
                self.emit(Rooted(self.number(root), model))
        return self._roots[model]

    async def samples(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        until: StepSplitter | None = None,
        scored_by: Scorer | None = None,
        order: Order = "launch",
        **sampling: Any,
    ) -> AsyncGenerator[Node, None]:
        """Draw `n` continuations of each open node (``n[i]`` of ``nodes[i]``); yields each when it is done.

        In launch order, or with ``order="finish"`` as they end: then the result depends on timing and favours short
        answers, and says so in its notes. Ends early, after the last branch that the budget admits. `until` stops each
        at a step's end; `scored_by` also reserves what scoring it will take; other arguments override fields of the
        run's `SamplingParams`. Close the iterator (`contextlib.aclosing`) to cancel the rest.
        """
        if order == "finish":
            self.note(FINISH_ORDER)
        wishes = self._book.prepare(self._branches.wishes(nodes, n, until, scored_by, sampling))
        async with aclosing(self._draw(wishes, order)) as drawn:
            async for node in drawn:
                yield node

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        until: StepSplitter | None = None,
        scored_by: Scorer | None = None,
        **sampling: Any,
    ) -> list[Node]:
        """All of `samples` as a list, in launch order: fewer than asked for where the budget ends.

        Raises:
            BudgetExhausted: some were asked for and not even one could be drawn.
        """
        drawn = [node async for node in self.samples(nodes, n, until, scored_by, **sampling)]
        if not drawn and nodes and (n if isinstance(n, int) else sum(n)):
            raise BudgetExhausted(f"no token is left of the budget for another branch: {self.budget}")
        return drawn

    async def step(
        self, nodes: Sequence[Node], until: StepSplitter | None = None, scored_by: Scorer | None = None, **sampling: Any
    ) -> list[Node]:
        """Move a population on: every open node is replaced by one continuation of it, finished nodes stay.

        The result is as long as `nodes`. Those that the budget no longer admits come back closed ("length").
        """
        going = [node for node in nodes if node.open]
        drawn = [node async for node in self.samples(going, 1, until, scored_by, **sampling)]
        cut = going[len(drawn) :]
        if cut:
            self.emit(Cut([self.number(node) for node in cut]))
        moved = iter([*drawn, *(replace(node, finish_reason="length", step_end=False) for node in cut)])
        self.retire(going)
        return [next(moved) if node.open else node for node in nodes]

    async def score(self, nodes: Sequence[Node], scorer: Scorer) -> FloatArray:
        """Scores of nodes, [nodes] float64 in the scorer's range; a node is scored and charged once.

        Raises:
            BudgetExhausted: nothing was reserved for it (see `scored_by`) and the rest does not suffice.
            ScorerError: the scorer failed or broke its contract.
        """
        fresh = self._book.missing(nodes, scorer)
        if fresh:
            await self._book.run(fresh, scorer, self.problem, self._backend)
        for node in fresh:
            self.emit(Scored(self.number(node), type(scorer).__name__, self._book.value(node, scorer)))
        return np.array([self._book.value(node, scorer) for node in nodes], dtype=np.float64)

    async def append(self, node: Node, continuation: str | TokenIds, keep: int | None = None) -> Node:
        """A child of `node` with known tokens behind it, open; they are counted as prompt and take no budget in tokens.

        With `keep`, behind the first `keep` tokens of its answer: the new node then stands in the place of `node`.

        Raises:
            PromptTooLongError: the context has no room for it.
            BudgetExhausted: reading it costs more dollars than are left.
        """
        tokens = self._ids(continuation, node.model)
        await self._drawing.spend(0, Usage(prompt=node.num_tokens + len(tokens)), node.model)
        added = await self._backend.append(node, tokens, self._branches.key_of_append(node), keep)
        parent = added.parent
        assert parent is not None
        self._branches.live[added.key] = added
        text = added.text.removeprefix(parent.text)
        new = list(added.tokens[len(parent.tokens) :])
        self.emit(Forced(self.number(added), self.number(parent), text, added.num_new_tokens, new))
        return added

    async def probe(
        self, nodes: Sequence[Node], suffix: str | TokenIds, max_tokens: int = 20, **sampling: Any
    ) -> list[Node]:
        """What the model says behind each node and a suffix: drawn on forks, charged to "probe", and thrown away.

        The nodes that come back are finished and no part of the tree; their `text` is what followed the suffix.

        Raises:
            BudgetExhausted: the budget does not admit all of them.
        """
        model = nodes[0].model if nodes else None
        meter, ids = self._drawing.meter("probe", model), self._ids(suffix, model)
        forks: list[Node] = []
        drawn: list[Node] = []
        try:
            await self._drawing.spend(0, Usage(prompt=sum(node.num_tokens + len(ids) for node in nodes)), model)
            keys = [self._branches.key_of_append(node) for node in nodes]
            bare = [replace(node, usage=meter) for node in nodes]
            forks = await self._together(map(self._backend.append, bare, [ids] * len(nodes), keys))
            wishes: list[Wish] = []
            for fork in forks:
                limits = {"max_tokens": fork.num_tokens + max_tokens, **_FREE, **sampling}
                wishes += self._branches.wishes([fork], 1, None, None, limits)
            drawn = await self._drawing.all(wishes)
        finally:
            self._branches.release([*forks, *drawn])
        if len(drawn) < len(nodes):
            raise BudgetExhausted(f"no token is left of the budget for another probe: {self.budget}")
        behind = [replace(d, text=d.text.removeprefix(f.text)) for f, d in zip(forks, drawn, strict=True)]
        for node, seen in zip(nodes, behind, strict=True):
            self.emit(Probed(self.number(node), seen.text, seen.num_new_tokens))
        return behind

    async def logprobs(self, node: Node, continuations: Sequence[str | TokenIds]) -> list[FloatArray]:
        """Log-probabilities of given continuations of a node, one array each, [tokens]; charged to "probe".

        Raises:
            BudgetExhausted: their tokens are more than is left.
        """
        ids = [self._ids(continuation, node.model) for continuation in continuations]
        tokens = sum(map(len, ids))
        await self._drawing.spend(tokens, Usage(probe=tokens), node.model)
        return await self._backend.logprobs(node, ids)

    async def ask(self, prompt: Prompt, purse: str = "program", model: str | None = None, **sampling: Any) -> Node:
        """One answer of a model to another prompt (a critic, a judge, a planner), charged to the purse named.

        Raises:
            BudgetExhausted: no token is left.
            ConfigError: `purse` is not program, probe or verifier.
        """
        return (await self.ask_all([prompt], purse, model, **sampling))[0]

    async def ask_all(
        self, prompts: Sequence[Prompt], purse: str = "program", model: str | None = None, **sampling: Any
    ) -> list[Node]:
        """One answer to each of several prompts, drawn together, in the order of the prompts.

        Raises:
            BudgetExhausted: the budget does not admit all of them (those that were drawn are charged).
            ConfigError: `purse` is not program, probe or verifier.
        """
        if purse not in ("program", "probe", "verifier"):
            raise ConfigError(f"purse={purse!r} does not work: choose program, probe or verifier")
        meter, wishes = self._drawing.meter(purse, model), []
        for prompt in prompts:
            key = self._key.named("ask").child(self._num_asked)
            self._num_asked += 1
            root = self._branches.live[key] = await self._backend.root(prompt, key, meter, model)
            form = {} if purse == "program" else _FREE
            wishes += self._branches.wishes([root], 1, None, None, {**form, **sampling})
        answers = await self._drawing.all(wishes)
        for answer in answers:
            self.emit(Asked(purse, answer.text, answer.num_new_tokens, self.number(answer)))
            self._tell_steps(answer)
        if len(answers) < len(prompts):
            raise BudgetExhausted(f"no token is left of the budget for another call: {self.budget}")
        return answers

    def drop(self, nodes: Iterable[Node]) -> None:
        """Give branches up: what runs below them stops and their memory is free before the next step."""
        nodes = [node for node in nodes if node.key in self._branches.live]
        if nodes:
            self.emit(Dropped([self.number(node) for node in nodes]))
            for node in nodes:
                self._book.forget(node)
                if node.open:
                    self._drawing.given_up.append(node.num_tokens)
            self.retire(nodes)

    def retire(self, nodes: Iterable[Node]) -> None:
        """These nodes will not be extended again (their continuations stand for them): free their memory.

        A root stays to the end, for it stands for the whole tree.
        """
        nodes = [node for node in nodes if node.parent is not None]
        for node in nodes:
            self._book.forget(node)
        self._branches.release(nodes)

    def uniforms(self, *path: str | int, n: int = 1) -> FloatArray:
        """`n` numbers in (0, 1) that depend on the seed, the problem and `path` alone."""
        return uniform_counters(self._key.named("/".join(map(str, path))), n)

    def uniform(self, *path: str | int) -> float:
        """One number in (0, 1) that depends on the seed, the problem and `path` alone."""
        return float(self.uniforms(*path)[0])

    def answer(self, node: Node) -> Hashable | None:
        """The key of a node's answer; None while it is open. Of a cut answer only whole lines are read."""
        return self._standing.answer(node)

    def key(self, text: str) -> Hashable | None:
        """The key of the answer that a text marks; None if it has none."""
        return self._standing.key(text)

    def encode(self, text: str, model: str | None = None) -> TokenIds:
        """Token ids of a text under a model. Raises `CapabilityError` where the backend has none."""
        return self._backend.encode(text, model)

    def free_tokens(self) -> int | None:
        """Tokens for which the backend has KV memory now; None where it does not say."""
        return self._backend.free_tokens()

    def emit(self, event: AnyEvent) -> None:
        """Add an event to the trace."""
        self.trace.emit(event)

    def note(self, text: str) -> None:
        """Add a remark to the result, once."""
        if text not in self._notes:
            self._notes.append(text)
            self.emit(Noted(text))

    def skip(self, n: int) -> None:
        """Say that `n` answers which the method could have drawn will not be (see `Ledger.saved`)."""
        self._drawing.num_skipped += max(0, n)

    def number(self, node: Node) -> int:
        """The node's number in the trace."""
        return self._branches.number(node)

    def report(
        self,
        nodes: Sequence[Node],
        best: int | None,
        scores: Numbers | None = None,
        weights: Numbers | None = None,
    ) -> None:
        """State the best answer so far: ``nodes[best]`` among `nodes` (each counted once; weights of equals add up).

        This is what the caller gets when the run is stopped here.
        """
        self._standing.report(nodes, best, scores, weights)
        self._emit_report()

    def result(
        self,
        nodes: Sequence[Node],
        best: int | None,
        scores: Numbers | None = None,
        weights: Numbers | None = None,
        certain: bool = False,
    ) -> Result:
        """The final `report` as a `Result`."""
        self.report(nodes, best, scores, weights)
        return self.conclude("certain" if certain else "budget" if self.exhausted else "finished")

    def conclude(self, reason: StopReason) -> Result:
        """A result from what has been reported so far; failing that, from the answers that were finished."""
        if self._standing.fall_back():
            self._emit_report()
        best = self._standing.best or self._roots.get(None) or Node(self._key)
        candidates, answer = self._standing.candidates, self.answer(best)
        return Result(
            best, answer, candidates, self.ledger(), reason, self.trace, self.problem.id, notes=tuple(self._notes)
        )

    async def complete(self, suffix: str, reserve: int) -> None:
        """Close the best unfinished answer with a forced suffix and up to `reserve` tokens, which were held back.

        Does nothing where the best answer is finished, or nothing has been drawn.
        """
        self._drawing.release()
        cut = self._standing.best or self._longest_open()
        if cut is None or cut.finish_reason == "stop":
            return
        ids = self._ids(suffix, cut.model)
        room = self._backend.context_length(cut.model) - len(cut.prompt_tokens) - len(ids) - reserve
        keep = None if len(cut.tokens) <= room else max(0, room)
        forced = await self.append(cut, ids, keep)
        drawn = await self._drawing.all(
            self._branches.wishes([forced], 1, None, None, {"max_tokens": forced.num_tokens + reserve})
        )
        for node in drawn:
            self._grown(node)
            self._standing.replace_best(node)
            self._emit_report()

    def ledger(self) -> Ledger:
        """What has been spent so far. Complete once nothing runs."""
        return self._drawing.ledger(self._standing.candidates, self._standing.finished)

    async def close(self) -> None:
        """Cancel what still runs and release every node."""
        await self._drawing.close()
        self._branches.release(list(self._branches.live.values()))

    def check(self) -> None:
        """Hold the run to its laws (see `Drawing.check`). Raises `EngineError` if one is broken."""
        self._drawing.check(self.ledger())

    async def _together(self, calls: Iterable[Coroutine[Any, Any, Node]]) -> list[Node]:
        """The nodes that some calls make, run at once. Those made before a failure or a cancel are released later."""
        tasks = [asyncio.ensure_future(call) for call in calls]
        try:
            made = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self._branches.live.update({node.key: node for node in outcomes if isinstance(node, Node)})
            raise
        self._branches.live.update({node.key: node for node in made})
        return made

    def _longest_open(self) -> Node | None:
        """The branch that got furthest, the first of equals."""
        numbered = [node for node in self._branches.live.values() if node.key in self._branches.numbers and node.tokens]
        return max(numbered, key=lambda node: (node.num_tokens, -self.number(node)), default=None)

    def _tell_steps(self, node: Node) -> None:
        if node.steps is not None:
            self.trace.tell(Ran(self.number(node), *node.steps))

    def _emit_report(self) -> None:
        best = self._standing.best
        if best is not None:
            answer = show_answer(self.answer(best))
            self.emit(Reported(self.number(best), answer, len(self._standing.candidates)))

    def _ids(self, continuation: str | TokenIds, model: str | None) -> TokenIds:
        return self._backend.encode(continuation, model) if isinstance(continuation, str) else tuple(continuation)

    async def _draw(self, wishes: list[Wish], order: Order) -> AsyncGenerator[Node, None]:
        async with self._drawing.launch(wishes) as launch:
            async for node, wish, reserved in launch.nodes() if order == "launch" else launch.as_finished():
                self._book.reserve(node, wish, reserved)
                yield self._grown(node)

    def _grown(self, node: Node) -> Node:
        """A branch is handed to the strategy."""
        parent = node.parent
        assert parent is not None
        node = self._branches.received(node)
        text = node.text.removeprefix(parent.text)
        number, above = self.number(node), self.number(parent)
        new = list(node.tokens[len(parent.tokens) :])
        self.emit(Grown(number, above, text, node.num_new_tokens, node.finish_reason, node.cum_logprob, new))
        self._tell_steps(node)
        if not node.open:
            self._standing.finished.append(node)
        return node

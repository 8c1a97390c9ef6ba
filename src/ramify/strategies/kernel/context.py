"""`Context`: what a strategy may do. It owns the purse, the draws, the trace and the answers; a strategy owns nothing.

Every token is reserved before it is spent. All calls give results in launch order, so that a strategy written as plain
control flow gives one result per seed whatever ran first.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ramify.backends.base import Backend, Capability, FloatArray, Node, Usage
from ramify.errors import BudgetExhausted, ConfigError, EngineError
from ramify.randomness import BranchKey, uniform_counters
from ramify.sampling import Prompt, SamplingParams
from ramify.scoring.equivalence import Equivalence
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.launch import Launch, Wish, limited
from ramify.strategies.kernel.ledger import Ledger
from ramify.strategies.kernel.purse import Purse
from ramify.strategies.kernel.result import Result, StopReason, path_tokens, show_answer
from ramify.strategies.kernel.score_book import ScoreBook
from ramify.strategies.kernel.standing import Numbers, Standing
from ramify.strategies.kernel.trace import AnyEvent, Asked, Cut, Dropped, Grown, Reported, Scored, Trace
from ramify.strategies.steps import StepSplitter

MAIN = "generated"


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
    ) -> None:
        self.problem = problem
        self.budget = budget
        self.sampling = sampling
        self.capabilities = backend.capabilities
        self.trace = Trace(listener=listener)
        self.exhausted = False
        """Whether the budget has refused or cut a branch."""
        self._backend = backend
        self._key = key
        self._purse = Purse(budget)
        self._book = ScoreBook(self._purse, budget.prices)
        self._meters = {MAIN: Usage()}
        self._root: Node | None = None
        self._launches: set[Launch] = set()
        self._live: dict[BranchKey, Node] = {}
        self._num_drawn = 0
        self._num_asked = 0
        self._children: dict[BranchKey, int] = {}
        self._numbers: dict[BranchKey, int] = {}
        self._standing = Standing(problem, equivalence)
        self._started_s = time.monotonic()

    async def root(self) -> Node:
        """The root of the problem's tree (the same node at each call). Runs nothing."""
        if self._root is None:
            self._root = await self._backend.root(self.problem.prompt, self._key, self._meters[MAIN])
            self._live[self._key] = self._root
            self._numbers[self._key] = 0
        return self._root

    async def samples(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        until: StepSplitter | None = None,
        scored_by: Scorer | None = None,
        **sampling: Any,
    ) -> AsyncGenerator[Node, None]:
        """Draw `n` continuations of each open node; yields them in launch order, each when it is done.

        Ends early, after the last branch that the budget admits. `until` stops each at a step's end; `scored_by` also
        reserves what scoring it will take; other arguments override fields of the run's `SamplingParams`. Close the
        iterator (`contextlib.aclosing`) to cancel the rest.
        """
        async with aclosing(self._draw(self._wishes(nodes, n, until, scored_by, sampling))) as drawn:
            async for node in drawn:
                yield node

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        until: StepSplitter | None = None,
        scored_by: Scorer | None = None,
        **sampling: Any,
    ) -> list[Node]:
        """All of `samples` as a list, in launch order: fewer than asked for where the budget ends.

        Raises:
            BudgetExhausted: not even one could be drawn.
        """
        drawn = [node async for node in self.samples(nodes, n, until, scored_by, **sampling)]
        if not drawn and nodes:
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
            self.emit(Cut([self._numbers[node.key] for node in cut]))
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
            self.emit(Scored(self._numbers[node.key], type(scorer).__name__, self._book.value(node, scorer)))
        return np.array([self._book.value(node, scorer) for node in nodes], dtype=np.float64)

    async def ask(self, prompt: Prompt, purse: str = "program", **sampling: Any) -> Node:
        """One answer of the model to another prompt (a critic, a judge, a planner), charged to the purse named.

        Raises:
            BudgetExhausted: no token is left.
            ConfigError: `purse` is not program, probe or verifier.
        """
        if purse not in ("program", "probe", "verifier"):
            raise ConfigError(f"purse={purse!r} does not work: choose program, probe or verifier")
        meter = self._meters.setdefault(purse, Usage())
        root = await self._backend.root(prompt, self._key.named("ask").child(self._num_asked), meter)
        self._num_asked += 1
        self._live[root.key] = root
        async with self._launch(self._wishes([root], 1, None, None, sampling)) as launch:
            answers = [node async for node, _, _ in launch.nodes()]
        if not answers:
            raise BudgetExhausted(f"no token is left of the budget for another call: {self.budget}")
        self.emit(Asked(purse, answers[0].text, answers[0].num_new_tokens))
        return answers[0]

    def drop(self, nodes: Iterable[Node]) -> None:
        """Give branches up: what runs below them stops and their memory is free before the next step."""
        nodes = [node for node in nodes if node.key in self._live]
        if nodes:
            self.emit(Dropped([self._numbers[node.key] for node in nodes]))
            for node in nodes:
                self._book.forget(node)
            self.retire(nodes)

    def retire(self, nodes: Iterable[Node]) -> None:
        """These nodes will not be extended again (their continuations stand for them): free their memory.

        A root stays to the end, for it stands for the whole tree.
        """
        self._release([node for node in nodes if node.parent is not None])

    def uniforms(self, *path: str | int, n: int = 1) -> FloatArray:
        """`n` numbers in (0, 1) that depend on the seed, the problem and `path` alone."""
        return uniform_counters(self._key.named("/".join(map(str, path))), n)

    def uniform(self, *path: str | int) -> float:
        """One number in (0, 1) that depends on the seed, the problem and `path` alone."""
        return float(self.uniforms(*path)[0])

    def answer(self, node: Node) -> Hashable | None:
        """The key of a node's answer; None while it is open. Of a cut answer only whole lines are read."""
        return self._standing.answer(node)

    def emit(self, event: AnyEvent) -> None:
        """Add an event to the trace."""
        self.trace.emit(event)

    def number(self, node: Node) -> int:
        """The node's number in the trace."""
        return self._numbers[node.key]

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
        best = self._standing.best or self._root or Node(self._key)
        candidates, answer = self._standing.candidates, self.answer(best)
        return Result(best, answer, candidates, self.ledger(), reason, self.trace, problem_id=self.problem.id)

    def ledger(self) -> Ledger:
        """What has been spent so far. Complete once nothing runs."""
        candidates = self._standing.candidates
        on_paths = path_tokens(candidates)
        return Ledger.of(
            self._meters,
            self.budget.prices,
            discarded=self._meters[MAIN].generated - on_paths,
            saved=sum(candidate.node.num_tokens for candidate in candidates) - on_paths,
            wall_s=time.monotonic() - self._started_s,
        )

    async def close(self) -> None:
        """Cancel what still runs and release every node."""
        for launch in list(self._launches):
            await launch.close()
        self._release(list(self._live.values()))

    def check(self) -> None:
        """Hold the run to its laws: branches do not add up to more than was metered, and the budget was kept.

        Raises:
            EngineError: a law is broken; either is a fault of the backend or of the kernel.
        """
        metered = sum(meter.generated for meter in self._meters.values())
        if self._num_drawn > metered:
            raise EngineError(f"branches have {self._num_drawn} tokens, but {metered} were metered: a count is wrong")
        total, limit = self.ledger().total_tokens, self.budget.tokens
        if limit is not None and total > limit:
            raise EngineError(f"{total} tokens were spent of a budget of {limit}: a reservation was too small")

    def _emit_report(self) -> None:
        best = self._standing.best
        if best is not None:
            answer = show_answer(self.answer(best))
            self.emit(Reported(self._numbers[best.key], answer, len(self._standing.candidates)))

    @asynccontextmanager
    async def _launch(self, wishes: list[Wish]) -> AsyncGenerator[Launch, None]:
        async with Launch(wishes, self._purse, self.budget.prices, self._backend, self._drawn) as launch:
            self._launches.add(launch)
            try:
                yield launch
            finally:
                self._launches.discard(launch)
        self.exhausted |= launch.short

    async def _draw(self, wishes: list[Wish]) -> AsyncGenerator[Node, None]:
        async with self._launch(wishes) as launch:
            async for node, wish, reserved in launch.nodes():
                self._book.reserve(node, wish, reserved)
                yield self._receive(node)

    def _wishes(
        self, nodes: Sequence[Node], n: int, until: StepSplitter | None, scorer: Scorer | None, sampling: dict[str, Any]
    ) -> list[Wish]:
        params = self.sampling.with_(**{**sampling, "n": 1})
        if scorer is not None and Capability.LOGPROBS in scorer.needs and params.logprobs is None:
            params = params.with_(logprobs=0)
        step_end = None if until is None else until.step_end
        wishes = []
        for node in nodes:
            here = limited(params, self._room(node, params.max_tokens))
            first = self._children.get(node.key, 0)
            self._children[node.key] = first + n
            wishes += [Wish(node, first + i, here, step_end, scorer) for i in range(n)]
        return self._book.prepare(wishes)

    def _room(self, node: Node, max_tokens: int | None) -> int:
        context = self._backend.max_model_len - len(node.prompt_tokens)
        return max(0, (context if max_tokens is None else min(context, max_tokens)) - node.num_tokens)

    def _drawn(self, node: Node) -> None:
        """A branch has ended, in any order: count it, and remember to release it."""
        self._live[node.key] = node
        self._num_drawn += node.num_new_tokens

    def _receive(self, node: Node) -> Node:
        """A branch is handed to the strategy, in launch order."""
        parent = node.parent
        assert parent is not None
        if node.open and self._room(node, self.sampling.max_tokens) == 0:
            node = replace(node, finish_reason="length", step_end=False)
        number = self._numbers[node.key] = len(self._numbers)
        text = node.text.removeprefix(parent.text)
        above = self._numbers[parent.key]
        self.emit(Grown(number, above, text, node.num_new_tokens, node.finish_reason, node.cum_logprob))
        if not node.open:
            self._standing.finished.append(node)
        return node

    def _release(self, nodes: Iterable[Node]) -> None:
        live = [self._live.pop(node.key) for node in nodes if node.key in self._live]
        if live:
            self._backend.release(live)

"""Running layers: each component as one function over the candidates, their critiques, the tests and what was passed.

A reply that cannot be read never ends a run and never counts: what is done instead stands with each component, and the
result's notes say that it happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from ramify.backends.base import Capability, Node
from ramify.errors import PromptTooLongError
from ramify.scoring.equivalence.code import python_block
from ramify.scoring.problem import Problem
from ramify.scoring.sandbox import Sandbox
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.trace import Scored
from ramify.strategies.programs.archon_layers import (
    Component,
    Critic,
    Evaluator,
    Fuser,
    Generator,
    Layer,
    Ranker,
    UnitTests,
    Verifier,
)
from ramify.strategies.programs.archon_prompts import Prompts
from ramify.strategies.programs.archon_replies import (
    read_code_tests,
    read_outcomes,
    read_ranking,
    read_sections,
    read_tests,
    read_verdict,
    whole_ranking,
)
from ramify.strategies.selection.prompts import fill, question_text
from ramify.strategies.selection.self_consistency import majority


@dataclass(frozen=True, slots=True)
class Draft:
    """One candidate.

    Attributes:
        node: the answer.
        critique: what a critic said of it.
        passed: how many of the tests it passed.
    """

    node: Node
    critique: str | None = None
    passed: int | None = None

    @property
    def text(self) -> str:
        """What other components see."""
        return self.node.text.strip()


class LayerRun:
    """One problem on its way through the layers.

    Args:
        problem, context: what is answered, and with what.
        prompts: what components ask.
        retries: how often a critic is asked again whose reply cannot be read.
        sandbox: where tests that are programs run.

    Attributes:
        candidates: what the next layer works on.
        answers: every answer drawn so far, in launch order: the candidates of the result.
        ranked: whether the order of the candidates says which is best.
        tests: those written last, and whether they are programs.
    """

    def __init__(
        self, problem: Problem, context: Context, prompts: Prompts, retries: int = 3, sandbox: Sandbox | None = None
    ) -> None:
        self.candidates: list[Draft] = []
        self.answers: list[Node] = []
        self.ranked = False
        self.tests: list[str] = []
        self.code = False
        self._problem = problem
        self._context = context
        self._prompts = prompts
        self._retries = retries
        self._sandbox = sandbox or Sandbox()
        self._best: Node | None = None

    async def run(self, layers: Sequence[Layer]) -> Result:
        """All layers in order; the best answer so far is reported after each."""
        for layer in layers:
            await self._run_layer(layer)
            if not self.candidates:
                break  # the budget did not admit a single answer
            self._report()
        return self._context.conclude("budget" if self._context.exhausted else "finished")

    async def _run_layer(self, layer: Layer) -> None:
        """The components of a layer together: all of them are of one kind."""
        component = layer[0]
        match component:
            case Generator():
                await self._generate(layer)
            case Fuser():
                await self._fuse(layer)
            case Critic():
                await self._criticise(component)
            case Ranker():
                await self._rank(component)
            case Verifier():
                await self._verify(component)
            case UnitTests():
                await self._write_tests(component)
            case Evaluator():
                await self._evaluate(component)

    async def _generate(self, layer: Layer) -> None:
        """Answers to the problem's own prompt, of all models in one batch, are added to the candidates."""
        counts: dict[str | None, int] = {}
        for component in layer:
            counts[component.model] = counts.get(component.model, 0) + component.number
        roots = [await self._context.root(model) for model in counts]
        logprobs = 0 if Capability.LOGPROBS in self._context.capabilities else None
        drawn: list[Node] = []
        samples = self._context.samples(roots, list(counts.values()), logprobs=logprobs)
        async with aclosing(samples) as nodes:
            async for node in nodes:
                drawn.append(node)
                self.answers.append(node)
                self._context.report(self.answers, majority(self.answers, self._context))
        before = [draft.node for draft in self.candidates]
        self.candidates = [Draft(node) for node in self._usable([*before, *drawn])]
        self.ranked = False

    async def _criticise(self, critic: Component) -> None:
        """A text for each candidate: from one reply for all that has each once, else from a reply for each."""
        texts = await self._critiques_together(critic)
        if texts is None:
            prompt = self._prompts.critic_of_one_prompt
            texts = await self._each([self._about(prompt, draft) for draft in self.candidates], "program", critic.model)
        missing = sum(not text for text in texts)
        if missing:
            self._context.note(f"critic: {missing} of {len(texts)} candidates have no critique")
        self.candidates = [
            replace(draft, critique=text or None) for draft, text in zip(self.candidates, texts, strict=True)
        ]

    async def _critiques_together(self, critic: Component) -> Sequence[str] | None:
        """All critiques from one reply; None where it cannot be read, however often it is asked for."""
        count = len(self.candidates)
        if count < 2:
            return None
        prompt = self._about_all(self._prompts.critic_prompt, self.candidates)
        for retry in range(1 + self._retries):
            if retry:
                self._context.note("critic: a reply had no critique for each candidate, or two for one: asked again")
            try:
                (reply,) = await self._ask([prompt], "program", critic.model)
            except PromptTooLongError:
                self._context.note("critic: the context does not hold all candidates; each is judged alone")
                return None
            texts = read_sections(reply, count)
            if texts is not None:
                return texts
        self._context.note("critic: no reply could be read; each candidate is judged alone")
        return None

    async def _rank(self, ranker: Component) -> None:
        """The candidates in the order that one reply gives them; those it leaves out stay behind, in their order."""
        count = len(self.candidates)
        if count > 1:
            shown, reply = await self._ask_about_most(self._prompts.ranker_prompt, "verifier", ranker.model, "ranker")
            ranked = read_ranking(reply, shown)
            if len(ranked) < shown:
                self._context.note(
                    f"ranker: {shown - len(ranked)} of {shown} candidates are not ranked; they come last"
                )
            self.candidates = [self.candidates[place] for place in whole_ranking(ranked, count)]
            self.ranked = self.ranked or bool(ranked)  # a reply that ranks nothing says nothing about the best
        self._keep(ranker.number)

    async def _fuse(self, layer: Layer) -> None:
        """New candidates from all there are; those that are empty or cut do not count."""
        drawn: list[Node] = []
        for component in layer:
            drawn += await self._fused(component)
        self.answers += drawn
        good = self._whole(drawn)
        if len(good) < len(drawn):
            self._context.note(f"fuser: {len(drawn) - len(good)} of {len(drawn)} fused answers are empty or cut")
        if good:
            self.candidates, self.ranked = [Draft(node) for node in good], False
        else:
            self._context.note("fuser: no fused answer can be used; the candidates before it stay")

    async def _fused(self, fuser: Component) -> list[Node]:
        """What one fuser writes of as many candidates as the context holds."""
        for shown in range(len(self.candidates), 0, -1):
            prompt = self._about_all(self._prompts.fuser_prompt, self.candidates[:shown])
            try:
                return await self._context.ask_all([prompt] * fuser.number, "program", fuser.model)
            except PromptTooLongError:
                self._context.note(f"fuser: the context holds only {shown - 1} of {len(self.candidates)} candidates")
        return []

    async def _verify(self, verifier: Component) -> None:
        """The candidates that are said to be correct stay; all of them if none is."""
        prompts = [self._about(self._prompts.verifier_prompt, draft) for draft in self.candidates]
        replies = await self._each(prompts, "verifier", verifier.model)
        verdicts = [read_verdict(reply) for reply in replies]
        unread = sum(verdict is None for verdict in verdicts)
        if unread:
            self._context.note(
                f"verifier: {unread} of {len(verdicts)} verdicts cannot be read and call nothing correct"
            )
        kept = [draft for draft, verdict in zip(self.candidates, verdicts, strict=True) if verdict]
        if not kept:
            self._context.note("verifier: no candidate is called correct; all stay")
        self.candidates = kept or self.candidates

    async def _write_tests(self, component: UnitTests) -> None:
        """Tests of an answer, made from the question alone; no more than were asked for."""
        self.code = component.kind == "code"
        prompts = self._prompts
        prompt = prompts.code_tests_prompt if self.code else prompts.tests_prompt
        filled = fill(prompt, question=question_text(self._problem), count=str(component.number))
        (reply,) = await self._each([filled], "program", component.model)
        tests, listed = (read_code_tests(reply), True) if self.code else read_tests(reply)
        if tests and not listed:
            self._context.note(f"{component.name}: the reply is no JSON list of texts; its numbered lines were read")
        if len(tests) > component.number:
            self._context.note(f"{component.name}: {len(tests) - component.number} tests more than asked for")
        if not tests:
            self._context.note(f"{component.name}: no test could be read")
        self.tests = tests[: component.number]

    async def _evaluate(self, evaluator: Component) -> None:
        """Candidates by the number of tests that they pass, most first; equals in their order."""
        if not self.tests:
            self._context.note("evaluator: there is no test; the candidates stay as they are")
            self._keep(evaluator.number)
            return
        if self.code:
            passed = [await self._passed_by_running(draft) for draft in self.candidates]
        else:
            passed = await self._passed_by_reading(evaluator)
        for draft, count in zip(self.candidates, passed, strict=True):
            self._context.emit(Scored(self._context.number(draft.node), "tests", count / len(self.tests)))
        self.candidates = [replace(draft, passed=count) for draft, count in zip(self.candidates, passed, strict=True)]
        self.candidates.sort(key=lambda draft: -(draft.passed or 0))
        self.ranked = len(set(passed)) > 1 or self.ranked
        self._keep(evaluator.number)

    async def _passed_by_reading(self, evaluator: Component) -> list[int]:
        """How many statements hold for each candidate, in the model's word; what it does not say is not passed."""
        tests = "\n".join(f"[{number}] {test}" for number, test in enumerate(self.tests, start=1))
        prompt, count = self._prompts.evaluator_prompt, len(self.tests)
        prompts = [self._about(prompt, draft, tests=tests, count=str(count)) for draft in self.candidates]
        outcomes = [read_outcomes(reply, count) for reply in await self._each(prompts, "verifier", evaluator.model)]
        unread = sum(outcome is None for each in outcomes for outcome in each)
        if unread:
            self._context.note(
                f"evaluator: {unread} of {count * len(outcomes)} outcomes cannot be read and count as failed"
            )
        return [sum(outcome is True for outcome in each) for each in outcomes]

    async def _passed_by_running(self, draft: Draft) -> int:
        """How many tests a candidate's program passes in the sandbox; without a program, none."""
        source = python_block(draft.text)
        if source is None:
            self._context.note("evaluator: a candidate holds no program and passes no test")
            return 0
        runs = [await asyncio.to_thread(self._sandbox.run, f"{source}\n\n{test}\n") for test in self.tests]
        return sum(run.outcome == "ok" for run in runs)

    def _report(self) -> None:
        """The best answer so far: of the candidates that can be read, the first if they are ranked, else the majority.

        Where none can be read, a readable answer of an earlier layer stands.
        """
        nodes = [draft.node for draft in self.candidates]
        readable = [node for node in nodes if self._context.answer(node) is not None]
        if readable:
            self._best = readable[0] if self.ranked else readable[majority(readable, self._context) or 0]
        elif self._best is None or self._context.answer(self._best) is None:
            self._best = nodes[0] if nodes else None
        else:
            self._context.note("no answer of a layer's candidates can be read: that of an earlier one stands")
        best = None if self._best is None else [node.key for node in self.answers].index(self._best.key)
        self._context.report(self.answers, best)

    def _keep(self, count: int) -> None:
        """The first so many candidates; 0 keeps all."""
        self.candidates = self.candidates[:count] if count else self.candidates

    def _whole(self, nodes: Sequence[Node]) -> list[Node]:
        """Answers that say something and came to their end, or can be read although they did not."""
        ended = [node.finish_reason == "stop" and bool(node.text.strip()) for node in nodes]
        return [node for node, end in zip(nodes, ended, strict=True) if end or self._context.answer(node) is not None]

    def _usable(self, nodes: Sequence[Node]) -> list[Node]:
        """The whole ones; all if there is none, so that later layers have something to work on."""
        whole = self._whole(nodes)
        if len(whole) < len(nodes):
            left = "they stay, for there are no others" if not whole else "later layers do not see them"
            self._context.note(f"generator: {len(nodes) - len(whole)} of {len(nodes)} answers are empty or cut: {left}")
        return whole or list(nodes)

    def _about(self, prompt: str, draft: Draft, **parts: str) -> str:
        """A prompt about one candidate."""
        return fill(prompt, question=question_text(self._problem), answer=draft.text, **parts)

    def _about_all(self, prompt: str, drafts: Sequence[Draft]) -> str:
        """A prompt about several candidates, numbered from 1, with their critiques."""
        answers = "\n\n".join(self._item(number, draft) for number, draft in enumerate(drafts, start=1))
        form = " > ".join(f"[{number}]" for number in range(len(drafts), 0, -1))
        return fill(prompt, question=question_text(self._problem), answers=answers, count=str(len(drafts)), form=form)

    def _item(self, number: int, draft: Draft) -> str:
        item = fill(self._prompts.item, number=str(number), answer=draft.text)
        if draft.critique is None:
            return item
        return item + fill(self._prompts.critique, number=str(number), critique=draft.critique)

    async def _ask_about_most(self, prompt: str, purse: str, model: str | None, who: str) -> tuple[int, str]:
        """How many candidates the context holds in one prompt, and the reply; 0 and nothing if it holds none."""
        for shown in range(len(self.candidates), 0, -1):
            try:
                (reply,) = await self._ask([self._about_all(prompt, self.candidates[:shown])], purse, model)
            except PromptTooLongError:
                self._context.note(f"{who}: the context holds only {shown - 1} of {len(self.candidates)} candidates")
            else:
                return shown, reply
        return 0, ""

    async def _each(self, prompts: Sequence[str], purse: str, model: str | None) -> list[str]:
        """A reply to each prompt; an empty one to a prompt that the context does not hold."""
        try:
            return await self._ask(prompts, purse, model)
        except PromptTooLongError:
            self._context.note("the context does not hold a prompt about one candidate: it has no reply")
        replies = []
        for prompt in prompts:
            try:
                replies += await self._ask([prompt], purse, model)
            except PromptTooLongError:
                replies.append("")
        return replies

    async def _ask(self, prompts: Sequence[str], purse: str, model: str | None) -> list[str]:
        """Replies as text, of cut ones the whole lines; they are read once, and their memory is free then."""
        replies = await self._context.ask_all(prompts, purse, model)
        self._context.retire(replies)
        whole = [reply.finish_reason == "stop" for reply in replies]
        if not all(whole):
            self._context.note("a reply was cut: only its whole lines are read")
        texts = [
            reply.text if end else reply.text.rpartition("\n")[0] for reply, end in zip(replies, whole, strict=True)
        ]
        return [text.strip() for text in texts]

"""What both forms of adaptive branching tree search share: ask for a node, make an answer from it, tell its score.

Inoue et al., arXiv:2503.04412. Nodes are whole answers; a child is a revision of its parent, or a fresh answer below
the root. The choice of the node is in `ab_mcts_tree`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.sampling import Prompt
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.prompts import content_text, fill, text_or_messages, unknown_slots
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method
from ramify.strategies.search.ab_mcts_posteriors import Posterior, normal_draw
from ramify.strategies.search.ab_mcts_tree import ROOT, Branching, Trials, Uniforms, choose_generator
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of, finished, vote

TEMPLATE = (
    "{problem}\n\nAn earlier attempt:\n{answer}\n\n"
    "Find what is wrong or weak in the attempt, then write a complete and better solution."
)


@dataclass(frozen=True)
class AdaptiveBranching(Method):
    """Base of the two: options, and the loop of ask, draw, score and tell.

    Attributes:
        trials: answers to make.
        scorer: gives each whole answer a score from 0 to 1; a process reward model by default.
        refine: "continue" keeps a random number of the parent's steps, but not all, and draws the rest anew; "ask"
            shows the parent's answer to the model in a prompt and takes the reply as the new answer.
        template: of that prompt; it may name {problem}, {answer} and {score}.
        temperatures: several generators, as temperatures with + between them ("0.6+1.0"); Thompson sampling on the
            scores of each chooses one. Empty: one generator, as the sampling options say.
        parallel: answers asked for at once, before any of their scores is known.
        select: "value" gives the answer with the highest score, "vote" lets the scores vote.
        until: where a step ends, for "continue"; a line by default.
    """

    trials: int = 16
    scorer: Scorer = field(default_factory=ProcessReward)
    refine: Literal["continue", "ask"] = "continue"
    template: str = TEMPLATE
    temperatures: str = ""
    parallel: int = 1
    select: Literal["value", "vote"] = "value"
    until: StepSplitter = field(default_factory=lines)

    def __post_init__(self) -> None:
        if self.trials < 1 or self.parallel < 1:
            raise ConfigError(f"trials={self.trials}, parallel={self.parallel} do not work: both must be at least 1")
        if self.scorer.range != (0.0, 1.0):
            raise ConfigError(
                f"adaptive branching needs scores from 0 to 1; {type(self.scorer).__name__} gives "
                f"{self.scorer.range}: use scorer=prm or scorer=rule"
            )
        if unknown_slots(self.template, ("problem", "answer", "score")):
            raise ConfigError(
                f"template={self.template!r} does not work: only {{problem}}, {{answer}}, {{score}} can stand in it"
            )
        if "{answer}" not in self.template:
            raise ConfigError(f"template={self.template!r} does not work: it must show the {{answer}}")
        self.generators()

    @property
    def requires(self) -> frozenset[Capability]:
        """What the scorer needs, and to go on from inside an answer."""
        return self.scorer.needs | {Capability.CONTINUE}

    def branching(self) -> Branching:
        """How the node is chosen."""
        raise NotImplementedError

    def posterior(self) -> Posterior:
        """How a generator is chosen."""
        return normal_draw

    def generators(self) -> list[dict[str, Any]]:
        """What each generator changes of the sampling options.

        Raises:
            ConfigError: a temperature is no number of 0 or more.
        """
        try:
            settings: list[dict[str, Any]] = [
                {"temperature": float(part)} for part in self.temperatures.split("+") if part.strip()
            ]
            for setting in settings:
                self.sampling.with_(**setting)
        except ValueError as error:
            raise ConfigError(f"temperatures={self.temperatures!r} do not work: write numbers as 0.6+1.0") from error
        return settings or [{}]

    def ask(self, trials: Trials, number: int, uniforms: Uniforms) -> tuple[int, int]:
        """The node to make answer `number` from, and the generator to make it."""

        def draws(name: str, n: int) -> Sequence[float]:
            return uniforms(f"{number}/{name}", n)

        node = self.branching().choose(trials, draws)
        return node, choose_generator(trials, len(self.generators()), self.posterior(), draws)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Ask, draw, score, tell."""
        trials, maker = Trials(), _Maker(self, problem, context, [await context.root()])

        def uniforms(name: str, n: int) -> Sequence[float]:
            return [float(value) for value in context.uniforms("ab-mcts", name, n=n)]

        while (done := len(trials.trials)) < self.trials:
            numbers = range(done, min(done + self.parallel, self.trials))
            asked = [self.ask(trials, number, uniforms) for number in numbers]
            for (parent, generator), node in zip(asked, await maker.make(asked), strict=False):
                if node is not None:
                    (score,) = await context.score([node], self.scorer)
                    trials.tell(parent, float(score), generator)
                    maker.answers.append(node)
            self._report(context, maker.answers[1:], trials)
        return self._report(context, maker.answers[1:], trials)

    def _report(self, context: Context, nodes: Sequence[Node], trials: Trials) -> Result:
        scores, among = [trial.score for trial in trials.trials], finished(nodes)
        best = best_of(scores, among)
        if self.select == "vote":
            marks = [scores[i] for i in among]
            winner = vote([context.answer(nodes[i]) for i in among], marks, merits=marks)
            best = best if winner is None else among[winner]
        return context.result(nodes, best, scores=scores)


@dataclass(slots=True)
class _Maker:
    """Makes answers from nodes; `answers` holds the root and then each trial's."""

    method: AdaptiveBranching
    problem: Problem
    context: Context
    answers: list[Node]

    async def make(self, asked: Sequence[tuple[int, int]]) -> list[Node | None]:
        """One answer for each (node, generator); None where the budget ended before its end."""
        made: list[Node | None] = [None] * len(asked)
        for generator, sampling in enumerate(self.method.generators()):
            places = [i for i, (_, wanted) in enumerate(asked) if wanted == generator]
            make = self._continue if self.method.refine == "continue" else self._revise
            for place, node in zip(places, await make([asked[i][0] for i in places], sampling), strict=True):
                made[place] = node
        return made

    async def _continue(self, parents: Sequence[int], sampling: Mapping[str, Any]) -> list[Node | None]:
        """Step by step, so that every step's end is a node that a later answer can go on from."""
        nodes: list[Node | None] = [self._cut(parent, len(self.answers) + i) for i, parent in enumerate(parents)]
        while going := [i for i, node in enumerate(nodes) if node is not None and node.open]:
            drawn = await self.context.extend(
                [node for node in nodes if node is not None and node.open],
                1,
                self.method.until,
                scored_by=self.method.scorer,
                **sampling,
            )
            await self.context.score(drawn, self.method.scorer)
            moved: list[Node | None] = [*drawn, *[None] * (len(going) - len(drawn))]
            for i, node in zip(going, moved, strict=True):
                nodes[i] = node
        return nodes

    def _cut(self, parent: int, number: int) -> Node:
        """The parent's answer after some of its steps, at least one and not all; the root for an answer of one step."""
        root, node = self.answers[ROOT], self.answers[parent]
        steps: list[Node] = []
        while node is not root and node.parent is not None:
            node = node.parent
            steps.append(node)
        inner = [step for step in steps if step is not root]
        return inner[int(self.context.uniform("ab-mcts", "cut", number) * len(inner))] if inner else root

    async def _revise(self, parents: Sequence[int], sampling: Mapping[str, Any]) -> list[Node | None]:
        """Fresh answers below the root; revisions by a prompt of their own, then put below the root as an answer."""
        context, root = self.context, self.answers[ROOT]
        made: list[Node | None] = []
        for parent in parents:
            if parent == ROOT:
                made += await context.extend([root], 1, scored_by=self.method.scorer, **sampling)
                continue
            (score,) = await context.score([self.answers[parent]], self.method.scorer)
            prompt = revision_prompt(self.problem.prompt, self.method.template, self.answers[parent].text, float(score))
            reply = await context.ask(prompt, **sampling)
            answer = await context.append(root, reply.tokens or reply.text)
            context.retire([reply])
            made.append(replace(answer, finish_reason=reply.finish_reason))
        return made


def revision_prompt(prompt: Prompt, template: str, answer: str, score: float) -> Prompt:
    """The problem's prompt with an earlier answer shown; in a chat, in place of its last message.

    Raises:
        ConfigError: the prompt is given as token ids.
    """
    given = text_or_messages(prompt)
    shown = {"answer": answer, "score": f"{score:.2f}"}
    if isinstance(given, str):
        return fill(template, problem=given, **shown)
    if given is None:
        raise ConfigError(
            "refine=ask needs the problem as text or chat messages, not as token ids: use refine=continue"
        )
    *before, last = given
    messages = (*before, {**last, "content": fill(template, problem=content_text(last), **shown)})
    if isinstance(prompt, Mapping):  # with the tools and whatever else its template is told
        return {**{key: value for key, value in prompt.items() if key != "prompt_token_ids"}, "messages": messages}
    return messages

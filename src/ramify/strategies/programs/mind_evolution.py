"""Mind evolution: a genetic search over whole answers, whose crossover and mutation are a talk of critic and author.

Lee et al., arXiv:2501.09891. The search needs a program that judges answers in words as well as by a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ramify.backends.base import Capability
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.mind_evolution_islands import (
    Island,
    best_first,
    distinct,
    emigrate,
    num_parents,
    tournament,
    worst_islands,
)
from ramify.strategies.programs.revision import ask_each, ask_one, check_at_least, fault_of, numbered, read_places
from ramify.strategies.programs.revision_attempts import Attempts, Evaluator, evaluator_of
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.prompts import check_template, fill, question_text

CRITIC = """{question}

{solutions}

You are a critic. Go through what the evaluation found, say why the proposed solutions fail, and how to correct and combine them; do not write a solution."""  # noqa: E501
AUTHOR = """{question}

{solutions}

A critic says:
{critique}

You are the author. Write one better solution. Reply with the whole solution and nothing else."""
ELITES = """{question}

{solutions}

Choose {count} of these solutions that are good and as different from each other as possible. Reply with their numbers alone, separated by commas."""  # noqa: E501
NO_CRITIQUE = "(nothing)"


@dataclass(slots=True)
class Talk:
    """One conversation: on which island, and the solutions that it goes on from."""

    island: int
    shown: list[int]


@strategy("mind-evolution", kind="approximate", paper="arXiv:2501.09891", needs=("scorer",))
@dataclass(frozen=True)
class MindEvolution(Method):
    """Islands of answers that evolve by talks of a critic and an author until one is solved, or generations end.

    A talk begins with parents, drawn by a Boltzmann tournament, or with a fresh answer. Each turn, the critic reads the
    evaluation of what there is and the author writes one new answer, which is judged, joins its island, and is what
    the next turn goes on from. All talks of a generation take their turns together.

    Attributes:
        generations, islands, conversations, turns: 10 of 4 islands with 5 talks of 4 turns: 800 answers at most.
        parents: of a talk, at most.
        fresh: probability of a talk without parents.
        emigrants: the best of each island that are copied to the next one in the ring after a generation.
        reset_every: after every so many generations the worst islands start anew from elites; 0 for never.
        resets: so many islands (one at least is left as it is).
        elites, elite_pool: the model picks 5 different ones out of the best 15 answers of all islands.
        tau: temperature of the tournament, in units of the score.
        scorer: judges where there is no evaluator; its feedback is its number, and its highest one a solution.
        evaluator: a program that gives a score, feedback in words, and whether it is solved; by default the one in the
            problem's metadata under "evaluator", if there is one.
        critic, author: models of the two; the main one by default.
        critic_prompt: with ``{question}`` and ``{solutions}``, each with its evaluation.
        author_prompt: with ``{question}``, ``{solutions}`` and ``{critique}``.
        elite_prompt: with ``{solutions}``, and ``{question}`` and ``{count}`` if wanted.
    """

    generations: int = 10
    islands: int = 4
    conversations: int = 5
    turns: int = 4
    parents: int = 5
    fresh: float = 1 / 6
    emigrants: int = 5
    reset_every: int = 3
    resets: int = 2
    elites: int = 5
    elite_pool: int = 15
    tau: float = 0.1
    scorer: Scorer = field(default_factory=ProcessReward)
    evaluator: Evaluator | None = None
    critic: str | None = None
    author: str | None = None
    critic_prompt: str = CRITIC
    author_prompt: str = AUTHOR
    elite_prompt: str = ELITES

    def __post_init__(self) -> None:
        check_at_least(1, generations=self.generations, islands=self.islands, conversations=self.conversations)
        check_at_least(1, turns=self.turns, parents=self.parents, elites=self.elites)
        check_at_least(0, emigrants=self.emigrants, reset_every=self.reset_every, resets=self.resets)
        check_at_least(self.elites, elite_pool=self.elite_pool)
        if not 0 <= self.fresh <= 1:
            raise ConfigError(f"fresh={self.fresh} does not work: a probability is from 0 to 1")
        if not self.tau > 0:
            raise ConfigError(f"tau={self.tau} does not work: it must be above 0")
        check_template(self.critic_prompt, "question", "solutions")
        check_template(self.author_prompt, "question", "solutions", "critique")
        check_template(self.elite_prompt, "solutions")

    @property
    def requires(self) -> frozenset[Capability]:
        """What the scorer needs; nothing with an evaluator."""
        return frozenset() if self.evaluator is not None else self.scorer.needs

    @property
    def other_models(self) -> tuple[str, ...]:
        """Those that criticise and rewrite, where they are not the main one."""
        return tuple(name for name in (self.critic, self.author) if name)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Generation by generation: talks, then migration, then resets."""
        question_text(problem)  # one that cannot be shown is refused before anything is drawn
        attempts = Attempts(context, self.scorer, evaluator_of(problem, self.evaluator))
        islands: list[Island] = [[] for _ in range(self.islands)]
        for generation in range(1, self.generations + 1):
            talks = self._pair(generation, islands, attempts, context)
            for _ in range(self.turns):
                await self._turn(talks, islands, attempts, context)
                if attempts.solved:
                    drawn = self.generations * self.islands * self.conversations * self.turns
                    context.skip(drawn - len(attempts.nodes))
                    return attempts.result(certain=True)
            if generation < self.generations:
                islands = [distinct(island, attempts.text) for island in islands]
                islands = emigrate(islands, self.emigrants, attempts.score, attempts.text)
                if self.reset_every and generation % self.reset_every == 0:
                    await self._reset(islands, attempts, context)
        return attempts.result()

    def _pair(self, generation: int, islands: Sequence[Island], attempts: Attempts, context: Context) -> list[Talk]:
        """The talks of a generation with the parents they begin from."""
        talks = []
        for place, island in enumerate(islands):
            for talk in range(self.conversations):
                path = (generation, place, talk)
                count = num_parents(context.uniform("parents", *path), self.fresh, min(self.parents, len(island)))
                marks = context.uniforms("tournament", *path, n=max(1, len(island)))
                winners = (
                    tournament([attempts.score(number) for number in island], self.tau, marks, count) if count else []
                )
                talks.append(Talk(place, [island[winner] for winner in winners]))
        return talks

    async def _turn(
        self, talks: Sequence[Talk], islands: Sequence[Island], attempts: Attempts, context: Context
    ) -> None:
        """Each talk gets one new answer: a fresh one where there is nothing to talk about, else the author's."""
        starting, going = [talk for talk in talks if not talk.shown], [talk for talk in talks if talk.shown]
        born: list[tuple[Talk, int | None]] = []
        if starting:
            born += zip(starting, await attempts.draft(len(starting)), strict=False)
        if going and not attempts.solved:
            born += zip(going, await self._write(going, attempts, context), strict=False)
        for talk, child in born:
            if child is not None and attempts.usable(child):
                talk.shown = [child]
                islands[talk.island].append(child)

    async def _write(self, talks: Sequence[Talk], attempts: Attempts, context: Context) -> list[int | None]:
        """What critic and author make of each talk's solutions: the numbers of the new answers."""
        question = question_text(context.problem)
        shown = [_show(talk.shown, attempts) for talk in talks]
        asked = [fill(self.critic_prompt, question=question, solutions=text) for text in shown]
        prompts = []
        for text, critique in zip(shown, await ask_each(context, asked, self.critic), strict=False):
            said = critique.text.strip() if critique else ""
            if not said:
                context.note(f"a critic's word is missing: {fault_of(critique)}; the author saw the evaluation alone")
            prompts.append(fill(self.author_prompt, question=question, solutions=text, critique=said or NO_CRITIQUE))
        replies = await ask_each(context, prompts, self.author, **attempts.sampling)
        return await attempts.take(replies, ["an author's answer"] * len(replies))

    async def _reset(self, islands: list[Island], attempts: Attempts, context: Context) -> None:
        """The worst islands are replaced by elites, in place."""
        worst = worst_islands(islands, self.resets, attempts.score)
        if worst:
            everybody = distinct(sorted(number for island in islands for number in island), attempts.text)
            chosen = await self._elites(best_first(everybody, attempts.score)[: self.elite_pool], attempts, context)
            for place in worst:
                islands[place] = list(chosen)

    async def _elites(self, pool: Sequence[int], attempts: Attempts, context: Context) -> list[int]:
        """Different good ones of the pool, by the model's choice; by score where it names too few."""
        if len(pool) <= self.elites:
            return list(pool)
        question, count = question_text(context.problem), str(self.elites)
        prompt = fill(self.elite_prompt, question=question, solutions=_show(pool, attempts), count=count)
        reply = await ask_one(context, prompt, self.critic)
        places = read_places(reply.text, len(pool))[: self.elites] if reply else []
        if len(places) < self.elites:
            why = fault_of(reply) or "the reply names too few solutions"
            context.note(f"choosing elites: {why}; the best by score were added")
        others = [place for place in range(len(pool)) if place not in places]
        return [pool[place] for place in (*places, *others)][: self.elites]


def _show(numbers: Sequence[int], attempts: Attempts) -> str:
    """Solutions with what the evaluation says of each."""
    judged = [f"{attempts.text(n)}\n\nEvaluation:\n{attempts.verdicts[n].feedback}" for n in numbers]
    return numbered("Proposed solution", judged)

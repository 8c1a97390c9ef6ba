"""Candidate pools: n samples a problem, drawn and scored once, stored as JSONL, then replayed by any selector offline.

A pool's file begins with its settings (task, model, sampling, seed, reward models); each further line is one sample.
It is written a problem at a time, so a killed run loses the problems in flight and goes on where it stopped; a
larger n or more problems add to the same file. Sample i of a problem is a function of the settings and i alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

from ramify.backends.base import Backend, Capability, Node, require
from ramify.errors import ConfigError, TaskError
from ramify.evals.jsonl import Journal, Record, read_journal
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring.confidence import TOP, self_certainty, token_confidences
from ramify.scoring.logprob import mean_logprob
from ramify.scoring.problem import Problem

CONCURRENCY = 16
"""Problems in flight: enough to fill a batch, few enough that a kill costs little."""
DIGITS = 6
"""Decimals of a confidence that are stored."""


class AnswerTask(Protocol):
    """What an evaluation needs of a task."""

    name: str

    def answer(self, text: str, problem: Problem) -> Hashable | None:
        """The answer's key, or None."""
        ...

    def correct(self, text: str, problem: Problem) -> bool:
        """Whether the solution is right."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One candidate answer of a pool.

    Attributes:
        problem: the problem's id.
        index: its place among the problem's samples, from 0.
        text, tokens: what was drawn (token ids empty where the backend has none).
        key: the answer's canonical key as text; None if none can be read.
        correct: whether the task accepts it.
        logprob: mean log-probability of its tokens; None where the backend gives none.
        steps: scores of its steps by reward model, each in [0, 1].
        finish_reason: "stop" or "length".
        prompt_tokens, generated: token counts.
        verifier: tokens each reward model ran for it beyond the prompt, which it reads once a problem.
        logprob_sum: log-probability of the whole of it; None where the backend gives none.
        self_certainty: see `scoring.confidence.SelfCertainty`; None where the pool was drawn without details.
        confidences: of each token, minus the mean log-probability of the likeliest ones (as many as the header's
            ``sampling.logprobs`` says); `trace_confidence` makes groups of any window of them. Empty without details.
    """

    problem: str
    index: int
    text: str
    tokens: tuple[int, ...]
    key: str | None
    correct: bool
    logprob: float | None
    finish_reason: str | None
    prompt_tokens: int
    generated: int
    steps: dict[str, tuple[float, ...]] = field(default_factory=dict)
    verifier: dict[str, int] = field(default_factory=dict)
    logprob_sum: float | None = None
    self_certainty: float | None = None
    confidences: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """Samples by problem, each list in the order of their indices from 0.

    Attributes:
        header: the settings it was drawn under.
        samples: problem id -> its samples.
    """

    header: Record
    samples: dict[str, list[Sample]]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Pool:
        """Read a pool's file.

        Raises:
            TaskError: there is no such file, or a record is no sample.
        """
        header, records = read_journal(path)
        return cls(header, _by_problem(records, os.fspath(path)))

    @property
    def n(self) -> int:
        """Samples that every problem has: the largest k that can be asked for. 0 for an empty pool."""
        return min(map(len, self.samples.values()), default=0)

    @property
    def reward_models(self) -> tuple[str, ...]:
        """Reward models whose step scores it holds."""
        return tuple(self.header["reward_models"])

    @property
    def details(self) -> int:
        """How many likeliest tokens its confidences average over; 0 if it holds none."""
        return self.header.get("sampling", {}).get("logprobs") or 0


async def draw_pool(
    path: str | os.PathLike[str],
    task: AnswerTask,
    problems: Sequence[Problem],
    backend: Backend,
    *,
    model: str,
    n: int,
    params: SamplingParams,
    seed: int = 0,
    reward_models: Sequence[str] = (),
    details: int = TOP,
    concurrency: int = CONCURRENCY,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Draw what a pool's file lacks of `n` samples a problem, and read the pool.

    Args:
        path: the file, new or from an earlier run with the same settings.
        task: reads and checks answers.
        problems: their ids must differ.
        backend: where samples and scores come from.
        model: the model's name, for the record.
        n: samples a problem.
        params: how to draw (its `n` and `logprobs` are set here, the latter to `details`).
        seed: of the draws.
        reward_models: score every sample's steps with these.
        details: likeliest tokens that confidences average over; 0 stores none. A file that exists keeps its own.
        concurrency: problems in flight.
        progress: called with (problems done, problems in all) after each problem.

    Raises:
        ConfigError: n is less than 1, ids repeat, or the file was written under other settings.
        CapabilityError: reward models are asked for that the backend does not offer.
    """
    if n < 1 or concurrency < 1:
        raise ConfigError(f"n={n}, concurrency={concurrency}: both must be 1 or more")
    if len({problem.id for problem in problems}) < len(problems):
        raise ConfigError("two problems have the same id: their samples could not be told apart")
    require(backend, {Capability.REWARD} if reward_models else (), "a pool with reward models")
    params = params.with_(
        n=1, logprobs=_details(path, details) if Capability.LOGPROBS in backend.capabilities else None
    )
    header = {
        "kind": "pool", "task": task.name, "model": model, "sampling": sampling_record(params), "seed": seed,
        "reward_models": sorted(reward_models),
    }  # fmt: skip
    with Journal(path, header) as journal:
        known = _by_problem(journal.records, os.fspath(path))
        slots = asyncio.Semaphore(concurrency)
        done = 0

        async def run(problem: Problem) -> None:
            nonlocal done
            have = len(known.get(problem.id, ()))
            if have < n:
                async with slots:
                    # The key that a strategy's run has: its samples are the pool's.
                    key = BranchKey.root(seed, f"{problem.task}/{problem.id}")
                    new = await _draw(task, problem, backend, params, key, range(have, n), reward_models)
                journal.append(asdict(sample) for sample in new)
            done += 1
            if progress is not None:
                progress(done, len(problems))

        await run_all(run(problem) for problem in problems)
    pool = Pool.load(path)
    return Pool(pool.header, {problem.id: pool.samples[problem.id][:n] for problem in problems})


def _details(path: str | os.PathLike[str], wanted: int) -> int:
    """What an earlier run's file holds of each token, so that it can be gone on with; else what is wanted."""
    try:
        header, _ = read_journal(path)
    except TaskError:
        return wanted  # a new file, or none of ours: the journal says so
    known = header.get("sampling", {}).get("logprobs")
    return wanted if known is None else int(known)


async def run_all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines together; the first failure cancels the others and is raised as itself, not inside a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def sampling_record(params: SamplingParams) -> Record:
    """The sampling parameters that differ from the defaults, as JSON."""
    default = SamplingParams()
    given = {f.name: getattr(params, f.name) for f in fields(params) if f.init}
    return {name: value for name, value in given.items() if value != getattr(default, name)}


def whole_lines(text: str, finish_reason: str | None) -> str:
    """What counts of an answer: all of it, or the whole lines of one that was cut (``#### 12`` may have become 123)."""
    return text if finish_reason == "stop" else text.rpartition("\n")[0]


def key_text(key: Hashable | None) -> str | None:
    """An answer's key as it is stored; None stays None."""
    return None if key is None else str(key)


async def _draw(
    task: AnswerTask, problem: Problem, backend: Backend, params: SamplingParams, key: BranchKey, wanted: range,
    reward_models: Sequence[str],
) -> list[Sample]:  # fmt: skip
    root = await backend.root(problem.prompt, key)
    place = {key.child(index): index for index in wanted}
    nodes: dict[int, Node] = {}
    try:
        async with aclosing(backend.extend(root, params, len(wanted), wanted.start)) as arriving:
            async for node in arriving:
                nodes[place[node.key]] = node
        ordered = [nodes[index] for index in wanted]
        rewards = {name: await backend.reward(ordered, name) for name in reward_models}
    finally:
        backend.release([*nodes.values(), root])
    return [
        Sample(
            problem=problem.id,
            index=index,
            text=node.text,
            tokens=node.tokens,
            key=key_text(task.answer(whole_lines(node.text, node.finish_reason), problem)),
            correct=task.correct(whole_lines(node.text, node.finish_reason), problem),
            logprob=None if params.logprobs is None else mean_logprob(node),
            finish_reason=node.finish_reason,
            prompt_tokens=len(node.prompt_tokens),
            generated=node.num_tokens,
            steps={name: scores[position].scores for name, scores in rewards.items()},
            # The first scored node of a tree pays for the prompt; which one that is depends on what was drawn before.
            verifier={
                name: scores[position].num_tokens - (len(root.prompt_tokens) if position == 0 else 0)
                for name, scores in rewards.items()
            },
            logprob_sum=node.cum_logprob,
            self_certainty=round(self_certainty(node), DIGITS) if params.logprobs else None,
            confidences=_confidences(node, params.logprobs),
        )
        for position, (index, node) in enumerate(zip(wanted, ordered, strict=True))
    ]


def _confidences(node: Node, top: int | None) -> tuple[float, ...]:
    return tuple(round(float(value), DIGITS) for value in token_confidences(node, top)) if top else ()


def _by_problem(records: Iterable[Record], path: str) -> dict[str, list[Sample]]:
    """Group records by problem; a problem's indices run from 0 without gaps, whatever a kill left of its last write."""
    found: dict[str, dict[int, Sample]] = {}
    for number, record in enumerate(records, start=2):
        sample = _sample(record, path, number)
        found.setdefault(sample.problem, {})[sample.index] = sample
    for problem, samples in found.items():
        if sorted(samples) != list(range(len(samples))):
            raise TaskError(f"{path}: the samples of {problem!r} have gaps in their indices; draw the pool again")
    return {problem: [samples[index] for index in sorted(samples)] for problem, samples in found.items()}


def _sample(record: dict[str, Any], path: str, number: int) -> Sample:
    try:
        values = {**record, "tokens": tuple(record["tokens"])}
        values["confidences"] = tuple(record.get("confidences", ()))
        values["steps"] = {name: tuple(scores) for name, scores in record["steps"].items()}
        return Sample(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise TaskError(f"{path}, line {number}: no sample of a pool ({error}); repair or remove the line") from None

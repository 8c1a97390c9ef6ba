"""What is measured: each workload makes the requests of a round, and reads one number from when the tokens came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.lab.drive import Arrival, Timeline
from benchmarks.lab.engines.base import Capacity, Request

_LOWEST_ID, _HIGHEST_ID = 10, 8000


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table.

    Attributes:
        name: in options and results.
        title: in the table.
        capacity: what an engine must hold.
        plan: the requests of a round, by its number and the size of the vocabulary.
        rate: tokens per second of a timeline.
        warm: the prompts' keys and values are in the engine's prefix cache before the clock starts.
    """

    name: str
    title: str
    capacity: Capacity
    plan: Callable[[int, int], list[Arrival]]
    rate: Callable[[Timeline], float]
    warm: bool = False


def random_ids(length: int, vocabulary: int, *key: int) -> tuple[int, ...]:
    """Token ids that depend on `key` alone."""
    highest = min(_HIGHEST_ID, vocabulary)
    return tuple(np.random.default_rng(key).integers(_LOWEST_ID, highest, length).tolist())


def prefill(length: int) -> Workload:
    """One prompt, new in every round, to its first token."""

    def plan(round_: int, vocabulary: int) -> list[Arrival]:
        return [Arrival(0.0, Request(random_ids(length, vocabulary, 1, length, round_), 1))]

    def rate(timeline: Timeline) -> float:
        return length / timeline.seconds

    return Workload(f"prefill-{length}", f"prefill, {length} tokens", Capacity(1, length + 1), plan, rate)


def decode(batch: int, context: int, new_tokens: int) -> Workload:
    """Sequences of different prompts that all draw."""

    def plan(round_: int, vocabulary: int) -> list[Arrival]:
        del round_  # the prompts stay, so that their keys and values do
        return [Arrival(0.0, Request(random_ids(context, vocabulary, 2, row), new_tokens)) for row in range(batch)]

    title = f"decode, batch {batch}"
    return Workload(
        f"decode-{batch}",
        title,
        Capacity(batch, context + new_tokens),
        plan,
        lambda timeline: timeline.full_batch_rate,
        warm=True,
    )


def mixed(requests: int, seconds: float, longest_prompt: int, longest_answer: int) -> Workload:
    """Prompts and answers of many lengths that come at random moments; all drawn tokens over all the time."""
    lengths = np.random.default_rng(3)
    prompts = lengths.integers(16, longest_prompt + 1, requests).tolist()
    answers = lengths.integers(8, longest_answer + 1, requests).tolist()
    moments = np.sort(lengths.uniform(0, seconds, requests)).tolist()

    def plan(round_: int, vocabulary: int) -> list[Arrival]:
        return [
            Arrival(at, Request(random_ids(prompt, vocabulary, 3, round_, row), answer))
            for row, (at, prompt, answer) in enumerate(zip(moments, prompts, answers, strict=True))
        ]

    def rate(timeline: Timeline) -> float:
        return timeline.tokens / timeline.seconds

    return Workload(
        "mixed", f"{requests} mixed arrivals", Capacity(requests, longest_prompt + longest_answer), plan, rate
    )


def samples(count: int, length: int, new_tokens: int) -> Workload:
    """Samples of one long prompt that is known already: what counts is drawing with a shared beginning."""

    def plan(round_: int, vocabulary: int) -> list[Arrival]:
        prompt = random_ids(length, vocabulary, 4, length)
        return [Arrival(0.0, Request(prompt, new_tokens, count, temperature=1.0, seed=round_))]

    return Workload(
        f"samples-{length}",
        f"{count} samples of one {length:,}-token prompt",
        Capacity(count, length + new_tokens, shared=True),
        plan,
        lambda timeline: timeline.full_batch_rate,
        warm=True,
    )


def warm_up(workload: Workload, vocabulary: int) -> list[Arrival]:
    """Requests that put the prompts of a warm workload into the prefix cache, or else try an engine out."""
    plan = workload.plan(-1 % 2**31, vocabulary)
    prompts = dict.fromkeys(arrival.request.prompt for arrival in plan)
    if not workload.warm:
        prompts = dict.fromkeys([next(iter(prompts))])
    return [Arrival(0.0, Request(prompt, 2)) for prompt in prompts]


FULL = (
    prefill(128),
    prefill(512),
    decode(1, 128, 33),
    decode(8, 128, 33),
    decode(32, 128, 33),
    decode(128, 32, 33),
    mixed(32, 4.0, 256, 48),
    samples(32, 512, 33),
    samples(32, 2048, 33),
)
QUICK = (
    prefill(512),
    decode(1, 128, 17),
    decode(8, 64, 13),
    decode(32, 32, 7),
    decode(128, 8, 5),
    mixed(8, 1.0, 64, 16),
    samples(32, 512, 6),
    samples(32, 2048, 6),
)
SMOKE = (prefill(32), decode(4, 16, 9), mixed(4, 0.1, 64, 16), samples(4, 64, 9))

"""The queue in front of an engine: bounded, fair, in order, and honest about how long it will take."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.engine.stats import EngineStats
from ramify.errors import ConfigError
from ramify.serving.admission import AdmissionLimits, AdmissionQueue, Refused, Ticket, Work
from ramify.serving.admissions import Admission
from ramify.serving.config import ServerConfig
from ramify.serving.pace import Pace

STEP_S, ROW_S, ANSWER = 0.010, 0.001, 100


def known_pace() -> Pace:
    """Of an engine whose step takes 10 ms and 1 ms a row, and whose answers are 100 tokens long."""
    pace = Pace()
    steps = rows = 0
    seconds = 0.0
    for batch in (1, 8, 64, 512):
        steps, rows, seconds = steps + 10, rows + 10 * batch, seconds + 10 * (STEP_S + ROW_S * batch)
        pace.observe(EngineStats(steps=steps, rows=rows, timings_s={"forward": seconds}))
    pace.ended(ANSWER)
    return pace


def queue(slots: int = 2, requests: int = 4, tokens: int | None = None, share: float = 1.0) -> AdmissionQueue:
    return AdmissionQueue(AdmissionLimits(slots, requests, tokens, share), known_pace())


def ticket(owner: str = "a", prompt: int = 10, **options: int | bool) -> Ticket:
    sequences = options.pop("sequences", 1)
    return Ticket(owner, Work(prompt, int(sequences)), **options)  # type: ignore[arg-type]


operations = st.lists(
    st.tuples(
        st.sampled_from(["offer", "offer", "offer", "start", "leave"]),
        st.sampled_from(["a", "b", "c", ""]),
        st.integers(0, 300),
        st.integers(1, 5),
        st.integers(-2, 2),
        st.booleans(),
    ),
    max_size=80,
)


@given(operations, st.integers(1, 4), st.integers(0, 5), st.integers(0, 600), st.sampled_from([0.25, 0.5, 1.0]))
def test_what_waits_and_what_runs_never_pass_their_bounds_and_nobody_is_lost(
    drawn: list[tuple[str, str, int, int, int, bool]], slots: int, requests: int, tokens: int, share: float
) -> None:
    door = queue(slots, requests, tokens, share)
    inside: list[Ticket] = []
    running: list[Ticket] = []
    for kind, owner, prompt, sequences, priority, background in drawn:
        if kind == "offer":
            one = Ticket(owner, Work(prompt, sequences), priority, background)
            try:
                door.offer(one)
            except Refused:
                assert not background
            else:
                inside.append(one)
            running += door.start()
        elif kind == "start":
            running += door.start()
        elif inside:
            gone = inside.pop(prompt % len(inside))
            door.leave(gone)
            running = [each for each in running if each is not gone]
            running += door.start()
        waiting = [each for each in inside if each not in running]
        bounded = [each for each in waiting if not each.background]
        assert len(bounded) <= requests
        assert sum(each.work.prompt_tokens for each in bounded) <= tokens
        for tenant in "abc":
            own = [each for each in bounded if each.owner == tenant]
            assert len(own) <= -(-requests * share // 1)
            assert sum(each.work.prompt_tokens for each in own) <= -(-tokens * share // 1)
        assert door.num_running == sum(min(each.work.sequences, slots) for each in running) <= slots
        assert door.num_waiting == len(waiting)
        assert running or not waiting
    while running:
        done = running.pop(0)
        inside.remove(done)
        door.leave(done)
        running += door.start()
    assert not inside
    assert door.num_running == door.num_waiting == 0


@given(st.lists(st.integers(1, 500), min_size=2, max_size=60))
def test_the_wait_that_is_told_grows_with_the_load(prompts: list[int]) -> None:
    door, told = queue(slots=2, requests=1000), []
    for prompt in prompts:
        door.offer(ticket(prompt=prompt))
        door.start()
        with pytest.raises(Refused) as refused:
            door.offer(ticket(), patience_s=-1.0)
        told.append(refused.value.retry_after_s)
    assert told == sorted(told)


def test_an_estimate_is_what_the_engine_would_need() -> None:
    door = queue(slots=4, requests=100)
    for _ in range(4 + 8):
        door.offer(ticket(prompt=50))
        door.start()
    with pytest.raises(Refused) as refused:
        door.offer(ticket(), patience_s=0.0)
    a_token_s = (STEP_S + 4 * ROW_S) / 4
    assert refused.value.reason == "wait"
    assert refused.value.wait_s == pytest.approx(9 * ANSWER * a_token_s + 8 * 50 * ROW_S)


def test_without_any_measurement_nobody_is_sent_away_for_the_time() -> None:
    door = AdmissionQueue(AdmissionLimits(1, 10), Pace())
    door.offer(ticket())
    door.start()
    door.offer(ticket(), patience_s=0.001)


def test_whoever_has_least_running_goes_first_among_equals() -> None:
    door = queue(slots=2, requests=10)
    first, second, third, other = ticket("a"), ticket("a"), ticket("a"), ticket("b")
    for each in (first, second, third, other):
        door.offer(each)
    assert door.start() == [first, other]
    door.leave(other)
    assert door.start() == [second]


def test_a_lower_priority_number_goes_first_and_batches_last() -> None:
    door = queue(slots=1, requests=10)
    running, batch, plain, urgent = ticket(), ticket(background=True, priority=-5), ticket(), ticket(priority=-1)
    for each in (running, batch, plain, urgent):
        door.offer(each)
    order = []
    for _ in range(4):
        (started,) = door.start()
        order.append(started)
        door.leave(started)
    assert order == [urgent, running, plain, batch]


def test_batches_leave_slots_for_those_who_wait() -> None:
    door = queue(slots=8, requests=10)
    for _ in range(20):
        door.offer(ticket(background=True))
    assert len(door.start()) == 7
    door.offer(ticket("b"))
    assert len(door.start()) == 1


def test_one_tenant_cannot_fill_the_queue() -> None:
    door = queue(slots=1, requests=10, share=0.5)
    for _ in range(1 + 5):
        door.offer(ticket("greedy"))
        door.start()
    with pytest.raises(Refused, match="share"):
        door.offer(ticket("greedy"))
    door.offer(ticket("modest"))


def test_a_request_larger_than_the_engine_runs_alone() -> None:
    door = queue(slots=2)
    large, small = ticket(sequences=100), ticket()
    door.offer(large)
    door.offer(small)
    assert door.start() == [large]
    door.leave(large)
    assert door.start() == [small]


def test_an_engine_that_starts_anew_is_learnt_anew() -> None:
    pace = known_pace()
    before = pace.step_cost_s
    pace.observe(EngineStats(steps=1, rows=1, timings_s={"forward": 5.0}))
    assert pace.step_cost_s == before
    assert before == pytest.approx((STEP_S, ROW_S))


def test_what_waits_for_blocks_inside_the_engine_counts_once_it_stays() -> None:
    pace = known_pace()
    stats = EngineStats(steps=41, rows=6000, running=4, waiting=30, timings_s={"forward": 100.0})
    pace.observe(stats)
    assert pace.backlog == 0
    pace.observe(stats)
    assert pace.backlog == 30


async def test_a_task_that_gives_up_waiting_leaves_no_trace_and_the_next_one_starts() -> None:
    admission = Admission(AdmissionLimits(slots=1, max_requests=10))
    entered: list[str] = []
    release = asyncio.Event()

    async def work(name: str) -> None:
        async with admission.slot(ticket()):
            entered.append(name)
            await release.wait()

    tasks = []
    for name in ("first", "impatient", "third"):
        tasks.append(asyncio.create_task(work(name)))
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert entered == ["first", "third"]
    assert admission.queue.num_running == admission.queue.num_waiting == 0


@pytest.mark.parametrize(
    "option", [{"max_waiting_share": 0.0}, {"max_waiting_share": 1.5}, {"max_wait_s": -1.0}, {"max_waiting_tokens": -1}]
)
def test_bounds_that_cannot_work_are_refused_by_name(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        ServerConfig({"nano": "nano"}, **option)

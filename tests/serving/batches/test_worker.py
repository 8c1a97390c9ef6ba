"""The worker: every line is answered once and written in order, whatever fails, stops or ends meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ramify.errors import EngineError, RequestError, StorageFullError
from ramify.serving.batches import lines, writer
from ramify.serving.batches.lines import ATTEMPTS, line_seed
from ramify.serving.errors import ApiError
from ramify.serving.storage import Storage
from ramify.serving.storage.records import LineResult, StoredBatch
from tests.serving.batches.helpers import Answerer, ended, jsonl, line, rows_of, started_server, submit, until, working
from tests.serving.storage.conftest import Clock


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, writer):
        monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)


async def test_every_line_is_answered_once_in_order_and_no_more_at_once_than_allowed() -> None:
    answer = Answerer()
    async with started_server(concurrency=5) as server, working(server, answer) as worker:
        batch = await submit(server, jsonl(map(line, range(600))) + b"\n\n")
        worker.look()
        done = await ended(server, batch)
        rows = await rows_of(server, done.output_file_id)
    assert (done.status, done.model, done.error_file_id) == ("completed", "nano", None)
    assert (done.num_total, done.num_completed, done.num_failed) == (600, 600, 0)
    assert (done.usage.input_tokens, done.usage.cached_tokens, done.usage.output_tokens) == (1800, 600, 1200)
    assert [row["custom_id"] for row in rows] == [f"r{number}" for number in range(600)]
    assert set(answer.asked.values()) == {1}
    assert 2 <= answer.most <= 5
    first = rows[0]
    assert first["error"] is None
    assert first["response"]["status_code"] == 200
    assert first["response"]["body"]["choices"][0]["text"] == f"p0:{line_seed(0, 'r0')}"
    assert len({row["id"] for row in rows}) == 600
    times = done.times
    assert done.created_at <= times["in_progress"] <= times["finalizing"] <= times["completed"]


async def test_a_lines_own_fault_goes_to_the_error_file_as_the_endpoint_would_say_it() -> None:
    async def fault(prompt: str) -> None:
        if prompt == "p1":
            raise RequestError("prompt is too long")
        if prompt == "p2":
            raise ZeroDivisionError("an inside of the server")

    async with started_server() as server, working(server, Answerer(fault)) as worker:
        batch = await submit(server, jsonl(map(line, range(4))))
        worker.look()
        done = await ended(server, batch)
        good, bad = await rows_of(server, done.output_file_id), await rows_of(server, done.error_file_id)
    assert (done.status, done.num_completed, done.num_failed) == ("completed", 2, 2)
    assert [row["custom_id"] for row in good] == ["r0", "r3"]
    assert [row["response"]["status_code"] for row in bad] == [400, 500]
    assert bad[0]["response"]["body"]["error"]["message"] == "prompt is too long"
    assert "inside" not in str(bad[1])


async def test_the_servers_passing_faults_are_no_faults_of_a_line() -> None:
    left = {"p0": 2, "p1": ATTEMPTS - 1, "p2": 1000}

    async def fault(prompt: str) -> None:
        left[prompt] -= 1
        if left[prompt] >= 0:
            raise {
                "p0": ApiError(429, "busy"),
                "p1": EngineError("the engine died"),
                "p2": EngineError("this line kills it"),
            }[prompt]

    answer = Answerer(fault)
    async with started_server() as server, working(server, answer) as worker:
        batch = await submit(server, jsonl(map(line, range(3))))
        worker.look()
        done = await ended(server, batch)
        (bad,) = await rows_of(server, done.error_file_id)
    assert (done.num_completed, done.num_failed) == (2, 1)
    assert answer.asked == {"p0": 3, "p1": ATTEMPTS, "p2": ATTEMPTS}
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("r2", 500)


async def test_a_line_that_kills_the_engine_takes_no_other_line_along() -> None:
    deaths = [0]

    async def fault(prompt: str) -> None:
        await asyncio.sleep(0.002)
        if prompt == "p3":
            deaths[0] += 1
            raise EngineError("it died of p3")
        before = deaths[0]
        await asyncio.sleep(0.002)
        if deaths[0] != before:
            raise EngineError("it died under this one too")

    answer = Answerer(fault)
    async with started_server(concurrency=16) as server, working(server, answer) as worker:
        batch = await submit(server, jsonl(map(line, range(16))))
        worker.look()
        done = await ended(server, batch)
        (bad,) = await rows_of(server, done.error_file_id)
    assert (done.num_completed, bad["custom_id"]) == (15, "r3")


async def test_seeds_belong_to_the_batchs_seed_and_the_custom_id() -> None:
    answer = Answerer()
    own = line(7, body={"model": "nano", "prompt": "own", "seed": 5})
    async with started_server() as server, working(server, answer) as worker:
        texts = []
        for seed in (0, 0, 1):
            batch = await submit(server, jsonl([line(1), line(2), own]), seed=seed)
            worker.look()
            rows = await rows_of(server, (await ended(server, batch)).output_file_id)
            texts.append([row["response"]["body"]["choices"][0]["text"] for row in rows])
    assert texts[0] == texts[1]
    assert texts[0][:2] != texts[2][:2]
    assert [text[2] for text in texts] == ["own:5"] * 3
    assert len(set(texts[0])) == 3


async def test_a_cancelled_batch_stops_at_once_and_keeps_what_is_done() -> None:
    stuck = asyncio.Event()

    async def fault(prompt: str) -> None:
        if int(prompt[1:]) >= 3:
            await stuck.wait()

    answer = Answerer(fault)
    async with started_server() as server, working(server, answer) as worker:
        batch = await submit(server, jsonl(map(line, range(20))))
        worker.look()
        await until(lambda: answer.running == 4)
        cancelling = await server.storage.batches.cancel("anonymous", batch.id)
        assert cancelling is not None
        assert cancelling.status == "cancelling"
        worker.look()
        done = await ended(server, batch)
        good, bad = await rows_of(server, done.output_file_id), await rows_of(server, done.error_file_id)
    assert (done.status, done.num_completed, answer.running) == ("cancelled", 3, 0)
    assert [row["custom_id"] for row in good] == ["r0", "r1", "r2"]
    assert [row["custom_id"] for row in bad] == [f"r{number}" for number in range(3, 20)]
    assert {row["error"]["code"] for row in bad} == {"batch_cancelled"}
    assert done.times["cancelling"] <= done.times["cancelled"]


async def test_a_batch_that_expires_ends_with_what_is_done() -> None:
    stuck = asyncio.Event()

    async def fault(prompt: str) -> None:
        if prompt != "p0":
            await stuck.wait()

    answer, clock = Answerer(fault), Clock()
    async with started_server(Storage(":memory:", clock=clock)) as server, working(server, answer) as worker:
        batch = await submit(server, jsonl(map(line, range(6))), expires_after_s=60.0)
        worker.look()
        await until(lambda: answer.running == 4)
        clock.now += 61
        worker.look()
        done = await ended(server, batch)
        good, bad = await rows_of(server, done.output_file_id), await rows_of(server, done.error_file_id)
    assert (done.status, done.times["expired"], len(good), len(bad)) == ("expired", clock.now, 1, 5)
    assert {row["error"]["code"] for row in bad} == {"batch_expired"}


async def test_a_server_that_ends_leaves_a_batch_where_it_stands_and_the_next_goes_on() -> None:
    storage, gate = Storage(":memory:"), asyncio.Event()

    async def fault(prompt: str) -> None:
        if int(prompt[1:]) >= 5:
            await gate.wait()

    first, second = Answerer(fault), Answerer()
    async with started_server(storage) as server:
        async with working(server, first) as worker:
            batch = await submit(server, jsonl(map(line, range(12))))
            worker.look()
            await until(lambda: first.running == 4 and set(first.asked) >= {f"p{number}" for number in range(9)})
        left = await storage.batches.get("anonymous", batch.id)
        assert left is not None
        assert (left.status, left.num_completed) == ("in_progress", 5)
        async with working(server, second):
            done = await ended(server, batch)
        rows = await rows_of(server, done.output_file_id)
    assert sorted(second.asked) == sorted(f"p{number}" for number in range(5, 12))
    assert [row["custom_id"] for row in rows] == [f"r{number}" for number in range(12)]


async def test_while_the_server_drains_no_new_line_starts_and_those_that_run_finish() -> None:
    gate = asyncio.Event()

    async def fault(prompt: str) -> None:
        await gate.wait()

    answer = Answerer(fault)
    async with started_server() as server:
        async with working(server, answer) as worker:
            batch = await submit(server, jsonl(map(line, range(10))))
            worker.look()
            await until(lambda: answer.running == 4)
            server.draining.started.set()
            gate.set()
            await until(lambda: not worker._runs)
        left = await server.storage.batches.get("anonymous", batch.id)
    assert left is not None
    assert (left.status, left.num_completed, len(answer.asked)) == ("in_progress", 4, 4)


async def test_a_full_disk_holds_a_batch_up_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, full = Answerer(), [6]
    async with started_server() as server:
        add = server.storage.batches.add_results

        async def fails(batch: StoredBatch, holder: str, results: list[LineResult]) -> StoredBatch:
            full[0] -= 1
            if full[0] > 0:
                assert len(answer.asked) <= 4  # nothing new starts while results wait
                raise StorageFullError("full")
            return await add(batch, holder, results)

        monkeypatch.setattr(server.storage.batches, "add_results", fails)
        async with working(server, answer) as worker:
            batch = await submit(server, jsonl(map(line, range(30))))
            worker.look()
            done = await ended(server, batch)
    assert (done.status, done.num_completed) == ("completed", 30)
    assert set(answer.asked.values()) == {1}


async def test_a_storage_that_fails_at_the_end_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.serving.batches.worker.PAUSE_S", 0.01)
    answer, fails = Answerer(), [2]
    async with started_server() as server:
        end = server.storage.batches.end

        async def failing(*arguments: object) -> StoredBatch:
            fails[0] -= 1
            if fails[0] >= 0:
                raise StorageFullError("full")
            return await end(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(server.storage.batches, "end", failing)
        async with working(server, answer) as worker:
            batch = await submit(server, jsonl(map(line, range(8))))
            while fails[0] >= 0:
                worker.look()
                await asyncio.sleep(0.02)
            done = await ended(server, batch)
            files = (await server.storage.files.list("anonymous", purpose="batch_output")).items
    assert (done.status, done.num_completed, set(answer.asked.values())) == ("completed", 8, {1})
    assert [file.id for file in files] == [done.output_file_id]


async def test_two_servers_on_one_postgresql_share_batches_and_answer_each_line_once(
    new_postgres: Callable[[], str],
) -> None:
    url, answer = new_postgres(), Answerer()
    async with started_server(Storage(url)) as one, started_server(Storage(url)) as two:
        batches = [await submit(one, jsonl(map(line, range(40)))) for _ in range(4)]
        async with working(one, answer), working(two, answer):
            done = [await ended(one, batch) for batch in batches]
            rows = [await rows_of(two, batch.output_file_id) for batch in done]
    assert all([row["custom_id"] for row in each] == [f"r{number}" for number in range(40)] for each in rows)
    assert set(answer.asked.values()) == {4}  # once for each batch


async def test_a_key_that_was_revoked_answers_nothing_more() -> None:
    answer = Answerer()
    async with started_server() as server, working(server, answer) as worker:
        batch = await submit(server, jsonl([line(1)]), caller="gone")
        worker.look()
        done = await ended(server, batch)
    assert done.status == "failed"
    assert done.errors[0].code == "invalid_api_key"
    assert not answer.asked


async def test_results_written_while_the_batch_was_cancelled_are_in_the_file() -> None:
    """A line that finishes in the moment of the cancel is stored before the files are written, or not counted."""
    answer = Answerer()
    async with started_server(concurrency=16) as server, working(server, answer) as worker:
        for wait in range(6):
            batch = await submit(server, jsonl(map(line, range(60))))
            worker.look()
            for _ in range(wait * 8):
                await asyncio.sleep(0.001)
            try:
                await server.storage.batches.cancel("anonymous", batch.id)
            except RequestError:
                continue  # it was faster
            worker.look()
            done = await ended(server, batch)
            good, bad = await rows_of(server, done.output_file_id), await rows_of(server, done.error_file_id)
            assert len(good) == done.num_completed
            assert len(good) + len(bad) == done.num_total

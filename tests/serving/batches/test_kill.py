"""``kill -9`` of a server during a batch, several times: no line is lost, none is there twice, none is another one."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types import Batch

from ramify.serving.storage import Storage
from ramify.serving.storage.records import LIVE, BatchRequest
from tests.serving.batches.helpers import ENDPOINT, jsonl, line
from tests.serving.batches.server_process import serve, started, work

CHAT = "/v1/chat/completions"
NUM_LINES = 36
NUM_BAD = 3
KILL_AFTER = (3, 20)
"""A server is killed a moment after it has stored so many answers."""


def question(number: int) -> dict[str, Any]:
    content = f"Use the numbers {number % 9 + 1}, {number % 7 + 1} and 4 to make {number}."
    body = {"model": "nano", "messages": [{"role": "user", "content": content}], "max_tokens": 12}
    if number % 13 == 5:  # its own fault
        body["max_tokens"] = -1
    return {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": body}


def submit(client: OpenAI) -> str:
    file = client.files.create(file=("in.jsonl", jsonl(map(question, range(NUM_LINES)))), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id


def wait(client: OpenAI, batch_id: str, answers: int) -> Batch:
    """The batch when it has so many answers, or has ended."""
    while True:
        batch = client.batches.retrieve(batch_id)
        counts = batch.request_counts
        assert counts is not None
        if batch.status not in LIVE or counts.completed + counts.failed >= answers:
            return batch
        time.sleep(0.01)


def answers(client: OpenAI, batch: Batch) -> list[str]:
    """The lines of both files, without ids of the batch, times, and what the cache happened to hold."""
    lines = []
    for file_id in (batch.output_file_id, batch.error_file_id):
        assert file_id is not None
        text = client.files.content(file_id).text.replace(batch.id, "ID").replace(batch.id.removeprefix("batch_"), "ID")
        for record in map(json.loads, text.splitlines()):
            body = record["response"]["body"]
            body.pop("created", None)
            body.get("usage", {}).pop("prompt_tokens_details", None)
            lines.append(json.dumps(record))
    return lines


def test_a_server_that_is_killed_again_and_again_gives_what_an_undisturbed_one_gives(tmp_path: Path) -> None:
    url, rng = str(tmp_path / "server.db"), random.Random(0)
    batch_id = ""
    for kill_after in KILL_AFTER:
        with started(serve, url) as (process, base), OpenAI(base_url=f"{base}/v1", api_key="none") as client:
            batch_id = batch_id or submit(client)
            reached = wait(client, batch_id, kill_after)
            assert reached.status == "in_progress"
            time.sleep(rng.uniform(0.0, 0.05))
            process.kill()
    with started(serve, url) as (_, base), OpenAI(base_url=f"{base}/v1", api_key="none") as client:
        killed = wait(client, batch_id, 2**31)
        whole = wait(client, submit(client), 2**31)
        for batch in (killed, whole):
            counts = batch.request_counts
            assert counts is not None
            assert (batch.status, counts.total, counts.failed) == ("completed", NUM_LINES, NUM_BAD)
            assert counts.completed == NUM_LINES - NUM_BAD
        assert answers(client, killed) == answers(client, whole)
        assert len(answers(client, killed)) == NUM_LINES


async def test_kills_at_any_moment_lose_no_line_on_postgresql(new_postgres: Callable[[], str]) -> None:
    url, rng, num_lines, kills = new_postgres(), random.Random(0), 400, 0
    async with Storage(url) as storage:
        writer = await storage.files.writer("anonymous")
        await writer.write(jsonl(map(line, range(num_lines))))
        file = await writer.finish("in.jsonl", "batch")
        request = BatchRequest("anonymous", "anonymous", ENDPOINT, file.id, "24h", 86_400.0)
        batch = await storage.batches.create(request)
        seen = set()
        while batch.status in LIVE:
            with started(work, url) as (process, _):
                until = time.monotonic() + (rng.uniform(0.02, 0.4) if kills < 5 else 60.0)
                while batch.status in LIVE and time.monotonic() < until:
                    await asyncio.sleep(0.01)
                    found = await storage.batches.get("anonymous", batch.id)
                    assert found is not None
                    batch = found
                    seen.add(batch.num_completed)
                process.kill()
                kills += 1
        output = await storage.files.get("anonymous", batch.output_file_id or "")
        assert output is not None
        rows = [json.loads(row) for row in b"".join([piece async for piece in storage.files.read(output)]).splitlines()]
    assert kills > 1
    assert len(seen) > 3
    assert (batch.status, batch.num_completed, batch.error_file_id) == ("completed", num_lines, None)
    assert [row["custom_id"] for row in rows] == [f"r{number}" for number in range(num_lines)]
    for number, row in enumerate(rows):
        assert row["response"]["body"]["choices"][0]["text"].startswith(f"p{number}:")

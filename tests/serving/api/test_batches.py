"""``/v1/batches`` with OpenAI's own client on a real model."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Batch

from tests.serving.api.tenants import tenants

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def chat_line(number: int, **body: Any) -> dict[str, Any]:
    question = f"Use the numbers {number % 9 + 1}, 7 and 4 to make 25."
    messages = [{"role": "user", "content": question}]
    return {
        "custom_id": f"r{number}", "method": "POST", "url": CHAT,
        "body": {"model": "nano", "messages": messages, "max_tokens": 6, **body},
    }  # fmt: skip


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, lines)).encode()


def run(client: OpenAI, lines: list[dict[str, Any]], endpoint: Any = CHAT, **options: Any) -> Batch:
    """A batch from its file to its end."""
    file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, **{"completion_window": "24h", **options})
    assert batch.status == "validating"
    while batch.status not in ENDED:
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def rows(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None, "there is no such file"
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_a_batch_answers_as_the_endpoint_does(client: OpenAI) -> None:
    lines = [chat_line(number, seed=number) for number in range(6)] + [chat_line(6, max_tokens=-1)]
    batch = run(client, lines, metadata={"for": "a test"})
    assert (batch.object, batch.status, batch.endpoint, batch.model) == ("batch", "completed", CHAT, "nano")
    assert batch.metadata == {"for": "a test"}
    counts, usage = batch.request_counts, batch.usage
    assert counts is not None
    assert usage is not None
    assert (counts.total, counts.completed, counts.failed) == (7, 6, 1)
    assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.finalizing_at or 0) <= (batch.completed_at or 0)
    good, (bad,) = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    assert [row["custom_id"] for row in good] == [f"r{number}" for number in range(6)]
    assert bad["response"]["status_code"] == 400
    assert bad["response"]["body"]["error"]["param"] == "max_tokens"
    for line, row in zip(lines, good, strict=False):
        direct = client.chat.completions.create(**line["body"])
        assert row["response"]["body"]["choices"][0]["message"]["content"] == direct.choices[0].message.content
    assert usage.total_tokens == sum(row["response"]["body"]["usage"]["total_tokens"] for row in good)
    output = client.files.retrieve(batch.output_file_id or "")
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")


def test_the_same_file_gives_the_same_answers_and_another_seed_others(client: OpenAI) -> None:
    line = {
        "custom_id": "r",
        "method": "POST",
        "url": TEXT,
        "body": {"model": "nano", "prompt": "Once", "max_tokens": 12},
    }
    lines = [{**line, "custom_id": f"r{number}"} for number in range(4)]
    texts = []
    for seed in (0, 0, 1):
        batch = run(client, lines, TEXT, extra_body={"seed": seed})
        texts.append([row["response"]["body"]["choices"][0]["text"] for row in rows(client, batch.output_file_id)])
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert len(set(texts[0])) > 1


def test_a_file_that_is_wrong_fails_with_the_lines_numbers(client: OpenAI) -> None:
    lines = [chat_line(0), chat_line(0), {**chat_line(1), "url": TEXT}, chat_line(2, model="gpt-5")]
    batch = run(client, lines)
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.failed_at is not None
    assert batch.errors is not None
    found = [(error.line, error.code, error.param) for error in batch.errors.data or []]
    assert found == [
        (2, "duplicate_custom_id", "custom_id"),
        (3, "mismatched_url", "url"),
        (4, "model_not_found", "body.model"),
    ]


async def test_the_async_client_lists_and_cancels(url: str) -> None:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        lines = [chat_line(number, max_tokens=400, ignore_eos=True) for number in range(200)]
        file = await client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        with pytest.raises(openai.ConflictError, match=batch.id):
            await client.files.delete(file.id)
        batch = await client.batches.cancel(batch.id)
        assert batch.status == "cancelling"
        while batch.status != "cancelled":
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
        assert batch.cancelled_at is not None
        with pytest.raises(openai.ConflictError, match="cancelled"):
            await client.batches.cancel(batch.id)
        listed = [each.id async for each in client.batches.list(limit=1)]
        assert listed[0] == batch.id
        assert (await client.files.delete(file.id)).deleted


def test_a_window_that_is_over_ends_a_batch_with_what_is_done(client: OpenAI) -> None:
    lines = [chat_line(0), *(chat_line(number, max_tokens=400, ignore_eos=True) for number in range(1, 300))]
    batch = run(client, lines, completion_window="1s")
    assert (batch.status, batch.expires_at) == ("expired", batch.created_at + 1)
    assert batch.expired_at is not None
    unfinished = [row for row in rows(client, batch.error_file_id) if row["error"]]
    assert {row["error"]["code"] for row in unfinished} == {"batch_expired"}
    counts = batch.request_counts
    assert counts is not None
    assert counts.completed + counts.failed + len(unfinished) == counts.total == 300


@pytest.mark.parametrize(
    "body",
    [
        {"endpoint": "/v1/images/generations"},
        {"completion_window": "soon"},
        {"completion_window": "99d"},
        {"completion_window": "0s"},
        {"metadata": {"k": "v" * 513}},
        {"metadata": {f"k{number}": "v" for number in range(17)}},
        {"input_file_id": "file-none"},
        {"input_file_id": "\0"},
        {"output_expires_after": {"anchor": "created_at", "seconds": 5}},
        {"priority": 3},
        {"seed": -1},
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(client: OpenAI, url: str, body: dict[str, Any]) -> None:
    file = client.files.create(file=("in.jsonl", jsonl([chat_line(0)])), purpose="batch")
    good = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    answer = httpx2.post(f"{url}/v1/batches", json={**good, **body})
    assert answer.status_code == 400
    assert next(iter(body)).removeprefix("input_") in answer.text or "file" in answer.text


def test_a_file_for_something_else_is_no_batch(client: OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", jsonl([chat_line(0)])), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    for call in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            call("batch_none")


async def test_an_owner_sees_no_other_owners_batches() -> None:
    async with tenants() as both:
        ada, bob = both.ada, both.bob
        line = {"custom_id": "r", "method": "POST", "url": TEXT, "body": {"model": "nano", "prompt": "p"}}
        file = await ada.files.create(file=("in.jsonl", jsonl([line])), purpose="batch")
        with pytest.raises(openai.BadRequestError, match="no file"):
            await bob.batches.create(input_file_id=file.id, endpoint=TEXT, completion_window="24h")
        batch = await ada.batches.create(input_file_id=file.id, endpoint=TEXT, completion_window="24h")
        for call in (bob.batches.retrieve, bob.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await call(batch.id)
        assert [each.id async for each in bob.batches.list()] == []
        while batch.status not in ENDED:
            await asyncio.sleep(0.02)
            batch = await ada.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        assert (await ada.files.content(batch.output_file_id)).text.startswith('{"id"')
        with pytest.raises(openai.NotFoundError):
            await bob.files.content(batch.output_file_id)

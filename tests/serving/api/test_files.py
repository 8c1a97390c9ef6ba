"""``/v1/files`` with OpenAI's own client, and with forms that no client of good will sends."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from ramify.serving.limits import Limits
from ramify.serving.uploads import clean_filename, content_disposition
from tests.serving.api.tenants import tenants

LINES = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'


def test_a_file_is_uploaded_listed_read_and_deleted(client: OpenAI) -> None:
    content = bytes(range(256)) * 9000  # of several pieces, and nothing that text would survive as
    file = client.files.create(file=("dätä.bin", content), purpose="user_data")
    assert (file.object, file.bytes, file.filename, file.purpose) == ("file", len(content), "dätä.bin", "user_data")
    assert file.expires_at is None
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == content
    assert file in list(client.files.list(purpose="user_data", limit=1))
    assert file not in list(client.files.list(purpose="batch"))
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(file.id)


async def test_the_same_with_the_async_client(url: str) -> None:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        expires: Any = {"anchor": "created_at", "seconds": 3600}
        file = await client.files.create(file=("b.jsonl", LINES), purpose="batch", expires_after=expires)
        assert file.expires_at == file.created_at + 3600
        assert (await client.files.content(file.id)).content == LINES
        assert file.id in [each.id async for each in client.files.list(order="asc", limit=2)]
        assert (await client.files.delete(file.id)).deleted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no lines"),
        (b'{"a": 1}\n\nnot json\n', "line 3"),
        (b'{"a": 1}\n[2]\n', "line 2"),
        (b'{"a": "\xff"}\n', "line 1"),
        (b'{"a":' * 60_000 + b"\n", "line 1"),
    ],
)
def test_a_batch_file_is_checked_line_by_line(client: OpenAI, content: bytes, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.files.create(file=("in.jsonl", content), purpose="batch")
    assert caught.value.code == "invalid_jsonl"


Form = list[tuple[str, Any]]
FILE: tuple[str, Any] = ("file", ("a.bin", b"x"))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ([FILE], "purpose"),
        ([("purpose", (None, b"world domination")), FILE], "purpose"),
        ([("purpose", (None, b"batch_output")), FILE], "purpose"),
        ([("purpose", (None, b"user_data"))], "no file"),
        ([("purpose", (None, b"user_data")), ("file", (None, b"x"))], "filename"),
        ([("purpose", (None, b"user_data")), FILE, FILE], "two files"),
        ([("purpose", (None, b"user_data")), ("purpose", (None, b"batch")), FILE], "twice"),
        ([("purpose", (None, b"user_data")), FILE, ("path", (None, b"/etc"))], "'path' is not known"),
        ([("purpose", (None, b"x" * 5000)), FILE], "longer than"),
        ([("purpose", (None, b"user_data")), FILE, ("expires_after[seconds]", (None, b"3600"))], "anchor"),
        (
            [("purpose", (None, b"user_data")), FILE, ("expires_after[anchor]", (None, b"created_at")),
             ("expires_after[seconds]", (None, b"-1"))],
            "3600",
        ),
        ([("purpose", (None, b"user_data"))] * 30, "twice|parts"),
    ],
)  # fmt: skip
def test_a_form_that_is_wrong_says_how_and_stores_nothing(client: OpenAI, url: str, form: Form, said: str) -> None:
    before = list(client.files.list())
    answer = httpx2.post(f"{url}/v1/files", files=form)
    assert answer.status_code == 400
    assert re.search(said, answer.json()["error"]["message"])
    assert list(client.files.list()) == before


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: text/plain\r\n\r\nbatch\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nno colon\r\n\r\nbatch\r\n--x--\r\n"),
        ("multipart/form-data; boundary=" + "x" * 2000, b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"\x00" * 5000),
    ],
)
def test_a_broken_form_is_a_bad_request(url: str, kind: str, body: bytes) -> None:
    answer = httpx2.post(f"{url}/v1/files", content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_the_purpose_may_come_behind_the_file(client: OpenAI, url: str) -> None:
    form = [("file", ("in.jsonl", LINES)), ("purpose", (None, b"batch"))]
    assert httpx2.post(f"{url}/v1/files", files=form).json()["purpose"] == "batch"
    bad = [("file", ("in.jsonl", b"nothing")), ("purpose", (None, b"batch"))]
    assert httpx2.post(f"{url}/v1/files", files=bad).status_code == 400


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\windows\\x.ini", "x.ini"),
        ('a"b\r\nSet-Cookie: x=1', 'a"bSet-Cookie: x=1'),
        ("\u202egpj.exe", "gpj.exe"),
        ("", "upload"),
        ("..", "upload"),
        ("a/", "upload"),
        ("x" * 999, "x" * 255),
    ],
)
def test_a_clients_file_name_is_a_name_and_nothing_else(name: str, clean: str) -> None:
    assert clean_filename(name) == clean
    header = content_disposition(clean_filename(name))
    assert header.isascii()
    assert header.isprintable()


@pytest.mark.parametrize("file_id", ["nope", "file-0", "..%2f..%2fetc%2fpasswd", "file-%00", "%ff", "x" * 3000])
def test_ids_that_are_none_are_not_found(url: str, file_id: str) -> None:
    for path in (file_id, f"{file_id}/content"):
        answer = httpx2.get(f"{url}/v1/files/{path}")
        assert answer.status_code == 404


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=10001", "limit=x", "order=up", "after=file-none", "after=%00", "purpose=%00"]
)
def test_lists_refuse_what_they_do_not_know(url: str, query: str) -> None:
    assert httpx2.get(f"{url}/v1/files?{query}").status_code == 400


async def test_limits_quotas_and_owners_hold_over_http() -> None:
    limits = Limits(max_upload_bytes=2_000_000)
    async with tenants(storage_quota_bytes=3_000_000, limits=limits) as both:
        ada, bob = both.ada, both.bob
        with pytest.raises(openai.APIStatusError) as caught:
            await ada.files.create(file=("big", b"x" * 2_100_000), purpose="user_data")
        assert caught.value.status_code == 413
        file = await ada.files.create(file=("big", b"x" * 1_900_000), purpose="user_data")
        with pytest.raises(openai.PermissionDeniedError, match="allowed") as denied:
            await ada.files.create(file=("big", b"x" * 1_900_000), purpose="user_data")
        assert denied.value.code == "storage_quota_exceeded"
        await bob.files.create(file=("big", b"x" * 1_900_000), purpose="user_data")
        assert [each.id async for each in ada.files.list()] == [file.id]
        for call in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError):
                await call(file.id)
        await ada.files.delete(file.id)
        await ada.files.create(file=("big", b"x" * 1_900_000), purpose="user_data")


def test_the_document_describes_the_form(url: str) -> None:
    document = httpx2.get(f"{url}/openapi.json").json()
    form = document["paths"]["/v1/files"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file", "purpose"]
    assert json.dumps(document)

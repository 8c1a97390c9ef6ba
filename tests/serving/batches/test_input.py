"""What is wrong with a batch's input is told with the line's number, before anything runs."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.errors import RequestError
from ramify.serving.auth import Caller
from ramify.serving.batches.input import MAX_ERRORS, InputCheck, pages_of
from ramify.serving.jsonl import MAX_LINE_BYTES, JsonLinesCheck, lines_of
from ramify.serving.limits import Limits
from tests.serving.batches.helpers import ENDPOINT, jsonl, line


async def pieces_of(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def checked(content: bytes, limits: Limits | None = None, caller: Caller | None = None) -> InputCheck:
    check = InputCheck(ENDPOINT, ["nano"], caller or Caller(), limits or Limits())
    await check.read(pieces_of(content))
    return check


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in line(1).items() if key != name}


BAD: list[tuple[bytes | dict[str, Any], str, str | None]] = [
    (b"not json", "invalid_json_line", None),
    (b"[1]", "invalid_json_line", None),
    (b'{"custom_id": "\xff"}', "invalid_json_line", None),
    (b'{"custom_id": "\\ud800"}', "invalid_json_line", None),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, "invalid_json_line", None),
    *[(without(name), "missing_required_parameter", name) for name in ("custom_id", "method", "url", "body")],
    (line(1, custom_id=""), "invalid_custom_id", "custom_id"),
    (line(1, custom_id=5), "invalid_custom_id", "custom_id"),
    (line(1, custom_id="x" * 513), "invalid_custom_id", "custom_id"),
    (line(0), "duplicate_custom_id", "custom_id"),
    (line(1, method="GET"), "invalid_method", "method"),
    (line(1, url="/v1/embeddings"), "mismatched_url", "url"),
    (line(1, url=["/v1/completions"]), "mismatched_url", "url"),
    (line(1, body="text"), "invalid_body", "body"),
    (line(1, extra=1), "unknown_parameter", "extra"),
    (line(1, body={"prompt": "of whom?"}), "missing_required_parameter", "body.model"),
    (line(1, body={"model": "gpt-5"}), "model_not_found", "body.model"),
    (line(1, body={"model": {"a": 1}}), "model_not_found", "body.model"),
    (line(1, body={"model": "other@best-of-n"}), "model_not_found", "body.model"),
]


@pytest.mark.parametrize(("bad", "code", "param"), BAD)
async def test_a_bad_line_is_named_with_its_number(bad: bytes | dict[str, Any], code: str, param: str | None) -> None:
    raw = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    check = await checked(jsonl([line(0)]) + b"\n" + raw + b"\r\n" + jsonl([line(2)]))
    (error,) = check.errors
    assert (error.line, error.code, error.param) == (3, code, param)
    assert check.num_lines == 3


async def test_a_method_in_the_models_name_is_no_other_model() -> None:
    good = [line(0, body={"model": "nano@best-of-n:n=4"}), line(1)]
    assert not (await checked(jsonl(good))).errors


async def test_a_key_is_held_to_its_models() -> None:
    check = await checked(jsonl([line(0)]), caller=Caller(models=frozenset({"other"})))
    assert [error.code for error in check.errors] == ["model_denied"]


@pytest.mark.parametrize("content", [b"", b"\n\n \n"])
async def test_a_file_without_lines_is_refused(content: bytes) -> None:
    assert [error.code for error in (await checked(content)).errors] == ["empty_file"]
    with pytest.raises(RequestError, match="no lines"):
        JsonLinesCheck(10).finish()


async def test_too_many_lines_and_too_many_errors_stop_the_reading() -> None:
    limits = Limits(max_batch_requests=5)
    assert [error.line for error in (await checked(jsonl(map(line, range(9))), limits)).errors] == [6]
    with pytest.raises(RequestError, match="more than 5"):
        JsonLinesCheck(5).feed(jsonl(map(line, range(9))))
    assert len((await checked(b"x\n" * 10_000)).errors) == MAX_ERRORS


async def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 2**20

    check = InputCheck(ENDPOINT, ["nano"], Caller(), Limits())
    await check.read(endless())
    assert [error.code for error in check.errors] == ["invalid_file"]
    with pytest.raises(RequestError, match=f"{MAX_LINE_BYTES:,}"):
        JsonLinesCheck(5).feed(b"x" * (MAX_LINE_BYTES + 1))


@given(lines=st.lists(st.binary(max_size=12).map(lambda text: text.replace(b"\n", b""))), seed=st.integers(0, 99))
async def test_lines_are_the_same_however_the_file_is_cut(lines: list[bytes], seed: int) -> None:
    content = b"\n".join(lines)
    rng = random.Random(seed)

    async def cut() -> AsyncIterator[bytes]:
        place = 0
        while place < len(content):
            size = rng.randint(1, 9)
            yield content[place : place + size]
            place += size

    expected = [(number, text) for number, text in enumerate(lines, start=1) if text.strip()]
    assert [each async for each in lines_of(cut())] == expected
    assert [each async for page in pages_of(cut()) for each in page] == expected

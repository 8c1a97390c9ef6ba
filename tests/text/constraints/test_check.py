"""Forms from anywhere: each is judged within its time, and none harms whoever judges the next one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from ramify.errors import ConfigError
from ramify.models.hub import resolve_model
from ramify.sampling import StructuredOutputsParams
from ramify.text.constraints.check import FormBusyError, FormChecker
from ramify.text.tokenizer import Tokenizer, load_tokenizer

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(resolve_model("nano"))


@pytest.fixture
async def checker() -> AsyncIterator[FormChecker]:
    made = FormChecker(TIMEOUT_S, max_bytes=128 * 1024)
    yield made
    await made.close()


def chain(depth: int) -> str:
    rules = "".join(f'r{i}: "a" r{i + 1}\n' for i in range(depth))
    return f'start: r0\n{rules}r{depth}: "b"'


def references(depth: int) -> dict[str, object]:
    names = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(depth)}
    return {"$ref": "#/$defs/a0", "$defs": {**names, f"a{depth}": {"type": "object"}}}


def doubled(depth: int) -> str:
    rules = "".join(f"r{i}: r{i + 1} r{i + 1}\n" for i in range(depth))
    return f'start: r0\n{rules}r{depth}: "b" | ""'


HOSTILE = {
    "nested repetitions": {"regex": "(a{1,1000}){1,1000}"},
    "a long tail": {"regex": "(a|b|ab)*c{5000}"},
    "a nested star": {"regex": "(x+x+)+y"},
    "many states": {"regex": "(.*a.{50}b|.*b.{60}c|.*c.{70}a)"},
    "10,000 brackets": {"regex": "(" * 10_000 + "a" + ")" * 10_000},
    "10,000 levels": {"json": '{"items":' * 10_000 + "{}" + "}" * 10_000},
    "itself": {"json": {"$ref": "#"}},
    "a circle": {"json": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
    "a chain of rules": {"grammar": chain(3_000)},
    "a chain of references": {"json": references(2_000)},
    "doublings": {"grammar": doubled(2_000)},
    "many objects": {"json": {"anyOf": [{"type": "object", "properties": {f"p{i}": {}}} for i in range(600)]}},
    "brackets of a grammar": {"grammar": "start: " + "(" * 50_000 + '"a"' + ")" * 50_000},
    "brackets of an EBNF": {"grammar": "root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000},
    "a long text": {"json": {"const": "a" * 100_000}},
    "a megabyte of names": {"json": {"enum": [f"name {i:09}" for i in range(60_000)]}},
    "a megabyte of choices": {"choice": [f"name {i:09}" for i in range(60_000)]},
}


async def test_hostile_forms_are_judged_in_time_and_harm_no_other(checker: FormChecker, tokenizer: Tokenizer) -> None:
    refusals: dict[str, str] = {}
    for name, given in HOSTILE.items():
        try:
            await checker.check(StructuredOutputsParams(**given), tokenizer)  # type: ignore[arg-type]
        except ValueError as error:  # of the parameters themselves, or of the form
            refusals[name] = str(error)
        await checker.check(StructuredOutputsParams(regex=f"{name}|x"), tokenizer)
    assert max(map(len, refusals.values())) < 500
    assert {"10,000 brackets", "10,000 levels", "itself", "doublings", "a megabyte of names"} <= set(refusals)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"choice": [f"name {i:09}" for i in range(20_000)]}, "use at most 131,072"),
        ({"json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"grammar": "start: <|nothing|>"}, "nothing"),
    ],
)
async def test_a_bad_form_is_told_why(
    given: dict[str, object], words: str, checker: FormChecker, tokenizer: Tokenizer
) -> None:
    form = StructuredOutputsParams(**given)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(ConfigError, match=words):
            await checker.check(form, tokenizer)


async def test_special_tokens_of_the_model_are_known(checker: FormChecker, tokenizer: Tokenizer) -> None:
    names = sorted(tokenizer.special_tokens.values())
    assert names
    await checker.check(StructuredOutputsParams(grammar=f'start: {names[0]} "x"'), tokenizer)


async def test_a_form_that_takes_too_long_is_ended_and_the_next_one_read(tokenizer: Tokenizer) -> None:
    checker = FormChecker(timeout_s=0.5)
    try:
        await checker.check(StructuredOutputsParams(regex="a"), tokenizer)
        pid = checker._process.pid  # type: ignore[union-attr]
        os.kill(pid, signal.SIGSTOP)  # no form is sure to take long on every machine
        with pytest.raises(ConfigError, match=r"more than 0\.5 s"):
            await checker.check(StructuredOutputsParams(regex="c"), tokenizer)
        await checker.check(StructuredOutputsParams(regex="b"), tokenizer)
        assert checker._process.pid != pid  # type: ignore[union-attr]
    finally:
        await checker.close()


async def test_a_reader_that_dies_is_replaced_and_waiters_are_bounded(tokenizer: Tokenizer) -> None:
    checker = FormChecker(TIMEOUT_S, max_waiting=1)
    try:
        await checker.check(StructuredOutputsParams(regex="a"), tokenizer)
        checker._process.kill()  # type: ignore[union-attr]
        with pytest.raises(ConfigError, match="too deep or too large"):
            await checker.check(StructuredOutputsParams(regex="b"), tokenizer)
        first = asyncio.create_task(checker.check(StructuredOutputsParams(regex="c"), tokenizer))
        await asyncio.sleep(0)
        with pytest.raises(FormBusyError):
            await checker.check(StructuredOutputsParams(regex="d"), tokenizer)
        await first
        gone = asyncio.create_task(checker.check(StructuredOutputsParams(regex="e"), tokenizer))
        await asyncio.sleep(0)
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        await checker.check(StructuredOutputsParams(regex="f"), tokenizer)
    finally:
        await checker.close()

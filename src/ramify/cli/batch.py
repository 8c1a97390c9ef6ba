"""`ramify batch`: a file of OpenAI batch requests in, a file of responses out; goes on where it stopped."""

from __future__ import annotations

import asyncio
import json as json_format
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import common
from ramify.errors import ConfigError, EngineError, RamifyError, RequestError

if TYPE_CHECKING:
    from ramify import AsyncLLM
    from ramify.cli.batch_answer import Body

CONCURRENCY = 256
"""Requests handed to the engine at once; it runs as many together as its own limits allow."""


@dataclass(frozen=True, slots=True)
class Line:
    """One request of the input file: its line number from 1, its id, and what it asks for."""

    number: int
    custom_id: str
    body: Body


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be served, and why."""

    number: int
    custom_id: str | None
    error: Exception


def batch(
    requests: Annotated[Path, typer.Argument(help="JSONL: custom_id, method, url and body on each line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Responses, appended; known custom_ids are skipped.")],
    errors: Annotated[
        Path | None, typer.Option(help="Bad lines. Default: the output's name with .errors.jsonl.")
    ] = None,
    model: common.Model = "nano",
    any_model: Annotated[bool, typer.Option(help="Answer with --model whatever model a body names.")] = False,
    seed: common.Seed = 0,
    quantization: common.Quantization = None,
    engine: common.EngineOptions = None,
    json: common.Json = False,
) -> None:
    """Answer OpenAI batch requests (/v1/chat/completions, /v1/completions). Exit code 1 if some lines failed."""
    error_file = errors or output.with_suffix(".errors.jsonl")
    if not requests.is_file():
        raise ConfigError(f"there is no file {str(requests)!r}: give a JSONL file of batch requests")
    if len({requests.resolve(), output.resolve(), error_file.resolve()}) < 3:
        raise ConfigError(f"{output} or {error_file} is also another file of this run: choose three different files")
    options = {"seed": seed, **common.engine_options(engine, quantization)}
    finished = answered(output)
    bad: list[BadLine] = []
    lines = [
        line
        for line in read_lines(requests, None if any_model else model, bad.append)
        if line.custom_id not in finished
    ]
    if lines:
        asyncio.run(run(lines, model, options, output, bad.append))
    write_errors(error_file, bad)
    summary = {
        "completed": len(answered(output)) - len(finished), "skipped": len(finished), "failed": len(bad),
        "output": str(output), "errors": str(error_file) if bad else None,
    }  # fmt: skip
    if json:
        common.print_json(summary)
    else:
        common.say("{completed} answered, {skipped} skipped (answered before), {failed} failed".format(**summary))
        for line in bad[:5]:
            common.say(f"line {line.number}: {line.error}")
        if bad:
            common.say(f"all bad lines: {error_file}")
    if bad:
        raise typer.Exit(common.ExitCode.FAILED)


async def run(
    lines: list[Line], model: str, options: dict[str, Any], output: Path, on_bad: Callable[[BadLine], None]
) -> None:
    """Answer lines, many at once, each written as soon as it is whole."""
    from ramify import AsyncLLM
    from ramify.evals.pools import run_all

    output.parent.mkdir(parents=True, exist_ok=True)
    waiting = iter(lines)
    async with AsyncLLM(model, **options) as llm:
        with open(output, "a", encoding="utf-8") as file, common.progress_bar() as bar:
            task = bar.add_task("requests", total=len(lines))

            async def work() -> None:
                for line in waiting:
                    try:
                        response = await answer(llm, line, model)
                    except RamifyError as error:
                        on_bad(BadLine(line.number, line.custom_id, error))
                    else:
                        file.write(json_format.dumps(response, ensure_ascii=False) + "\n")
                        file.flush()
                    bar.advance(task)

            await run_all(work() for _ in range(min(CONCURRENCY, len(lines))))


async def answer(llm: AsyncLLM, line: Line, model: str) -> dict[str, Any]:
    """One line of the output file."""
    from ramify.cli.batch_answer import answer_body

    # The id names the draws, so that an answer does not depend on the other lines or on an interruption.
    body = await answer_body(llm, model, line.body, line.custom_id)
    response = {"status_code": 200, "request_id": line.custom_id, "body": body}
    return {"id": f"batch_req_{line.number}", "custom_id": line.custom_id, "response": response, "error": None}


def read_lines(path: Path, model: str | None, on_bad: Callable[[BadLine], None]) -> Iterator[Line]:
    """The requests of a file that can be served; the others go to `on_bad`. `model` None accepts any."""
    seen: set[str] = set()
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            custom_id = None
            try:
                record = _object(raw)
                custom_id = _custom_id(record, seen)
                yield Line(number, custom_id, _body(record, model))
            except (RamifyError, ValueError) as error:
                on_bad(BadLine(number, custom_id, error))


def answered(output: Path) -> set[str]:
    """Ids that the output file holds; a line that a kill cut short is cut off."""
    from ramify.evals.jsonl import read_records, repair_tail

    if not output.exists():
        return set()
    repair_tail(output)
    return {str(record.get("custom_id")) for record in read_records(output)}


def write_errors(path: Path, bad: list[BadLine]) -> None:
    """Write the bad lines of this run by number; without any, no file stays behind."""
    path.unlink(missing_ok=True)
    if not bad:
        return
    records = [
        {
            "line": line.number,
            "custom_id": line.custom_id,
            "response": None,
            "error": {"code": error_code(line.error), "message": str(line.error)},
        }
        for line in sorted(bad, key=lambda line: line.number)
    ]
    common.write_file(
        path, "".join(json_format.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    )


def error_code(error: Exception) -> str:
    """Whose fault it was: the line's, or the engine's."""
    return "server_error" if isinstance(error, EngineError) else "invalid_request"


def _object(raw: bytes) -> dict[str, Any]:
    from ramify.evals.jsonl import parse_object

    return parse_object(raw)


def _custom_id(record: dict[str, Any], seen: set[str]) -> str:
    custom_id = record.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise RequestError("the line has no 'custom_id'")
    if custom_id in seen:
        raise RequestError(f"custom_id {custom_id!r} is taken by an earlier line")
    seen.add(custom_id)
    return custom_id


def _body(record: dict[str, Any], model: str | None) -> Body:
    from ramify.cli.batch_answer import read_body

    if record.get("method", "POST") != "POST":
        raise RequestError(f"method {record['method']!r} is not supported: use POST")
    body = record.get("body")
    if not isinstance(body, dict):
        raise RequestError("the line has no 'body' object")
    named = body.get("model")
    if model is not None and named is not None and named != model:
        raise RequestError(f"the body asks for model {named!r} and {model!r} is loaded: use --model, or --any-model")
    return read_body(str(record.get("url")), {**body, "model": named or model or "any"})

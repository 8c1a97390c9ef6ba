"""`ramify bench serve`: load a server in an open loop, and say what its users would see."""

from __future__ import annotations

import json as json_format
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ramify.cli import common
from ramify.errors import ConfigError

if TYPE_CHECKING:
    from ramify.serving.bench.address import Address
    from ramify.serving.bench.client import Target
    from ramify.serving.bench.drive import Load
    from ramify.serving.bench.plan import Arrival, Workload
    from ramify.serving.bench.server_log import Comparison
    from ramify.serving.bench.summary import Distribution, Summary

bench = typer.Typer(name="bench", help="Measure a server that runs.", no_args_is_help=True)
_LAG_LIMIT_MS = 1.0
_TOLD_EVERY_S = 0.5


@bench.command("serve")
def serve(
    model: Annotated[str, typer.Option("--model", "-m", help="As the server calls it.")] = "nano",
    base_url: Annotated[str, typer.Option(help="Of the server, without /v1.")] = "http://127.0.0.1:8000",
    endpoint: Annotated[str, typer.Option(help="chat or completions.")] = "chat",
    num_prompts: Annotated[int, typer.Option(help="Sessions to send.")] = 100,
    request_rate: Annotated[float, typer.Option(help="Sessions a second; inf sends all at once.")] = 4.0,
    burstiness: Annotated[float, typer.Option(help="1 is a Poisson process; less is burstier, more steadier.")] = 1.0,
    trace: Annotated[
        Path | None, typer.Option(help="Arrivals and lengths of a recording: Mooncake's JSONL or Azure's CSV.")
    ] = None,
    trace_speed: Annotated[float, typer.Option(help="2 replays the recording twice as fast.")] = 1.0,
    input_len: Annotated[int, typer.Option("--input-len", "--random-input-len", help="Tokens of a turn's text.")] = 64,
    output_len: Annotated[int, typer.Option("--output-len", "--random-output-len", help="Of an answer.")] = 64,
    range_ratio: Annotated[float, typer.Option("--range-ratio", "--random-range-ratio", help="Spread of both.")] = 0.0,
    prefix_len: Annotated[
        int, typer.Option("--prefix-len", "--random-prefix-len", help="Tokens that sessions begin with in common.")
    ] = 0,
    num_prefixes: Annotated[int, typer.Option(help="Different beginnings; each session has one of them.")] = 1,
    turns: Annotated[int, typer.Option(help="Of a session: each is sent with all before it.")] = 1,
    think_time: Annotated[float, typer.Option(help="Mean seconds between an answer and the next turn.")] = 1.0,
    max_concurrency: Annotated[int | None, typer.Option(help="Requests in flight; their wait here counts.")] = None,
    goodput: Annotated[
        list[str] | None, typer.Option(help="Objectives in milliseconds: ttft:500, tpot:50, e2el:2000; repeat it.")
    ] = None,
    tokens_per_word: Annotated[float | None, typer.Option(help="Measured on the server if not given.")] = None,
    ignore_eos: Annotated[bool, typer.Option(help="Ask for answers of the full length.")] = True,
    extra_body: Annotated[str, typer.Option(help="JSON object of further fields of every body.")] = "{}",
    api_key: Annotated[str, typer.Option(envvar="OPENAI_API_KEY", show_envvar=True)] = "",
    seed: common.Seed = 0,
    server_log: Annotated[
        Path | None,
        typer.Option(help="The server's JSON log (`ramify serve --log-format json`): its own count, beside ours."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds after which a request has failed.")] = 600.0,
    output_dir: Annotated[Path | None, typer.Option("--output-dir", "-o", help="Requests, summary and plots.")] = None,
    json: common.Json = False,
) -> None:
    """Send requests when they are due, whatever the server does, and report latencies, throughput and goodput.

    Works against any OpenAI-compatible server. Latencies count from when a request was due, so that a server that falls
    behind cannot hide it (no coordinated omission).
    """
    from ramify.serving.bench.address import Address
    from ramify.serving.bench.client import Target
    from ramify.serving.bench.plan import Workload, poisson_arrivals, trace_arrivals
    from ramify.serving.bench.server_log import compare, read_log
    from ramify.serving.bench.summary import parse_goodput, summarise

    objectives = parse_goodput(goodput or ())
    arrivals = (
        poisson_arrivals(request_rate, _positive("num_prompts", num_prompts), seed, burstiness)
        if trace is None
        else trace_arrivals(trace, num_prompts, trace_speed)
    )
    target = Target(model, _endpoint(endpoint), {**({"ignore_eos": True} if ignore_eos else {}), **_object(extra_body)})
    workload = Workload(input_len, output_len, range_ratio, prefix_len, num_prefixes, turns, think_time)
    address = Address.of(base_url, api_key, timeout)
    if server_log is not None:
        read_log(server_log)  # what cannot be read is said before the run
    load = _run(address, target, workload, arrivals, tokens_per_word, max_concurrency, seed)
    summary = summarise(load, objectives)
    counted, unusable = None, None
    if server_log is not None:
        try:
            counted = compare(load.requests, server_log)
        except ConfigError as error:
            unusable = error  # told when what was measured is written and shown
    report = _plain(summary.to_dict() | ({} if counted is None else {"server_log": counted.to_dict()}))
    if output_dir is not None:
        _write(output_dir, load, report)
    if json:
        common.print_json(report)
    else:
        _show(summary)
        if counted is not None:
            _show_both(counted)
    if unusable is not None:
        raise unusable
    if summary.completed == 0:
        raise ConfigError(f"no request went well: {next(iter(summary.errors), 'nothing was sent')}")


def _run(
    address: Address, target: Target, workload: Workload, arrivals: list[Arrival], tokens_per_word: float | None,
    max_concurrency: int | None, seed: int,
) -> Load:  # fmt: skip
    from dataclasses import replace

    from ramify.serving.bench import drive

    ratio = tokens_per_word or drive.tokens_per_word(address, target)
    sessions = replace(workload, tokens_per_word=ratio).sessions(arrivals, seed)
    return drive.drive(address, target, sessions, max_concurrency, _counter(len(sessions) * workload.turns))


def _counter(total: int) -> Callable[[object], None]:
    """Says on a terminal how many requests have ended; a line now and then, since drawing takes time from the run."""
    ended, told_s = 0, 0.0

    def count(_: object) -> None:
        nonlocal ended, told_s
        ended += 1
        now_s = time.monotonic()
        if sys.stderr.isatty() and (ended == total or now_s - told_s >= _TOLD_EVERY_S):
            sys.stderr.write(f"\r{ended}/{total} requests" + ("\n" if ended == total else ""))
            sys.stderr.flush()
            told_s = now_s

    return count


def _write(folder: Path, load: Load, report: dict[str, Any]) -> None:
    from dataclasses import asdict

    from ramify.serving.bench.figures import draw_load

    rows = []
    for request in load.requests:
        row = asdict(request)
        for name in ("intended_s", "sent_s", "ended_s"):
            row[name] = None if row[name] is None else row[name] - load.started_s
        row["token_times_s"] = [at_s - load.started_s for at_s in request.token_times_s]
        rows.append(json_format.dumps(row))
    common.write_file(folder / "requests.jsonl", "".join(f"{row}\n" for row in rows).encode())
    text = json_format.dumps(report, indent=2)
    common.write_file(folder / "summary.json", f"{text}\n".encode())
    draw_load(load, folder)
    common.say(f"wrote {folder}{os.sep}: requests.jsonl, summary.json and plots")


def _show(summary: Summary) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = common.output_console()
    facts = Table(box=None, show_header=False)
    facts.add_row("completed, failed", f"{summary.completed}, {summary.failed}")
    facts.add_row("duration", f"{summary.duration:.2f} s")
    facts.add_row("requests a second", f"{summary.request_throughput:.2f}")
    facts.add_row("output tokens a second", f"{summary.output_throughput:.1f}")
    facts.add_row("prompt tokens, of them cached", f"{summary.total_input_tokens:,}, {summary.total_cached_tokens:,}")
    if summary.request_goodput is not None and summary.goodput_share is not None:
        facts.add_row(
            "goodput, requests a second", f"{summary.request_goodput:.2f} ({summary.goodput_share:.0%} of all)"
        )
    console.print(facts)
    table = Table(box=SIMPLE_HEAD, caption="milliseconds, from when each request was due", caption_justify="left")
    table.add_column("latency")
    rows = {
        "TTFT, first token": summary.ttft,
        "TPOT, each further token": summary.tpot,
        "ITL, between pieces": summary.itl,
        "E2EL, whole request": summary.e2el,
        "lag of this generator": summary.send_lag,
    }
    for name in ("mean", *(f"p{number:g}" for number in summary.ttft.percentiles)):
        table.add_column(name, justify="right")
    for name, found in rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in (found.mean, *found.percentiles.values())))
    console.print(table)
    for reason, count in list(summary.errors.items())[:5]:
        console.print(f"failed {count} times: {reason}", markup=False)
    _warn_of_lag(summary.send_lag)


def _warn_of_lag(lag: Distribution) -> None:
    if lag.count and lag.percentiles[99.0] > _LAG_LIMIT_MS:
        common.say(
            f"note: half of the requests were sent {lag.percentiles[50.0]:.1f} ms late or more, 1% of them "
            f"{lag.percentiles[99.0]:.1f} ms (max_concurrency, or a machine that is too busy): the latencies "
            "hold that wait"
        )


def _show_both(counted: Comparison) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    caption = f"{counted.matched} requests found in the log by request_id, {counted.missing} not found"
    table = Table(box=SIMPLE_HEAD, caption=caption, caption_justify="left")
    for title in ("milliseconds", "", "here", "server's log", "difference"):
        table.add_column(title, justify="right" if title else "left")
    for name, both in counted.rows.items():
        for number, difference in both.differences.items():
            here, logged = both.here.percentiles[number], both.log.percentiles[number]
            table.add_row(name.upper(), f"p{number:g}", f"{here:.2f}", f"{logged:.2f}", _share(difference))
    common.output_console().print(table)


def _share(difference: float) -> str:
    return f"{difference:+.2%}" if difference == difference else "-"


def _endpoint(name: str) -> Literal["chat", "completions"]:
    if name == "chat":
        return "chat"
    if name == "completions":
        return "completions"
    raise ConfigError(f"endpoint={name!r} does not work: use chat or completions")


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{name}={value} does not work: it must be 1 or more")
    return value


def _object(text: str) -> dict[str, Any]:
    try:
        found = json_format.loads(text)
    except ValueError as error:
        raise ConfigError(f"extra_body is no JSON ({error}): give an object") from None
    if not isinstance(found, dict):
        raise ConfigError(f"extra_body={text} does not work: give an object")
    return found


def _plain(value: Any) -> Any:
    """JSON without NaN, and with text as names."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return None if isinstance(value, float) and value != value else value

"""`--base-url`: the same commands on an OpenAI-compatible server."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramify.backends.scripted import ScriptedBackend
from ramify.cli.common import ExitCode
from tests.backends.openai_server import Server, serving
from tests.cli.conftest import Run, json_lines


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that always answers 4, on a thread of its own."""
    started, stop = threading.Event(), threading.Event()
    found: list[Server] = []

    async def serve() -> None:
        async with serving(ScriptedBackend(lambda call: "two and two\n#### 4")) as running:
            found.append(running)
            started.set()
            while not stop.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(20)
    yield found[0]
    stop.set()
    thread.join()


def test_solve_asks_the_server_and_counts_its_money(run: Run, server: Server, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text(json.dumps({"m": {"generated": 2.0}}))
    options = ("-m", "m", "--base-url", server.url, "--prices", "prices.json", "--budget", "$0.01")
    [found] = json_lines(run("solve", "2 + 2?", "-s", "self-consistency:n=3", *options, "--json").stdout)
    assert found["answer"] == "4"
    assert found["ledger"]["cost"] == pytest.approx(found["ledger"]["generated"] * 2e-6)
    assert server.bodies[0]["model"] == "m"


def test_eval_runs_on_a_server_and_says_what_it_cannot_do(run: Run, server: Server) -> None:
    options = ("-t", "word_problems", "-p", "3", "-m", "m", "--base-url", server.url)
    report = run("eval", "-s", "sample", *options, "--json")
    assert report.exit_code == 0, report.stderr
    assert json_lines(report.stdout)[0]["rows"][0]["problems"] == 3
    refused = run("eval", "-s", "beam:n=4,scorer=rule", *options, "-o", "other")
    assert refused.exit_code == ExitCode.USAGE
    assert "continue" in refused.stderr
    taken = run("eval", "-s", "beam:n=2,m=1,scorer=rule", *options, "-o", "third", "--endpoint", "continuation=prefix")
    assert taken.exit_code == 0, taken.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--endpoint", "api=chat"), "--base-url"),
        (("--base-url", "http://127.0.0.1:1/v1", "-e", "max_num_seqs=4"), "max_num_seqs"),
        (("--base-url", "http://127.0.0.1:1/v1", "--endpoint", "speed=9"), "speed"),
        (("--base-url", "localhost"), "http://"),
        (("--prices", "none.json"), "none.json"),
    ],
)
def test_options_that_cannot_work_are_named(run: Run, options: tuple[str, ...], message: str) -> None:
    result = run("solve", "2 + 2?", "-s", "sample", *options)
    assert result.exit_code != 0
    assert message in result.stderr

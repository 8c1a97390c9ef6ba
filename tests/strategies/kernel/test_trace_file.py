"""Traces on disk: what a killed run leaves can be read, and what is no trace is refused with its line."""

import asyncio

import pytest

from ramify.errors import ConfigError
from ramify.scoring import Problem
from ramify.strategies import parse_strategy, solve
from ramify.strategies.kernel.trace import FORMAT, Started, Stopped
from ramify.strategies.kernel.trace_file import TraceWriter, read_trace
from ramify.strategies.testing import BY_TEXT, toy_backend


def written(path, spec="beam:n=4,m=2"):
    with TraceWriter(path) as writer:
        return asyncio.run(
            solve(parse_strategy(spec), Problem("p", "xy"), toy_backend(), equivalence=BY_TEXT, listener=writer.write)
        )


def test_the_file_holds_every_event_with_tokens_scores_costs_and_the_end(tmp_path):
    result = written(tmp_path / "deep" / "t.jsonl")
    found = read_trace(tmp_path / "deep" / "t.jsonl")
    assert found.events == result.trace.events
    assert found.tree() == result.trace.tree()
    started, stopped = found.events[0], found.events[-1]
    assert isinstance(started, Started)
    assert (started.problem, started.prompt, started.format) == ("p", "xy", FORMAT)
    assert isinstance(stopped, Stopped)
    assert stopped.ledger["total_tokens"] == result.ledger.total_tokens
    best = [node for node in found.tree() if node.best]
    assert "".join(node.text for node in best) == result.text
    grown = {event.node: event for event in found.events if hasattr(event, "token_ids")}
    assert tuple(token for node in best[1:] for token in grown[node.id].token_ids) == result.best.tokens


def test_what_was_written_before_a_kill_is_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / "t.jsonl"
    result = written(path)
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole), 37):
        path.write_bytes(whole[:cut])
        events = read_trace(path).events
        assert events == result.trace.events[: len(events)]
        assert len(events) == whole[:cut].count(b"\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no trace"),
        ('{"type":"Stopped","reason":"finished","total_tokens":1}\n', "which run began"),
        ("hello\n", "line 1"),
        ('{"type":"Unheard"}\n', "line 1"),
        ('{"type":"Started","problem":"p","strategy":"s","seed":0,"format":99}\n', "format 99"),
        ("\xff\n", "line 1"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, text, message):
    path = tmp_path / "t.jsonl"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=message):
        read_trace(path)

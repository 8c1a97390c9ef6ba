"""The plan of a load: arrivals by their law, recordings as they were, workloads of the lengths that were asked for."""

import json
from pathlib import Path

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.serving.bench.plan import Arrival, Workload, poisson_arrivals, trace_arrivals


def gaps(rate: float, burstiness: float) -> np.ndarray:
    return np.diff([arrival.at_s for arrival in poisson_arrivals(rate, 20_001, seed=3, burstiness=burstiness)])


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_mean_and_the_variance_of_their_law(burstiness: float) -> None:
    found = gaps(8.0, burstiness)
    assert found.mean() == pytest.approx(1 / 8, rel=0.05)
    assert found.var() == pytest.approx(1 / (64 * burstiness), rel=0.15)


def test_gaps_of_a_poisson_process_are_exponential() -> None:
    found = gaps(2.0, 1.0)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(found, share) == pytest.approx(-np.log(1 - share) / 2, rel=0.06)


def test_the_same_seed_plans_the_same_load_and_another_seed_another() -> None:
    assert poisson_arrivals(3, 50, seed=1) == poisson_arrivals(3, 50, seed=1)
    assert poisson_arrivals(3, 50, seed=1) != poisson_arrivals(3, 50, seed=2)
    arrivals = poisson_arrivals(3, 5, seed=1)
    assert Workload().sessions(arrivals, 1) == Workload().sessions(arrivals, 1)
    assert Workload().sessions(arrivals, 1) != Workload().sessions(arrivals, 2)


def test_an_infinite_rate_sends_all_at_once() -> None:
    assert {arrival.at_s for arrival in poisson_arrivals(float("inf"), 9, seed=0)} == {0.0}


def test_sessions_have_the_lengths_the_shared_beginnings_and_the_turns_that_were_asked_for() -> None:
    workload = Workload(input_len=40, output_len=20, range_ratio=0.5, prefix_len=100, num_prefixes=3, turns=4)
    sessions = workload.sessions([Arrival(0.0)] * 200, seed=5)
    beginnings = {" ".join(session.turns[0].text.split()[:100]) for session in sessions}
    assert len(beginnings) == 3
    own = [len(turn.text.split()) for session in sessions for turn in session.turns[1:]]
    assert min(own) >= 20
    assert max(own) <= 60
    assert np.mean(own) == pytest.approx(40, rel=0.05)
    assert {len(session.turns) for session in sessions} == {4}
    assert all(turn.think_s == 0 for turn in (session.turns[0] for session in sessions))
    waits = [turn.think_s for session in sessions for turn in session.turns[1:]]
    assert np.mean(waits) == pytest.approx(1.0, rel=0.15)


def test_words_follow_from_tokens_by_the_measured_ratio() -> None:
    [session] = Workload(input_len=100, tokens_per_word=2.5).sessions([Arrival(0.0)], seed=0)
    assert len(session.turns[0].text.split()) == 40


def test_a_recording_is_replayed_with_its_times_and_lengths(tmp_path: Path) -> None:
    rows = [{"timestamp": t, "input_length": n, "output_length": 7} for t, n in ((5000, 10), (2000, 20), (3500, 30))]
    mooncake = tmp_path / "trace.jsonl"
    mooncake.write_text("\n".join(json.dumps(row) for row in rows))
    arrivals = trace_arrivals(mooncake, speed=2.0)
    assert arrivals == [Arrival(0.0, 20, 7), Arrival(0.75, 30, 7), Arrival(1.5, 10, 7)]
    sessions = Workload(input_len=999, output_len=999).sessions(arrivals, seed=0)
    assert [len(session.turns[0].text.split()) for session in sessions] == [20, 30, 10]
    assert {session.turns[0].max_tokens for session in sessions} == {7}

    azure = tmp_path / "trace.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4,2\n2023-11-16 18:17:05.4799600,5,3\n"
    )
    assert [(each.input_len, each.output_len) for each in trace_arrivals(azure)] == [(4, 2), (5, 3)]
    assert trace_arrivals(azure)[1].at_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.jsonl", '{"timestamp": 1}', "record 1 is no arrival"),
        ("a.jsonl", "not json", "line 1 is no JSON"),
        ("a.jsonl", "", "holds no arrivals"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,1\n", "record 1 is no arrival"),
    ],
)
def test_a_recording_that_cannot_be_read_is_refused_by_its_line(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        trace_arrivals(path)


def test_a_recording_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        trace_arrivals(Path("/nowhere/trace.jsonl"))


@pytest.mark.parametrize("options", [{"input_len": 0}, {"turns": 0}, {"range_ratio": 1.0}, {"prefix_len": -1}])
def test_a_workload_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Workload(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"rate": 0.0}, {"rate": -1.0}, {"rate": 1.0, "burstiness": 0.0}])
def test_a_rate_that_is_not_positive_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        poisson_arrivals(count=3, seed=0, **options)

"""Rows sum up records honestly, tables show undefined numbers as dashes, plots are files of the named kind."""

import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from ramify.errors import ConfigError
from ramify.evals.estimators import Interval
from ramify.evals.jsonl import Record
from ramify.evals.plots import Point, front_of, plot, plot_ranking, points
from ramify.evals.replay import Replayed
from ramify.evals.report import label, replay_table, summarise, table, to_json


def record(strategy: str, correct: bool, generated: int, verifier: int = 0, budget: str = "") -> Record:
    ledger = {
        "prompt": 20, "generated": generated, "verifier": verifier, "probe": 0, "program": 0, "discarded": 5,
        "total_tokens": generated + verifier, "wall_s": 0.25,
    }  # fmt: skip
    return {"strategy": strategy, "budget": budget, "problem": "p", "correct": correct, "ledger": ledger}


RECORDS = [
    record("sample", True, 100),
    record("best-of-n:n=4", True, 400, 600),
    record("sample", False, 50),
    record("best-of-n:n=4", True, 200, 400),
]


def shown(renderable: object) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_a_row_is_the_mean_over_the_records_of_one_strategy_and_budget() -> None:
    sample, best = summarise(RECORDS)
    assert (sample.strategy, sample.problems, sample.accuracy.mean) == ("sample", 2, 0.5)
    assert (sample.tokens, sample.generated, sample.verifier) == (75, 75, 0)
    assert (best.accuracy.mean, best.tokens, best.verifier, best.discarded) == (1.0, 800, 500, 5)
    assert best.tokens == best.generated + best.verifier + best.probe + best.program
    assert len(summarise([*RECORDS, record("sample", True, 10, budget="100")])) == 3


def test_the_table_shows_every_row_and_a_dash_for_what_is_undefined() -> None:
    text = shown(table(summarise([*RECORDS, record("sample:temperature=0.0", True, 10)]), title="word problems"))
    assert "best-of-n:n=4" in text
    assert "50.0%" in text
    assert "budget" not in text
    greedy = next(line for line in text.splitlines() if "greedy" in line)
    assert "100.0%" in greedy
    assert "(-)" in greedy
    assert "budget" in shown(table(summarise([record("sample", True, 10, budget="100")])))


def test_json_has_null_where_a_number_is_undefined() -> None:
    [row] = to_json(summarise([record("sample", True, 10)]))
    assert row["accuracy"] == {"mean": 1.0, "low": None, "high": None}
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_replayed_pool_is_a_table_of_methods_by_k() -> None:
    rows = [Replayed(method, k, Interval(0.5, 0.4, 0.6), k * 10.0) for method in ("pass@k", "majority") for k in (1, 4)]
    text = shown(replay_table(rows))
    assert "pass@k" in text
    assert "50.0 (40-60)" in text
    assert [point.line for point in points(rows)] == ["pass@k", "pass@k", "majority", "majority"]


def test_plots_are_written_in_the_format_of_their_name_and_repeat_byte_for_byte(tmp_path: Path) -> None:
    drawn = [Point("a", 10, Interval(0.4, 0.3, 0.5)), Point("a", 100, Interval(0.6, 0.5, 0.7))]
    drawn += [Point("alone", 30, Interval(0.5, math.nan, math.nan))]
    files = [tmp_path / "new" / "plot.png", tmp_path / "plot.svg"]
    plot(drawn, files, title="accuracy")
    first = [file.read_bytes() for file in files]
    assert first[0].startswith(b"\x89PNG")
    assert b"<svg" in first[1]
    assert b"alone" in first[1]
    plot(drawn, files, title="accuracy")
    assert [file.read_bytes() for file in files] == first


def test_a_plot_shows_the_front_and_tells_many_lines_apart(tmp_path: Path) -> None:
    drawn = [Point(f"m{i}", 10.0 + i, Interval(0.4 + 0.01 * (i % 5), 0.3, 0.5)) for i in range(20)]
    assert [point.line for point in front_of(drawn)] == ["m0", "m1", "m2", "m3", "m4"]
    plot(drawn, [tmp_path / "plot.svg"], front=True)
    text = (tmp_path / "plot.svg").read_text()
    assert "Pareto front" in text
    assert all(f">m{i}<" in text for i in range(20))


def test_methods_are_ranked_in_a_plot_of_their_differences(tmp_path: Path) -> None:
    ranked = [("better", Interval(0.1, 0.05, 0.2)), ("unclear", Interval(0.0, -0.1, 0.1))]
    plot_ranking(ranked, [tmp_path / "ranking.svg"], mark=0.0, label="points above best-of-n")
    text = (tmp_path / "ranking.svg").read_text()
    assert "unclear" in text
    assert "points above best-of-n" in text
    with pytest.raises(ConfigError, match="nothing to plot"):
        plot_ranking([], [tmp_path / "ranking.svg"], mark=0.0, label="")


@pytest.mark.filterwarnings("error")
def test_a_long_name_leaves_room_for_what_it_names(tmp_path: Path) -> None:
    name = "entropy-switch:small=" + "/far/away" * 20 + ",top=5"
    plot([Point(name, 10, Interval(0.4, 0.3, 0.5))], [tmp_path / "plot.svg"])
    plot_ranking([(name, Interval(0.1, 0.05, 0.2))], [tmp_path / "ranking.svg"], mark=0.0, label="points")
    for file in ("plot.svg", "ranking.svg"):
        text = (tmp_path / file).read_text()
        assert "entropy-switch:small=" in text
        assert ",top=5<" in text
        assert name not in text


def test_a_plot_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png or \.svg"):
        plot([Point("a", 1, Interval(0, 0, 0))], [tmp_path / "plot.bmp"])
    with pytest.raises(ConfigError, match="nothing to plot"):
        plot([], [tmp_path / "plot.png"])


def test_points_of_all_sizes_of_a_strategy_are_one_line() -> None:
    rows = summarise([record("best-of-n:n=4", True, 1), record("best-of-n:n=16", True, 2), record("sample", True, 1)])
    assert [point.line for point in points(rows)] == ["best-of-n", "best-of-n", "sample"]


def test_plain_sampling_at_temperature_zero_is_called_greedy() -> None:
    assert label("sample:temperature=0.0") == "greedy"
    assert label("sample:temperature=0.5") == "sample:temperature=0.5"
    assert label("best-of-n:n=4") == "best-of-n:n=4"

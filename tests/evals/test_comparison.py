"""Differences are paired by problem and honest about repeats; the front holds what nothing else beats."""

import json
import math

import pytest
from rich.console import Console

from ramify.errors import ConfigError
from ramify.evals.comparison import (
    choose_baseline,
    compare,
    comparison_json,
    comparison_table,
    difference,
    pareto_front,
)
from ramify.evals.estimators import Interval
from ramify.evals.jsonl import Record
from ramify.evals.report import Row, difference_text, line_of, row_of, timings, to_json, token_table
from ramify.evals.runner import Evaluation, Run
from ramify.evals.sizing import Fit


def records(method: str, budget: str, right: list[bool], tokens: int = 100) -> list[Record]:
    ledger = {
        "prompt": 20, "generated": tokens, "verifier": 0, "probe": 0, "program": 0, "discarded": 5, "shared": 2,
        "saved": 7, "total_tokens": tokens, "wall_s": 0.25,
    }  # fmt: skip
    return [
        {
            "strategy": method,
            "budget": budget,
            "problem": str(i),
            "correct": ok,
            "ledger": ledger,
            "stop_reason": "budget",
        }
        for i, ok in enumerate(right)
    ]


def run(method: str, right: list[bool], tokens: int = 100, budget: str = "1k") -> Run:
    return Run(method, f"{method}:n=2", budget, records(f"{method}:n=2", budget, right, tokens))


def evaluation(*runs: Run) -> Evaluation:
    rows = [row_of(one.method, one.strategy, one.budget, one.records) for one in runs]
    return Evaluation(rows, [], [], list(runs), [Fit("best-of-n", "1k", 2, 90.0, True)])


def shown(renderable: object) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def point(accuracy: float, tokens: float) -> Row:
    row = row_of("m", "m", "", records("m", "", [True, False], 1))
    return Row(
        **{**{f: getattr(row, f) for f in row.__slots__}, "accuracy": Interval(accuracy, 0, 1), "tokens": tokens}
    )


def test_a_difference_is_taken_problem_by_problem() -> None:
    # Both are right in half of the problems, but hard problems are hard for both: the pairing takes that away.
    base = [i % 2 == 0 for i in range(200)]
    mine = [ok or i % 20 == 1 for i, ok in enumerate(base)]
    found = difference(run("beam", mine), run("best-of-n", base))
    assert (found.better, found.worse, found.problems) == (10, 0, 200)
    assert found.accuracy.mean == pytest.approx(0.05)
    assert 0 < found.accuracy.low < found.accuracy.high < 0.09  # unpaired it would be 0.05 +- 0.1
    back = difference(run("best-of-n", base), run("beam", mine))
    assert (back.better, back.worse, back.accuracy.mean) == (0, 10, -found.accuracy.mean)


def test_only_problems_that_both_have_are_compared() -> None:
    found = difference(run("beam", [True, True, True]), run("best-of-n", [False, True]))
    assert (found.better, found.worse, found.problems) == (1, 0, 2)


def test_problems_of_equal_content_count_as_one() -> None:
    mine, base = run("beam", [True, False] * 50), run("best-of-n", [False] * 100)
    alone = difference(mine, base).accuracy
    same = difference(mine, base, {str(i): i // 4 * 2 + i % 2 for i in range(100)}).accuracy
    assert same.mean == alone.mean
    assert same.high - same.low > 1.2 * (alone.high - alone.low)
    row = row_of("beam", "beam", "1k", mine.records, {str(i): "one puzzle" for i in range(100)})
    assert (row.problems, row.distinct) == (100, 1)
    assert math.isnan(row.accuracy.low)


def test_the_baseline_is_the_one_asked_for_or_best_of_n_or_the_first() -> None:
    assert choose_baseline(["sample", "best-of-n:select=weighted", "best-of-n"]) == "best-of-n"
    assert choose_baseline(["beam", "sample"]) == "beam"
    assert choose_baseline(["best-of-n", "sample:temperature=0.0"], "greedy") == "sample:temperature=0.0"
    with pytest.raises(ConfigError, match="'mcts' is not evaluated: choose from best-of-n"):
        choose_baseline(["best-of-n"], "mcts")


def test_methods_are_compared_at_the_same_budget_only() -> None:
    runs = [run(m, [True, ok], budget=b) for b in ("1k", "4k") for m, ok in (("best-of-n", False), ("beam", b == "4k"))]
    found = compare(evaluation(*runs))
    assert found.baseline == "best-of-n"
    assert [(one.budget, one.accuracy.mean) for one in found.differences] == [("1k", 0.0), ("4k", 0.5)]
    assert compare(evaluation(run("a", [True], budget=""), run("b", [True], budget=""))).baseline is None
    assert compare(evaluation(run("best-of-n", [True]))).differences == []


def test_the_front_holds_what_no_other_row_beats() -> None:
    rows = [point(0.5, 10), point(0.7, 100), point(0.6, 200), point(0.7, 150), point(0.9, 1000), point(0.5, 10)]
    assert pareto_front(rows) == [True, True, False, False, True, True]


def test_the_report_has_no_times_and_the_timings_have_only_those() -> None:
    found = compare(evaluation(run("best-of-n", [True, False]), run("beam", [True, True], 50)))
    data = comparison_json(found)
    assert "wall_s" not in json.dumps(data, allow_nan=False)
    best, beam = data["rows"]
    assert best["difference"] is None
    assert (beam["difference"]["accuracy"]["mean"], beam["difference"]["better"]) == (0.5, 1)
    assert (best["pareto"], beam["pareto"]) == (False, True)
    assert (beam["saved"], beam["shared"], beam["cut"], beam["notes"]) == (7, 2, 1, [])
    assert data["fits"] == [{"method": "best-of-n", "budget": "1k", "size": 2, "tokens": 90.0, "within": True}]
    assert timings(found.rows)[0] == {"strategy": "best-of-n:n=2", "budget": "1k", "wall_s": 0.25}
    assert to_json(found.rows)[0]["budget"] == "1k"


def test_tables_show_differences_the_front_and_where_tokens_went() -> None:
    found = compare(evaluation(run("best-of-n", [True, False] * 40), run("beam", [True] * 80, 50)))
    lines = shown(comparison_table(found)).splitlines()
    beam = next(line for line in lines if line.strip().startswith("beam"))
    assert "+50.0 (+39 to +61)" in beam
    assert beam.rstrip().endswith("*")
    assert "vs best-of-n" in lines[1]
    assert "saved" in shown(token_table(found.rows))


def test_notes_of_a_method_are_kept_once() -> None:
    noted = records("m", "1k", [True, False])
    for record in noted:
        record["notes"] = ["votes are length-biased"]
    assert row_of("m", "m", "1k", noted).notes == ("votes are length-biased",)


def test_differences_read_in_points_and_small_ones_have_no_sign() -> None:
    assert difference_text(Interval(0.123, -0.001, 0.204)) == "+12.3 (0 to +20)"
    assert difference_text(Interval(-0.05, -0.1, 0.004)) == "-5.0 (-10 to 0)"
    assert difference_text(Interval(0.5, math.nan, math.nan)) == "+50.0 (-)"
    assert difference_text(Interval(math.nan, math.nan, math.nan)) == "-"


def test_a_line_of_a_plot_is_a_method_with_its_options_at_all_sizes() -> None:
    assert line_of("best-of-n:n=4") == line_of("best-of-n:n=16") == "best-of-n"
    assert line_of("best-of-n:n=4,select=weighted") == "best-of-n:select=weighted"
    assert line_of("sample:temperature=0.0") == "greedy"
    assert line_of("unknown:n=3,depth=2") == "unknown:depth=2"

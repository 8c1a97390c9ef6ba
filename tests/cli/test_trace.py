"""`ramify trace` shows what `ramify solve --trace` wrote, also of a run that was killed."""

from pathlib import Path

from ramify.cli.common import ExitCode
from tests.cli.conftest import Run, json_lines

QUESTION = "Tom has 12 apples and buys 7 more. How many are left?"
SPEC = "beam:n=4,m=2,scorer=logprob,max_tokens=12,until=3"


def solved(run: Run, model: str, *questions: str) -> None:
    text = "\n".join(questions)
    result = run("solve", "--file", "-", "-m", model, "-s", SPEC, "--trace", "t.jsonl", "--no-tree", stdin=text)
    assert result.exit_code == 0


def test_the_tree_the_events_and_one_node_are_shown(run: Run, model: str) -> None:
    solved(run, model, QUESTION)
    tree = run("trace", "t.jsonl").stdout
    assert QUESTION in tree
    assert "total tokens" in tree
    assert "dropped" in tree
    events = run("trace", "t.jsonl", "--events").stdout.splitlines()
    assert events[0].startswith("Started")
    assert events[-1].startswith("Stopped")
    [data] = json_lines(run("trace", "t.jsonl", "--json").stdout)
    deepest = max(data["nodes"], key=lambda node: node["id"])
    shown = run("trace", "t.jsonl", "--node", str(deepest["id"])).stdout
    assert shown.startswith("[0]")
    assert f"[{deepest['id']}]" in shown
    assert data["run"]["prompt"] == QUESTION
    assert data["end"]["ledger"]["total_tokens"] == data["end"]["total_tokens"]


def test_several_problems_have_a_trace_each(run: Run, model: str, tmp_path: Path) -> None:
    solved(run, model, "one", "two")
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["t-1.jsonl", "t-2.jsonl"]
    assert "two" in run("trace", "t-2.jsonl").stdout


def test_a_run_that_was_killed_is_shown_as_far_as_it_goes(run: Run, model: str, tmp_path: Path) -> None:
    solved(run, model, QUESTION)
    path = tmp_path / "t.jsonl"
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    assert "killed or goes on" in run("trace", "t.jsonl").stdout


def test_bad_files_and_nodes_are_named(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("hello\n")
    result = run("trace", "t.jsonl")
    assert result.exit_code == ExitCode.USAGE
    assert "line 1" in result.stderr
    solved(run, model, QUESTION)
    result = run("trace", "t.jsonl", "--node", "99999")
    assert result.exit_code == ExitCode.USAGE
    assert "99999" in result.stderr

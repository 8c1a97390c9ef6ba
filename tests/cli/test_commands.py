"""Commands as scripts use them: results on stdout, errors as a sentence on stderr, exit codes as documented."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, json_lines

WARM_PYTHON = Path(__file__).parents[1] / "warm_python.py"
QUESTION = "Tom has 12 apples and buys 7 more. How many are left?"


def test_help_and_package_need_no_torch() -> None:
    check = (
        "import sys; import ramify.cli.main, ramify; assert not {'torch', 'transformers', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").stdout.startswith("ramify 0.")


def test_every_command_explains_itself(run: Run) -> None:
    for command in ("generate", "chat", "solve", "trace", "eval", "recommend", "batch", "techniques", "doctor", "demo"):
        result = run(command, "--help")
        assert result.exit_code == 0
        assert "--json" in result.stdout


def test_generate_prints_texts_or_json_with_usage(run: Run, model: str) -> None:
    plain = run("generate", "12 + 7", "-m", model, "-n", "2", "--max-tokens", "5", "--seed", "3")
    assert plain.exit_code == 0
    [output] = json_lines(
        run("generate", "12 + 7", "-m", model, "-n", "2", "--max-tokens", "5", "--seed", "3", "--json").stdout
    )
    assert "".join(each["text"] + "\n" for each in output["outputs"]) == plain.stdout
    assert output["usage"]["completion_tokens"] == 10
    assert [len(each["token_ids"]) for each in output["outputs"]] == [5, 5]


def test_generate_reads_prompts_from_a_file_or_stdin_in_order(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\n\ntwo\n")
    options = ("-m", model, "--max-tokens", "3", "--json")
    from_file = json_lines(run("generate", "--file", "prompts.txt", *options).stdout)
    from_stdin = json_lines(run("generate", "--file", "-", *options, stdin="one\ntwo\n").stdout)
    assert [each["prompt"] for each in from_file] == ["one", "two"]
    assert [each["outputs"] for each in from_file] == [each["outputs"] for each in from_stdin]


def test_generate_holds_answers_to_a_form(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "integer", "minimum": 10, "maximum": 99}\n')
    options = ("generate", "12 + 7", "-m", model, "--max-tokens", "20")
    assert run(*options, "--choice", "yes", "--choice", "no, never").stdout in ("yes\n", "no, never\n")
    assert 10 <= int(run(*options, "--json-schema", "@schema.json").stdout) <= 99
    assert run(*options, "--regex", "ab").stdout == run(*options, "--grammar", 'start: "ab"').stdout == "ab\n"
    refused = run(*options, "--regex", "[")
    assert refused.exit_code == 2
    assert "unclosed character class" in refused.stderr
    assert run(*options, "--regex", "a", "--grammar", "b").exit_code == 2


def test_chat_answers_once_or_in_a_conversation_that_can_begin_anew(run: Run, model: str) -> None:
    options = ("-m", model, "--max-tokens", "6", "--json")
    [once] = json_lines(run("chat", "hello", *options).stdout)
    assert once["role"] == "assistant"
    first, second, anew = json_lines(run("chat", *options, stdin="hello\nmore\n/reset\nhello\n/exit\nnever\n").stdout)
    assert first["content"] == anew["content"] == once["content"]
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]


def test_chat_streams_the_same_text_that_json_gives(run: Run, model: str) -> None:
    options = ("chat", "hello", "-m", model, "--max-tokens", "12")
    assert run(*options).stdout == json_lines(run(*options, "--json").stdout)[0]["content"] + "\n"


def test_solve_shows_tree_answer_and_ledger_and_writes_the_trace(run: Run, model: str, tmp_path: Path) -> None:
    spec = "beam:n=4,m=2,scorer=logprob,max_tokens=12"
    result = run("solve", QUESTION, "-m", model, "-s", spec, "--trace", "trace.jsonl")
    assert result.exit_code == 0
    assert QUESTION in result.stdout
    assert "total tokens" in result.stdout
    events = json_lines((tmp_path / "trace.jsonl").read_text())
    assert {"Started", "Grown", "Stopped"} <= {event["type"] for event in events}


def test_solve_keeps_its_budget_and_says_so_in_json(run: Run, model: str) -> None:
    options = ("-m", model, "-s", "self-consistency:n=64,max_tokens=20", "--budget", "70", "--json")
    [found] = json_lines(run("solve", QUESTION, *options).stdout)
    assert found["stop_reason"] == "budget"
    assert found["ledger"]["total_tokens"] <= 70
    assert json_lines(run("solve", QUESTION, *options).stdout)[0]["candidates"] == found["candidates"]


def test_techniques_lists_the_registry(run: Run) -> None:
    assert "particle-filter" in run("techniques").stdout
    [listed] = json_lines(run("techniques", "--kind", "strategy", "--json").stdout)
    by_name = {entry["name"]: entry for entry in listed}
    assert by_name["self-consistency"]["paper"] == "arXiv:2203.11171"
    assert "n" in by_name["best-of-n"]["options"]
    assert all(entry["trade"] in ("lossless", "distribution", "approximate") for entry in listed)


def test_doctor_prints_the_sum_of_the_pool(run: Run, model: str) -> None:
    [found] = json_lines(run("doctor", "-m", model, "-e", "max_num_seqs=8", "--json").stdout)
    checks = {check["name"]: check for check in found["checks"]}
    # 8 sequences of 512 tokens are 256 blocks of 16; one more is the null block.
    assert "257 blocks" in checks[f"KV pool of {model}"]["found"]
    assert checks["torch"]["ok"]
    assert "allowed by affinity" in checks["cores"]["found"] or sys.platform != "linux"
    assert checks["paged attention"]["found"].startswith(("native ", "torch ("))


def test_doctor_fails_with_a_remedy_where_something_is_missing(run: Run) -> None:
    result = run("doctor", "-m", "/no/such/folder")
    assert result.exit_code == 1
    assert "missing" in result.stdout
    assert "give another --model" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["generate"], 2, "give either a prompt as an argument or a file"),
        (["generate", "a", "--temperature", "-1"], 2, "temperature=-1"),
        (["generate", "a", "-e", "max_num_seq=4"], 2, "did you mean max_num_seqs"),
        (["generate", "a", "-e", "max_num_seqs=many"], 2, "max_num_seqs='many'"),
        (["generate", "a", "-e", "seed"], 2, "write KEY=VALUE"),
        (["generate", "a", "-m", "/no/such/folder"], 3, "no model '/no/such/folder'"),
        (["generate", "--file", "missing.txt"], 2, "cannot be read"),
        (["solve", "a", "-s", "best-of-m"], 2, "did you mean 'best-of-n'"),
        (["solve", "a", "-s", "sample", "--budget", "lots"], 2, "is not understood"),
        (["eval", "--task", "nothing"], 2, "unknown task 'nothing'"),
        (["eval", "--replay", "missing.jsonl"], 2, "there is no file"),
        (["batch", "missing.jsonl", "-o", "out.jsonl"], 2, "there is no file"),
        (["techniques", "--kind", "magic"], 2, "no technique of kind 'magic'"),
        (["demo", "--sizes", "3"], 2, "multiples of 4"),
        (["generate", "a", "--no-such-option"], 2, "No such option"),
    ],
)
def test_bad_usage_is_a_sentence_and_an_exit_code(run: Run, arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_prompt_that_does_not_fit_is_a_usage_error(run: Run, model: str) -> None:
    result = run("generate", "apples " * 2000, "-m", model)
    assert result.exit_code == 2
    assert "the context is 512" in result.stderr


def test_eval_writes_results_report_and_plots_and_goes_on(run: Run, model: str, tmp_path: Path) -> None:
    options = ("-m", model, "-p", "3", "-o", "out", "--json")
    first = run("eval", "-s", "sample:max_tokens=8", *options)
    assert first.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "plot.png", "plot.svg", "report.json", "results.jsonl", "timings.json"
    ]  # fmt: skip
    both = run("eval", "-s", "sample:max_tokens=8", "-s", "self-consistency:n=2,max_tokens=8", *options)
    [report] = json_lines(both.stdout)
    assert report["rows"][0] == json_lines(first.stdout)[0]["rows"][0]
    assert [row["problems"] for row in report["rows"]] == [3, 3]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report


def test_eval_takes_a_file_and_reports_bad_lines_by_number(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "quiz.jsonl").write_text('{"q": "1+1?", "a": 2}\nbroken\n')
    options = ("eval", "-t", "quiz.jsonl", "--question", "q", "--answer", "a", "-s", "sample:max_tokens=4", "-m", model)
    refused = run(*options)
    assert refused.exit_code == 2
    assert "line 2: not JSON" in refused.stderr
    assert run(*options, "--skip-bad").exit_code == 0


def test_a_pool_is_drawn_and_replayed_offline_with_the_same_numbers(run: Run, model: str) -> None:
    options = ("--samples", "3", "--reward-model", "", "-p", "3", "-o", "pool", "-m", model, "--json")
    [drawn] = json_lines(run("eval", *options).stdout)
    [replayed] = json_lines(run("eval", "--replay", "pool/pool.jsonl", "--json").stdout)
    assert drawn == replayed
    assert {row["k"] for row in drawn["rows"]} == {1, 2, 3}
    [more] = json_lines(run("eval", "--replay", "pool/pool.jsonl", "-s", "mbr", "--json").stdout)
    assert [row for row in more["rows"] if row["method"] != "mbr"] == drawn["rows"]
    assert {row["k"] for row in more["rows"] if row["method"] == "mbr"} == {1, 2, 3}


def test_an_interrupt_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(kind: str | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ramify.registry.techniques", interrupted)
    result = run("techniques")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_a_reader_that_goes_away_brings_no_traceback(warm_python: str) -> None:
    command = f"{sys.executable} {WARM_PYTHON} {warm_python} ramify techniques --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""

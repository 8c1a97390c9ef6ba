"""A batch answers every line it can, names the others by number, and never answers a line twice."""

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import Run, json_lines

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def line(custom_id: str, url: str = TEXT, **body: Any) -> dict[str, Any]:
    body.setdefault("max_tokens", 4)
    if url == CHAT:
        body.setdefault("messages", [{"role": "user", "content": "hello"}])
    else:
        body.setdefault("prompt", "12 + 7")
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def write(path: Path, *lines: Any) -> None:
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines))


def by_id(path: Path) -> dict[str, Any]:
    return {record["custom_id"]: record["response"]["body"]["choices"] for record in json_lines(path.read_text())}


def test_chat_and_text_requests_are_answered_in_openais_form(run: Run, model: str, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", line("a", CHAT), "", line("b", TEXT, n=2, logprobs=1))
    result = run("batch", "in.jsonl", "-o", "out.jsonl", "-m", model, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "completed": 2, "skipped": 0, "failed": 0, "output": "out.jsonl", "errors": None
    }  # fmt: skip
    records = {record["custom_id"]: record for record in json_lines((tmp_path / "out.jsonl").read_text())}
    assert records["a"]["response"]["status_code"] == 200
    assert records["a"]["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
    assert len(records["b"]["response"]["body"]["choices"]) == 2
    assert records["b"]["response"]["body"]["usage"]["completion_tokens"] == 8
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_bad_lines_are_named_by_number_and_the_others_answered(run: Run, model: str, tmp_path: Path) -> None:
    write(
        tmp_path / "in.jsonl",
        line("good"),
        "{broken",
        {"method": "POST", "url": TEXT, "body": {"prompt": "a"}},
        line("good"),
        line("odd", TEXT, suffix="x"),
        line("long", TEXT, prompt="apples " * 2000),
        line("elsewhere", "/v1/embeddings"),
        {"custom_id": "bodiless", "url": TEXT},
        line("other", TEXT, model="gpt-9"),
    )
    result = run("batch", "in.jsonl", "-o", "out.jsonl", "-m", model)
    assert result.exit_code == 1
    assert "1 answered, 0 skipped (answered before), 8 failed" in result.stderr
    assert set(by_id(tmp_path / "out.jsonl")) == {"good"}
    errors = {
        error["line"]: error["error"]["message"] for error in json_lines((tmp_path / "out.errors.jsonl").read_text())
    }
    assert list(errors) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert "not JSON" in errors[2]
    assert "no 'custom_id'" in errors[3]
    assert "taken by an earlier line" in errors[4]
    assert "suffix: Input should be ''" in errors[5]
    assert "the context is 512" in errors[6]
    assert "'/v1/embeddings' is not supported" in errors[7]
    assert "no 'body'" in errors[8]
    assert "asks for model 'gpt-9'" in errors[9]


def test_a_killed_batch_goes_on_and_gives_the_answers_of_an_unbroken_one(run: Run, model: str, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *(line(f"r{i}", TEXT, prompt=f"{i} + 1", temperature=1.0) for i in range(6)))
    run("batch", "in.jsonl", "-o", "whole.jsonl", "-m", model)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(whole[: len(whole) * 3 // 5])
    kept = whole[: len(whole) * 3 // 5].count(b"\n")
    result = run("batch", "in.jsonl", "-o", "cut.jsonl", "-m", model)
    assert result.exit_code == 0
    assert f"{6 - kept} answered, {kept} skipped" in result.stderr
    assert by_id(cut) == by_id(tmp_path / "whole.jsonl")
    assert len(cut.read_text().splitlines()) == 6
    assert "0 answered, 6 skipped" in run("batch", "in.jsonl", "-o", "cut.jsonl", "-m", model).stderr


def test_mended_lines_leave_no_error_file_behind(run: Run, model: str, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", line("a", TEXT, n=0))
    assert run("batch", "in.jsonl", "-o", "out.jsonl", "-m", model).exit_code == 1
    write(tmp_path / "in.jsonl", line("a"))
    assert run("batch", "in.jsonl", "-o", "out.jsonl", "-m", model).exit_code == 0
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_any_model_name_is_answered_on_request(run: Run, model: str, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", line("a", TEXT, model="gpt-9"))
    assert run("batch", "in.jsonl", "-o", "out.jsonl", "-m", model, "--any-model").exit_code == 0


def test_the_input_is_never_written_to(run: Run, model: str, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", line("a"))
    result = run("batch", "in.jsonl", "-o", "in.jsonl", "-m", model)
    assert result.exit_code == 2
    assert "three different files" in result.stderr
    assert len((tmp_path / "in.jsonl").read_text().splitlines()) == 1

"""A journal loses nothing but the line a kill cut short, and never mixes two settings."""

import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.errors import ConfigError, TaskError
from ramify.evals.jsonl import Journal, read_journal, repair_tail

HEADER = {"task": "t", "seed": 0}


def write(path: Path, count: int) -> None:
    with Journal(path, HEADER) as journal:
        journal.append({"i": i, "text": "naïve\nline"} for i in range(count))


def test_what_was_written_is_read_back_and_appending_goes_on_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.jsonl"
    write(path, 2)
    with Journal(path, HEADER) as journal:
        assert [record["i"] for record in journal.records] == [0, 1]
        journal.append([{"i": 2}])
    header, records = read_journal(path)
    assert header == HEADER
    assert [record["i"] for record in records] == [0, 1, 2]


@given(cut=st.integers(0, 400))
def test_a_file_cut_at_any_byte_keeps_every_whole_record(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "run.jsonl"
    write(path, 5)
    whole = path.read_bytes()
    cut = min(cut, len(whole))
    path.write_bytes(whole[:cut])
    complete_lines = whole[:cut].count(b"\n")
    with Journal(path, HEADER) as journal:
        assert len(journal.records) == max(0, complete_lines - 1)
        journal.append([{"i": "next"}])
    assert read_journal(path)[1][-1] == {"i": "next"}


def test_a_long_unfinished_line_is_cut_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"x" * 200_000)
    assert repair_tail(path) == 200_000
    assert path.read_bytes() == b'{"a": 1}\n'
    path.write_bytes(b"x" * 10)
    assert repair_tail(path) == 10
    assert path.read_bytes() == b""


def test_other_settings_are_an_error_that_names_them(tmp_path: Path) -> None:
    write(tmp_path / "run.jsonl", 1)
    with pytest.raises(ConfigError, match=r"seed was 0 and is now 1\): use a new file or the old settings"):
        Journal(tmp_path / "run.jsonl", {**HEADER, "seed": 1})
    assert len(read_journal(tmp_path / "run.jsonl")[1]) == 1


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Journal(path, HEADER), pytest.raises(ConfigError, match="being written by another run"):
        Journal(path, HEADER)
    Journal(path, HEADER).close()


def test_a_broken_line_in_the_middle_is_reported_by_number(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write(path, 1)
    path.write_bytes(path.read_bytes() + b'{"broken\n{"i": 5}\n')
    with pytest.raises(TaskError, match=r"line 3: not JSON"):
        Journal(path, HEADER)


def test_a_file_that_is_no_journal_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    for text in ('{"mine": 1}\n', "notes without a line's end"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="does not begin with a header"):
            Journal(path, HEADER)
        assert path.read_text() == text
    with pytest.raises(TaskError, match="there is no file"):
        read_journal(tmp_path / "missing.jsonl")


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Journal(path, HEADER) as journal:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 1000, limit[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                journal.append([{"text": "x" * 5000}])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, handler)
        journal.append([{"text": "after"}])
    assert read_journal(path)[1] == [{"text": "after"}]

"""The cache of packed weights on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ramify.quantization import cache


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights" * 1000)
    return file


def test_the_same_content_has_one_entry_wherever_it_lies(tmp_path: Path, source: Path) -> None:
    copy = tmp_path / "copy" / source.name
    copy.parent.mkdir()
    copy.write_bytes(source.read_bytes())
    assert cache.entry_path([source], "w4a8") == cache.entry_path([copy], "w4a8")


def test_another_content_format_or_option_has_another_entry(source: Path) -> None:
    before = cache.entry_path([source], "w4a8")
    assert cache.entry_path([source], "w8a8") != before
    assert cache.entry_path([source], "w4a8", "more") != before
    source.write_bytes(b"Weights" * 1000)
    os.utime(source, ns=(1, 1))
    assert cache.entry_path([source], "w4a8") != before


def test_a_file_is_hashed_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.entry_path([source])
    monkeypatch.setattr(cache, "_remember", lambda *arguments: pytest.fail("it was hashed again"))
    assert cache.entry_path([source]) == before


def test_a_damaged_note_of_a_hash_is_made_again(source: Path, own_cache: Path) -> None:
    before = cache.entry_path([source])
    for note in (own_cache / "hashes").iterdir():
        note.write_bytes(b"\xff")
    assert cache.entry_path([source]) == before


def entries(folder: Path, *ages: int) -> list[Path]:
    weights = folder / "weights"
    weights.mkdir(parents=True)
    made = []
    for age in ages:
        path = weights / f"{age}.safetensors"
        path.write_bytes(bytes(100))
        os.utime(path, ns=(10**9 * (1000 - age), 10**9 * (1000 - age)))
        made.append(path)
    return made


def test_what_was_not_used_for_longest_goes_first(own_cache: Path) -> None:
    old, newer, newest = entries(own_cache, 30, 20, 10)
    cache.trim(newest, most_bytes=250)
    assert [path.exists() for path in (old, newer, newest)] == [False, True, True]
    cache.touch(newer)
    cache.trim(newer, most_bytes=100)
    assert [path.exists() for path in (newer, newest)] == [True, False]


def test_what_was_just_made_is_kept_even_beyond_the_bound(own_cache: Path) -> None:
    (only,) = entries(own_cache, 10)
    cache.trim(only, most_bytes=1)
    assert only.exists()


def test_clearing_frees_everything(own_cache: Path, source: Path) -> None:
    entries(own_cache, 10, 20)
    cache.entry_path([source])
    assert cache.cached_bytes() == 200
    assert cache.clear() >= 200
    assert not [path for path in own_cache.rglob("*") if path.is_file()]


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAMIFY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "ramify"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "ramify"

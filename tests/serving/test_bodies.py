"""Bodies before they are parsed: their depth is found without parsing and without recursion."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.serving.bodies import check_json, json_depth
from ramify.serving.errors import ApiError


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(each) for each in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(each) for each in value), default=0)
    return 0


_text = st.text(st.sampled_from('[]{}"\\ax,:é'), max_size=8)
_json = st.recursive(
    st.none() | st.integers() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=20,
)


@given(_json, st.booleans())
def test_the_depth_of_json_is_what_a_parser_finds_whatever_its_strings_hold(value: Any, ascii_only: bool) -> None:
    assert json_depth(json.dumps(value, ensure_ascii=ascii_only).encode()) == _depth(value)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_deep_json_is_refused(opening: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        check_json(opening * 10_000, 64)
    assert refused.value.status == 400


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 500_000, b'"' * 1_000_001, b"\\" * 1_000_000, b'"\\'])
def test_bodies_that_end_within_a_string_are_scanned_in_linear_time(body: bytes) -> None:
    assert json_depth(body) == 0  # a scanner that backtracks would not come back


def test_brackets_in_strings_do_not_count() -> None:
    check_json(json.dumps({"content": "[" * 1000 + '"' + "{" * 1000}).encode(), 64)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_json_hidden_in_another_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(ApiError):
        check_json(("[" * 200).encode(encoding), 64)

"""Stop strings are found wherever the text is cut into tokens, and nothing of them is shown too early."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.text.stop import StopMatch, StopStrings

letters = st.text("ab\n", max_size=30)
stop_lists = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=4)


def first_match(text: str, stops: list[str]) -> tuple[int, int, str] | None:
    """By the definition: the match that ends first, and of those the longest."""
    matches = [
        (end, end - len(stop), stop)
        for stop in stops
        for end in range(len(stop), len(text) + 1)
        if text[end - len(stop) : end] == stop
    ]
    return min(matches) if matches else None


def run(pieces: list[str], stops: list[str], include: bool = False) -> tuple[StopStrings, list[str]]:
    """Push the pieces, one a token; flush if nothing was found."""
    search = StopStrings(stops, include)
    shown = [search.push(piece) for piece in pieces]
    return search, [*shown, search.flush()]


@given(text=letters, stops=stop_lists, cuts=st.lists(st.integers(0, 30), max_size=8), include=st.booleans())
def test_any_cutting_finds_what_a_search_of_the_whole_text_finds(
    text: str, stops: list[str], cuts: list[int], include: bool
) -> None:
    borders = sorted([0, len(text), *(min(cut, len(text)) for cut in cuts)])
    pieces = [text[start:end] for start, end in pairwise(borders)]
    search, shown = run(pieces, stops, include)
    expected = first_match(text, stops)
    if expected is None:
        assert search.match is None
        assert "".join(shown) == text
        return
    end, start, stop = expected
    kept = end if include else start
    assert "".join(shown) == text[:kept]
    needed = next(count for count in range(len(pieces) + 1) if len("".join(pieces[:count])) >= kept)
    assert search.match == StopMatch(stop, kept, needed)


@given(text=letters, stops=stop_lists)
def test_what_is_shown_early_is_never_taken_back_and_no_more_is_held_than_a_stop_string(
    text: str, stops: list[str]
) -> None:
    search, shown = StopStrings(stops), ""
    for count, letter in enumerate(text, start=1):
        shown += search.push(letter)
        assert text.startswith(shown)
        if search.match is not None:
            return
        held = text[len(shown) : count]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_a_stop_string_across_three_tokens_is_cut_where_it_begins() -> None:
    search, shown = run(["Answer: 7", "\n#", "##", " next"], ["\n###"])
    assert shown == ["Answer: 7", "", "", "", ""]
    assert search.match == StopMatch("\n###", 9, 1)


def test_a_stop_string_inside_one_token_keeps_that_token() -> None:
    search, shown = run(["abc", "d.\n\ne"], ["\n\n"])
    assert "".join(shown) == "abcd."
    assert search.match == StopMatch("\n\n", 5, 2)


def test_the_stop_string_may_be_kept() -> None:
    search, shown = run(["abc.", "\n", "\nrest"], ["\n\n"], include=True)
    assert "".join(shown) == "abc.\n\n"
    assert search.match == StopMatch("\n\n", 6, 3)


def test_a_text_that_is_all_stop_string_needs_no_token() -> None:
    search, _ = run(["\n", "\n"], ["\n\n"])
    assert search.match == StopMatch("\n\n", 0, 0)


def test_tokens_without_text_of_their_own_count() -> None:
    search = StopStrings(["END"])
    search.push("", num_tokens=2)
    search.push("中", num_tokens=1)
    search.push("END", num_tokens=1)
    assert search.match == StopMatch("END", 1, 3)


def test_a_beginning_that_comes_to_nothing_is_let_out() -> None:
    _, shown = run(["a\n", "b", "\n"], ["\n\n"])
    assert shown == ["a", "\nb", "", "\n"]


def test_a_stop_string_that_is_complete_before_min_tokens_is_passed_over() -> None:
    search = StopStrings(["ab", "abX"])
    assert search.push("xa", honour=False) == "x"
    search.push("b", honour=False)
    search.push("c")
    assert search.match is None
    search.push("ab")
    assert search.match == StopMatch("ab", 4, 3)


def test_nothing_comes_after_a_match() -> None:
    search = StopStrings(["."])
    assert search.push("a.b") == "a"
    assert (search.push("c"), search.flush()) == ("", "")


def test_a_copy_goes_on_alone() -> None:
    search = StopStrings(["\n\n"])
    assert search.push("a\n") == "a"
    twin = search.copy()
    assert search.push("\n") == ""
    assert search.match is not None
    assert twin.push("b") == "\nb"
    assert twin.match is None


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty stop string"):
        StopStrings([""])

"""The laws of an answer equivalence, as a check that a plug-in calls in its own tests."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ramify.scoring.equivalence import Equivalence
from ramify.scoring.problem import Problem

PROBLEM = Problem("equivalence", "?")
HOSTILE_TEXTS = (
    "",
    " \n\t",
    "\x00\ud800\ufeff",
    "####",
    "#### " + "9" * 100_000,
    "#### 9**9**9**9**9",
    "\\boxed{9^{9^{9^{9^{9}}}}}",
    "\\boxed{((10^{999})^{999})^{999}}",
    "\\boxed{2^{-99999999999}}",
    "\\boxed{99999999!}",
    "\\boxed{" + "\\frac{1}{" * 500 + "2" + "}" * 500 + "}",
    "\\boxed{" + "(" * 900 + "1" + ")" * 900 + "}",
    "\\boxed{" * 20_000,
    "\\boxed{" + "{1," * 300 + "}" * 300 + "}",
    "\\boxed{" + "\\sqrt" * 200 + "2}",
    "#### " + "1+" * 900 + "1",
    "#### __import__('os').system('true')",
    "#### exec('while True: pass')",
    "#### 0/0",
    "#### 1/0",
    "#### nan",
    "#### inf",
    "#### 1e99999999999",
    "Answer: " * 20_000,
    "```python\n" * 5_000,
    "(" * 100_000,
    "A" * 100_000,
)
"""Texts on which a careless reader hangs, takes all memory, runs code, or finds what is not equal to itself."""


def check_equivalence(
    equivalence: Equivalence,
    texts: Iterable[str],
    problem: Problem = PROBLEM,
    same: Sequence[Sequence[str]] = (),
    hostile: bool = False,
) -> None:
    """Hold an equivalence to its contract on some texts.

    Args:
        texts: solutions, as a model would write them; good ones and bad ones.
        problem: what they are solutions of.
        same: groups of texts; the answers in one group have one key, those of different groups different keys.
        hostile: also read `HOSTILE_TEXTS`; a test that hangs there has found a fault.

    Raises:
        AssertionError: names the law and the texts.
    """
    texts = [*texts, *(text for group in same for text in group), *(HOSTILE_TEXTS if hostile else ())]
    keys = [equivalence.key(text, problem) for text in texts]
    for text, key in zip(texts, keys, strict=True):
        _check_one(equivalence, text, key, problem)
    _check_relation(texts, keys)
    _check_threads(equivalence, texts, keys, problem)
    _check_groups(equivalence, same, problem)


def _check_one(equivalence: Equivalence, text: str, key: Hashable | None, problem: Problem) -> None:
    """A key is None or hashable, equal to itself, and the same when it is asked for again."""
    shown = repr(text[:80])
    assert isinstance(key, Hashable), f"the key of {shown} cannot be hashed: {key!r}"
    assert key == key, f"the key of {shown} is not equal to itself: {key!r}"
    again = equivalence.key(text, problem)
    assert again == key, f"{shown} has two keys: {key!r} and {again!r}"
    assert hash(again) == hash(key), f"equal keys of {shown} have different hashes: {key!r}"


def _check_relation(texts: Sequence[str], keys: Sequence[Hashable | None]) -> None:
    """Equality is symmetric, equal keys have one hash, and being equal to one of a class is being equal to all."""
    classes: list[list[int]] = []
    for i, key in enumerate(keys):
        equal = [members for members in classes if any(keys[j] == key or key == keys[j] for j in members)]
        for j in (j for members in equal for j in members):
            pair = f"{texts[i][:80]!r} and {texts[j][:80]!r}"
            assert (keys[j] == key) == (key == keys[j]), f"not symmetric: {pair}"
            consistent = len(equal) == 1 and keys[j] == key
            assert consistent, f"not transitive: {pair} and what is equal to both"
            assert hash(key) == hash(keys[j]), f"equal keys with different hashes: {pair}"
        if equal:
            equal[0].append(i)
        else:
            classes.append([i])


def _check_threads(
    equivalence: Equivalence, texts: Sequence[str], keys: Sequence[Hashable | None], problem: Problem
) -> None:
    """Several threads at once get the same keys."""
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: equivalence.key(text, problem), [*texts, *reversed(texts)]))
    expected = [*keys, *reversed(keys)]
    for text, key, found in zip([*texts, *reversed(texts)], expected, together, strict=True):
        assert key == found, f"{text[:80]!r} has another key when threads ask at once: {found!r} instead of {key!r}"


def _check_groups(equivalence: Equivalence, groups: Sequence[Sequence[str]], problem: Problem) -> None:
    seen: dict[Hashable | None, str] = {}
    for group in groups:
        keys = {equivalence.key(text, problem) for text in group}
        assert len(keys) == 1, f"these should be one answer and are {len(keys)}: {list(group)}"
        key = keys.pop()
        assert key is not None, f"no answer is read in {list(group)}"
        assert key not in seen, f"different answers have one key: {seen.get(key)!r} and {group[0]!r}"
        seen[key] = group[0]

"""The process of `FormChecker`: reads forms, one a line of JSON, and answers each with what is wrong with it, or null.

It knows no model: the vocabulary is the 256 bytes and the special tokens' names. Whether a form can be read, and how
much work it is, hardly depends on more.
"""

from __future__ import annotations

import json
import random
import resource
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

from ramify.errors import RamifyError
from ramify.sampling import StructuredOutputsParams
from ramify.text.constraints.compiled import CompiledGrammar, deep_thread
from ramify.text.constraints.forms import compile_form
from ramify.text.constraints.vocabulary import Vocabulary

_MEMORY_BYTES = 2 * 2**30  # on top of what is mapped at the start; the deep thread's stack is half a gigabyte of it
_STATM = Path("/proc/self/statm")
_STEPS = 64
_NUM_BYTES = 256
_NUMBERED = "<["


def main() -> None:
    """Serve standard input until it ends."""
    thread = deep_thread("forms")
    if _STATM.exists():  # where it is not, memory has no bound but the machine's
        mapped = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _MEMORY_BYTES, mapped + _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(thread.submit(_check, line).result()), flush=True)


def _check(line: str) -> str | None:
    wanted = json.loads(line)
    numbers = _NUMBERED in (wanted["form"]["grammar"] or "")  # of tokens: then the ids have to be the model's
    vocabulary = _vocabulary(json.dumps(wanted["specials"]), wanted["size"] if numbers else None)
    try:
        _walk(compile_form(StructuredOutputsParams(**wanted["form"]), vocabulary))
    except RamifyError as error:
        return str(error)
    return None


@lru_cache(maxsize=8)
def _vocabulary(names: str, size: int | None) -> Vocabulary:
    """The special tokens and the bytes: as many ids as that takes, or the model's `size` with the special ones at their
    places."""
    specials: dict[str, int] = json.loads(names)
    if size is None:
        size, specials = 0, {name: place for place, name in enumerate(specials)}
    pieces = [b""] * max(size, len(specials) + _NUM_BYTES + 1)
    taken = set(specials.values())
    free = (index for index in range(len(pieces)) if index not in taken)
    for byte, index in zip(range(_NUM_BYTES), free, strict=False):
        pieces[index] = bytes([byte])
    return Vocabulary(tuple(pieces), frozenset({next(free)}), specials)


def _walk(grammar: CompiledGrammar) -> None:
    """Write the beginning of some answer: work that a form makes only on the way is found here too."""
    follower, draws = grammar.follow(), random.Random(0)
    for _ in range(_STEPS):
        choices = np.flatnonzero(follower.allowed())
        if not len(choices):
            return
        follower.read([int(draws.choice(choices))])


if __name__ == "__main__":
    main()

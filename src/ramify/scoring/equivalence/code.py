"""Programs as answers: two are the same when they behave alike on the problem's inputs, run in the sandbox."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache

from ramify.errors import TaskError
from ramify.registry import register
from ramify.scoring.equivalence.base import PAGE
from ramify.scoring.extraction import LONGEST_TEXT
from ramify.scoring.problem import Problem
from ramify.scoring.sandbox import Sandbox

FAILED = "failed"
_LONGEST_OUTPUT = 200  # characters; of a longer one the key holds a hash
_FENCE = re.compile(r"^[ \t]*```[ \t]*([A-Za-z0-9+]*)[^\n]*$", re.MULTILINE)
_MARK = "\x1e"  # begins a line that gives a call's value; what the program prints itself does not count
_CALLS = """
import json as _json
for _arguments in _json.loads({inputs!r}):
    try:
        _value = {mark!r} + repr({function}(*_arguments))
    except Exception as _error:
        _value = {mark!r} + "!" + type(_error).__name__
    print("\\n" + _value.replace("\\n", " "), flush=True)
"""


@register("code", kind="equivalence", trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class CodeBehaviour:
    """The last Python block of a solution, by what it does on ``problem.metadata["inputs"]``.

    Inputs are texts for standard input; with ``metadata["function"]`` (a name) they are lists of arguments, and the
    values of the calls are compared. On an input where a program fails, it agrees with every program that fails there;
    one that fails on all of them is no answer.

    Attributes:
        sandbox: the walls that it runs behind.
    """

    sandbox: Sandbox = field(default_factory=Sandbox)

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """A tuple with what it gave on each input, or None.

        Raises:
            TaskError: the problem has no inputs.
            CapabilityError: programs cannot be run safely here.
        """
        inputs = problem.metadata.get("inputs")
        if not inputs:
            raise TaskError(
                f"problem {problem.id!r} has no metadata['inputs']: code is compared by what it does on inputs; give "
                "texts for standard input, or lists of arguments together with metadata['function']"
            )
        source = python_block(text)
        if source is None:
            return None
        function = problem.metadata.get("function")
        seen = _behaviour(source, json.dumps(list(inputs)), function, self.sandbox)
        return seen if any(part != FAILED for part in seen) else None


def python_block(text: str) -> str | None:
    """The last fenced block that is Python or says no language; a text without fences if it compiles."""
    text = text[-LONGEST_TEXT:]
    fences = list(_FENCE.finditer(text))
    blocks = [
        text[opening.end() : closing.start()].strip("\n")
        for opening, closing in zip(fences[::2], fences[1::2], strict=False)
        if opening.group(1).lower() in ("", "python", "python3", "py")
    ]
    if fences:
        return blocks[-1] if blocks and blocks[-1].strip() else None
    return text if text.strip() else None


@lru_cache(maxsize=1024)
def _behaviour(source: str, inputs: str, function: str | None, sandbox: Sandbox) -> tuple[str, ...]:
    """What a program gives on each input: its output without trailing space, or `FAILED`."""
    given = json.loads(inputs)
    if function is None:
        runs = [sandbox.run(source, str(text)) for text in given]
        return tuple(_shown(run.stdout) if run.outcome == "ok" else FAILED for run in runs)
    if not function.isidentifier():
        raise TaskError(f"metadata['function']={function!r} is no name of a function")
    run = sandbox.run(source + "\n" + _CALLS.format(inputs=inputs, mark=_MARK, function=function))
    values = [line[1:] for line in run.stdout.split("\n") if line.startswith(_MARK)][: len(given)]
    shown = [FAILED if value.startswith("!") else _shown(value) for value in values]
    return tuple(shown + [FAILED] * (len(given) - len(shown)))


def _shown(output: str) -> str:
    lines = "\n".join(line.rstrip() for line in output.rstrip().split("\n"))
    if len(lines) <= _LONGEST_OUTPUT:
        return "gave " + lines
    return "gave " + hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()

"""Lines such as `12 + 5 = 17`: writing, reading and checking them with whole numbers only."""

import re
from typing import NamedTuple

# At most six digits: a longer number is never right here, and huge ones are not worth computing with.
_LINE = re.compile(r"(-?[0-9]{1,6}) ([-+*/]) (-?[0-9]{1,6}) = (-?[0-9]{1,12})")


class Step(NamedTuple):
    """One operation on two whole numbers and the result somebody wrote down for it."""

    left: int
    op: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right} = {self.result}"

    @property
    def holds(self) -> bool:
        """Whether the written result is the true one."""
        return apply(self.left, self.op, self.right) == self.result

    @property
    def normal(self) -> "Step":
        """The same step with the operands of + and * in order, so that `5 + 12` equals `12 + 5`."""
        if self.op in "+*" and self.left < self.right:
            return Step(self.right, self.op, self.left, self.result)
        return self


def apply(left: int, op: str, right: int) -> int | None:
    """Compute `left op right`; None for a division that is not exact, or by zero."""
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left // right if right != 0 and left % right == 0 else None
    raise ValueError(f"unknown operation {op!r}; use one of + - * /")


def make_step(left: int, op: str, right: int) -> Step:
    """Make a step with its true result. Raises ValueError if the division is not exact."""
    result = apply(left, op, right)
    if result is None:
        raise ValueError(f"{left} / {right} is not a whole number")
    return Step(left, op, right, result)


def read_step(line: str) -> Step | None:
    """Read one line; None if it is not exactly one operation on whole numbers."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    return Step(int(match[1]), match[2], int(match[3]), int(match[4]))

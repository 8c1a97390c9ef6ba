"""Arithmetic expressions over whole numbers: a small parser, exact values, and a canonical form for comparing them.

Made for text that a model or a stranger wrote: length and nesting are bounded, there are no powers, and only ASCII
digits count, so no input is slow or runs code.
"""

import re
from dataclasses import dataclass

from ramify.evals.tasks.arithmetic import apply

_LONGEST = 400
_DEEPEST = 40
_TOKEN = re.compile(r" *([0-9]{1,6}|[-+*/()])")


@dataclass(frozen=True, slots=True)
class Operation:
    """An inner node of an expression; leaves are plain whole numbers."""

    op: str
    left: "Tree"
    right: "Tree"


Tree = int | Operation


def parse(text: str) -> Tree | None:
    """Read an expression of whole numbers, + - * / and parentheses; None if it is anything else."""
    if len(text) > _LONGEST:
        return None
    tokens: list[str] = []
    position = 0
    text = text.rstrip(" ")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(match[1])
        position = match.end()
    return _Parser(tokens).parse()


def numbers_in(tree: Tree) -> list[int]:
    """List the numbers of an expression from left to right."""
    return [tree] if isinstance(tree, int) else numbers_in(tree.left) + numbers_in(tree.right)


def value(tree: Tree) -> int | None:
    """Compute an expression exactly; None if a division is by zero or leaves a remainder."""
    if isinstance(tree, int):
        return tree
    left, right = value(tree.left), value(tree.right)
    if left is None or right is None:
        return None
    return apply(left, tree.op, right)


def canonical(tree: Tree) -> str:
    """Write an expression so that order, association and needless parentheses make no difference.

    Sums and differences become one sorted sum of signed terms, products and quotients one sorted product:
    `(25 * 4) - (7 + 5)` and `4 * 25 - 5 - 7` give the same text.
    """
    if isinstance(tree, int):
        return str(tree)
    positive, negative = "+-" if tree.op in "+-" else "*/"
    parts = sorted(f"{sign}{canonical(part)}" for sign, part in _flatten(tree, positive, negative, False))
    return "(" + " ".join(parts) + ")"


def _flatten(tree: Tree, positive: str, negative: str, inverted: bool) -> list[tuple[str, Tree]]:
    if isinstance(tree, int) or tree.op not in (positive, negative):
        # Dividing by one is multiplying by one.
        return [(negative if inverted and not (negative == "/" and tree == 1) else positive, tree)]
    right_inverted = inverted != (tree.op == negative)
    return _flatten(tree.left, positive, negative, inverted) + _flatten(tree.right, positive, negative, right_inverted)


class _Parser:
    """Recursive descent over the tokens, with a bound on the nesting."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0

    def parse(self) -> Tree | None:
        tree = self._chain("+-", 0)
        return tree if self._next == len(self._tokens) else None

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _chain(self, ops: str, depth: int) -> Tree | None:
        """A left-associative run of operations of one rank: terms if `ops` is "+-", factors if "*/"."""
        tree = self._operand(ops, depth)
        while tree is not None and self._peek() and self._peek() in ops:
            op = self._tokens[self._next]
            self._next += 1
            right = self._operand(ops, depth)
            tree = Operation(op, tree, right) if right is not None else None
        return tree

    def _operand(self, ops: str, depth: int) -> Tree | None:
        return self._chain("*/", depth) if ops == "+-" else self._factor(depth)

    def _factor(self, depth: int) -> Tree | None:
        token = self._peek()
        self._next += 1
        if token.isdigit():
            return int(token)
        if token != "(" or depth >= _DEEPEST:
            return None
        tree = self._chain("+-", depth + 1)
        closed = self._peek() == ")"
        self._next += 1
        return tree if closed else None

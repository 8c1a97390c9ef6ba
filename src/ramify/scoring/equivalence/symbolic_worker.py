"""Reads mathematical expressions and gives their keys, one JSON line for another. Started by `symbolic` as a script.

It imports sympy and, for LaTeX, latex2sympy2_extended; nothing of ramify. A question that takes more CPU time or memory
than its limit kills the process, which is what it is there for. Plain expressions are read by an own walk over Python's
syntax tree: nothing of an answer is ever executed.

The key of an expression is its values at fixed points: equal expressions have equal values whatever their form, and
different ones differ at one of the points.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import Any

import sympy

POINTS = 4
PRECISION = 50  # digits that are computed
SHOWN = 30  # digits that are compared
ZERO = sympy.Float("1e-25", PRECISION)
LARGEST_DENOMINATOR = 10_000  # of a value that is taken for a fraction, when it is one to 30 digits
LARGEST_VALUE = 10**9
CLOSE = sympy.Float("1e-30", PRECISION)
MOST_BITS = 100_000  # of a power

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": sympy.sqrt, "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec,
    "csc": sympy.csc, "asin": sympy.asin, "acos": sympy.acos, "atan": sympy.atan, "arcsin": sympy.asin,
    "arccos": sympy.acos, "arctan": sympy.atan, "sinh": sympy.sinh, "cosh": sympy.cosh, "tanh": sympy.tanh,
    "exp": sympy.exp, "ln": sympy.log, "log": sympy.log, "abs": sympy.Abs,
}  # fmt: skip
CONSTANTS = {"pi": sympy.pi, "\u03c0": sympy.pi, "e": sympy.E, "i": sympy.I}
GREEK = {"alpha", "beta", "gamma", "delta", "theta", "lambda_", "mu", "sigma", "phi", "omega"}
_NAME = re.compile(r"[A-Za-z]+|\u03c0")


def main() -> None:
    """Answer until the input ends."""
    cpu_s, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(3000)
    warnings.simplefilter("ignore")
    replies, sys.stdout = sys.stdout, sys.stderr  # a parser that prints does not disturb the replies
    for line in sys.stdin:
        question = json.loads(line)
        if question["latex"]:
            _latex_parser()  # loading it is not on the answer's account
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # its signal ends the process, in the middle of C code too
        key = key_of(question["text"], question["latex"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps({"key": key}) + "\n")
        replies.flush()


def key_of(text: str, latex: bool) -> Any:
    """The key of an expression as plain data; None if it cannot be read or has no values."""
    try:
        return _key(_latex_parser()(text) if latex else read_plain(text))
    except MemoryError:
        raise
    except Exception:  # parsers of hostile text fail in every way there is; none of it is an answer
        return None


def read_plain(text: str) -> Any:
    """An expression in the usual plain notation: ``2x^2 + 3(x-1)/4``, ``sqrt(2)``, ``y = 2x``."""
    sides = [_plain_side(side) for side in text.split("=")]
    if len(sides) > 2:
        raise ValueError("more than one equals sign")
    return sides[0] if len(sides) == 1 else sympy.Eq(*sides, evaluate=False)


def _plain_side(text: str) -> Any:
    text = (
        text.strip()
        .replace("^", "**")
        .replace("{", "(")
        .replace("}", ")")
        .replace("\u00b7", "*")
        .replace("\u00d7", "*")
        .replace("\u221a", "sqrt")
    )
    text = _NAME.sub(_spaced_letters, text)
    text = re.sub(r"(?<=[0-9.)])\s*(?=[A-Za-z\u03c0(])|(?<=\))\s*(?=[0-9])", "*", text)
    text = re.sub(r"(?<=[A-Za-z\u03c0])\s+(?=[A-Za-z\u03c0(])", "*", text)
    return _walk(ast.parse(text.strip(), mode="eval").body)


def _spaced_letters(match: re.Match[str]) -> str:
    """``xy`` is a product; the names of functions, constants and Greek letters stay."""
    word = match.group()
    if word in FUNCTIONS or word in CONSTANTS or word in GREEK or len(word) == 1:
        return word
    if len(word) > 3:
        raise ValueError(f"{word} is a word")
    return " ".join(word)


def _walk(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return sympy.Rational(str(value))
        case ast.Name(id=name):
            return CONSTANTS.get(name, sympy.Symbol(name))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_walk(inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _walk(inner)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_walk(left), _walk(right))
        case ast.BinOp(left=left, op=operator, right=right):
            return _combined(_walk(left), operator, _walk(right))
        case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](_walk(inner))
        case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]):
            return CONSTANTS.get(name, sympy.Symbol(name)) * _walk(inner)
    raise ValueError(f"{type(node).__name__} is not arithmetic")


def _combined(left: Any, operator: ast.operator, right: Any) -> Any:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
    raise ValueError(f"{type(operator).__name__} is not arithmetic")


def _power(base: Any, exponent: Any) -> Any:
    """A power whose exact value stays small."""
    if base.is_Rational and exponent.is_Rational:
        bits = max(abs(base.p).bit_length(), base.q.bit_length()) * abs(exponent)
        if bits > MOST_BITS:
            raise ValueError("a power too large to write out")
    return base**exponent


def _key(expression: Any) -> Any:
    if isinstance(expression, sympy.Eq):
        return _equation_key(expression.lhs, expression.rhs)
    if isinstance(expression, sympy.MatrixBase):
        return ["matrix", expression.rows, expression.cols, *(_key(entry) for entry in expression)]
    if not isinstance(expression, sympy.Expr):
        return None
    exact = expression.doit()
    if exact.is_Rational:
        return ["number", str(exact.p), str(exact.q)]
    values = [_value(exact, point) for point in range(POINTS)]
    shown = [_shown(value) for value in values]
    if all(one == shown[0] for one in shown):
        return _fraction(values[0]) or ["value", shown[0]]
    return ["values", *shown]


def _equation_key(left: Any, right: Any) -> Any:
    """``x = 5`` is 5; another equation is its difference up to a factor."""
    for name, value in ((left, right), (right, left)):
        if name.is_Symbol and name not in value.free_symbols:
            return _key(value)
    differences = [_value(left - right, point) for point in range(POINTS + 1)]
    if abs(differences[0]) <= ZERO:
        return None
    return ["equation", *(_shown(value / differences[0]) for value in differences[1:])]


def _value(expression: Any, point: int) -> Any:
    """The expression's value where each symbol has a number that depends on its name and the point."""
    exact = expression.replace(lambda part: part.is_Float, lambda part: sympy.Rational(str(part)))
    exact = exact.subs({symbol: _coordinate(symbol.name, point) for symbol in exact.free_symbols})
    value = sympy.N(exact.doit(), PRECISION)
    if not value.is_number or value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        raise ValueError("no value")
    real, imaginary = value.as_real_imag()
    real, imaginary = sympy.Float(real, PRECISION), sympy.Float(imaginary, PRECISION)
    return real if abs(imaginary) <= ZERO * max(1, abs(real)) else real + sympy.I * imaginary


def _coordinate(name: str, point: int) -> Any:
    """A fraction between 1/4 and 9/4, negative at every second point; the constants themselves for e, i and pi."""
    if name in CONSTANTS:
        return CONSTANTS[name]
    digest = hashlib.sha256(f"{name}/{point}".encode()).digest()
    size = sympy.Rational(int.from_bytes(digest[:4], "big"), 2**31) + sympy.Rational(1, 4)
    return -size if point % 2 else size


def _shown(value: Any) -> str:
    real, imaginary = value.as_real_imag()
    return "|".join("0" if abs(part) <= ZERO else str(sympy.Float(part, SHOWN)) for part in (real, imaginary))


def _fraction(value: Any) -> list[str] | None:
    """A value that is a plain fraction, as one: it then equals the number written out."""
    if not value.is_real or abs(value) > LARGEST_VALUE:
        return None
    exact = sympy.Rational(value)
    near = Fraction(int(exact.p), int(exact.q)).limit_denominator(LARGEST_DENOMINATOR)
    if abs(value - sympy.Rational(near.numerator, near.denominator)) > CLOSE * max(1, abs(value)):
        return None
    return ["number", str(near.numerator), str(near.denominator)]


@cache
def _latex_parser() -> Callable[[str], Any]:
    parser: Callable[[str], Any] = import_module("latex2sympy2_extended").latex2sympy
    return parser


if __name__ == "__main__":
    main()

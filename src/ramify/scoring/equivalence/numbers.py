"""Numbers in the forms that models write them, read exactly as fractions, with bounds on their length."""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST_NUMBER = 60  # characters: beyond it two answers are equal only as text, and conversion stays cheap

_PLAIN = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_EXPONENT = re.compile(r"(.+?)[eE]([-+]?[0-9]{1,2})")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s?\{([^{}]+)\}\s?\{([^{}]+)\}")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac\s?([0-9])\s?([0-9])(?![0-9])")


def parse_number(text: str) -> Fraction | None:
    """Read a number exactly (``-1,234.50``, ``3/4``, ``\\frac{3}{4}``, ``2.5e3``, ``$7``, ``40%``); None for others."""
    if len(text) > LONGEST_NUMBER:
        return None
    text = text.strip().strip("$").strip().rstrip(".").replace("\u2212", "-").replace("\\%", "%").replace("\\$", "")
    text = text.replace("{,}", ",").replace("\\!", "")
    text = _LATEX_FRACTION.sub(r"\1/\2", _SHORT_FRACTION.sub(r"\1/\2", text))
    percent = text.endswith("%")
    numerator, slash, denominator = text.removesuffix("%").partition("/")
    value = _decimal(numerator.strip())
    if value is None or not slash:
        return None if value is None else value / (100 if percent else 1)
    divisor = _decimal(denominator.strip())
    if divisor is None or divisor == 0:
        return None
    return value / divisor / (100 if percent else 1)


def _decimal(text: str) -> Fraction | None:
    sign = -1 if text.startswith("-") else 1
    text = text[1:] if text[:1] in ("-", "+") else text
    text = text.lstrip("$").strip()
    exponent = 0
    scientific = _EXPONENT.fullmatch(text)
    if scientific:
        text, exponent = scientific.group(1), int(scientific.group(2))
    if not text.isascii() or not _PLAIN.fullmatch(text):
        return None
    return sign * Fraction(text.replace(",", "").rstrip(".") or "0") * Fraction(10) ** exponent

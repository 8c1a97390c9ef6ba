"""Ids of tool calls."""

from __future__ import annotations

import secrets
import string

_LETTERS = string.ascii_letters + string.digits


def random_id() -> str:
    """As the OpenAI API writes them."""
    return f"call_{secrets.token_hex(12)}"


def short_id() -> str:
    """Nine letters and digits, which is all that Mistral's templates take."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))

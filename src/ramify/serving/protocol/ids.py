"""Ids of what the server makes."""

from __future__ import annotations

import secrets


def new_id(kind: str) -> str:
    """A fresh id such as "chatcmpl-5f0c..."."""
    return f"{kind}-{secrets.token_hex(16)}"

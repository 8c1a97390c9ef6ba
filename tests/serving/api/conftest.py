"""What the tests of the endpoints share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ramify import LLM


@pytest.fixture(scope="session")
def local() -> Iterator[LLM]:
    """The served model in this process, to compare with."""
    with LLM("nano") as llm:
        yield llm

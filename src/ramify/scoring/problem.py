"""A problem to be answered, and the forms a prompt may take: what tasks make, strategies run and scorers check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ramify.sampling import Prompt


@dataclass(frozen=True, slots=True)
class Problem:
    """One question.

    Attributes:
        id: stable and unique inside its task; the random draws of a run are keyed on it.
        prompt: plain text (a chat template is applied where the model has one), token ids, or chat messages.
        answer: the reference answer, where there is one.
        task: the name of the task that it comes from.
        metadata: whatever the task's own check needs.
    """

    id: str
    prompt: Prompt
    answer: str | None = None
    task: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

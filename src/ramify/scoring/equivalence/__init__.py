"""Answer equivalence: a solution's text becomes a hashable key, the same for answers that mean the same.

`None` means that no answer can be read; it never votes. Whoever owns a kind of answer (a task, a plug-in) hands its own
`Equivalence` to the run, or names a registered one (`ramify.registry.build("equivalence", "choice")`).
"""

from ramify.scoring.equivalence.base import Equivalence, KeyedBy
from ramify.scoring.equivalence.choice import MultipleChoice
from ramify.scoring.equivalence.code import CodeBehaviour
from ramify.scoring.equivalence.groups import GroupAnswer
from ramify.scoring.equivalence.marked import MarkedAnswer, NumberAnswer
from ramify.scoring.equivalence.numbers import parse_number
from ramify.scoring.equivalence.symbolic import MathAnswer
from ramify.scoring.equivalence.text import TextAnswer, normalise

__all__ = [
    "CodeBehaviour",
    "Equivalence",
    "GroupAnswer",
    "KeyedBy",
    "MarkedAnswer",
    "MathAnswer",
    "MultipleChoice",
    "NumberAnswer",
    "TextAnswer",
    "normalise",
    "parse_number",
]

"""Lookahead search: beam search that judges a step by where it leads (arXiv:2408.03314)."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.strategies.registry import strategy
from ramify.strategies.search.beam import Beam


@strategy("lookahead", kind="approximate", paper="arXiv:2408.03314", needs=("scorer",))
@dataclass(frozen=True)
class Lookahead(Beam):
    """Beam search whose open paths are continued greedily for some steps before they are judged.

    It is `beam` with another default, under the name that the paper gives it: the options are the same.

    Attributes:
        lookahead: steps drawn ahead of each open path, at temperature 0, and thrown away.
    """

    lookahead: int = 1

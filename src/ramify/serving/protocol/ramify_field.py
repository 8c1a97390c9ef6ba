"""The body field ``ramify``: the method that answers, what it may cost, and what is told of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from ramify.randomness import BranchKey
from ramify.serving.protocol.api_model import ApiModel

MAX_SPEC = 16_384
"""Characters of a spec."""
MAX_PARAMS = 64
MAX_TEXT = 65_536
"""Characters of one option."""

Spec = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SPEC)]
OptionName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
OptionText = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
OptionValue = bool | int | float | OptionText | None
Options = Annotated[dict[OptionName, OptionValue], Field(max_length=MAX_PARAMS)]
Hex128 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
PositiveTokens = Annotated[int, Field(gt=0, lt=2**53)]
Positive = Annotated[float, Field(gt=0)]


class BudgetField(ApiModel):
    """Limits of a run; the first that is reached ends it with the best answer so far."""

    tokens: PositiveTokens | None = Field(None, description="Drawn by branches and calls, read by scorers and probes.")
    seconds: Positive | None = Field(None, description="Wall-clock time.")
    dollars: Positive | None = Field(None, description="At the server's prices.")


class RamifyField(ApiModel):
    """Which inference-time method answers; without a strategy, one sample does, as everywhere."""

    strategy: Spec | None = Field(
        None, description='A name of /v1/strategies, with options if you like: "best-of-n:n=16".'
    )
    params: Options | None = Field(None, description='Options of the strategy: {"n": 16}.')
    budget: PositiveTokens | BudgetField | None = Field(None, description="A number of tokens, or several limits.")
    scorer: Spec | Options | None = Field(
        None, description='A reward model ("nano-prm"), a scorer with options ("prm:agg=min"), or {"type": "prm", ...}.'
    )
    equivalence: Spec | None = Field(None, description='What makes two answers the same: "marked", "number", "text"...')
    seed: Annotated[int, Field(ge=-(2**63), le=2**63)] | None = Field(None, description="In place of the body's seed.")
    candidates: bool = Field(False, description="Give all answers that the choice was made among.")
    trace: bool = Field(False, description="Store the run's events; /v1/traces/{id}/content gives them.")
    events: bool = Field(True, description="Progress events in a stream.")
    branch_key: Hex128 | None = Field(
        None, description="Without a strategy: names the branch that the draws belong to, as a local run would."
    )
    child: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Which continuation of that branch.")

    @property
    def key(self) -> BranchKey | None:
        """The key of the branch that is continued."""
        if self.branch_key is None:
            return None
        return BranchKey(int(self.branch_key[:16], 16), int(self.branch_key[16:], 16))

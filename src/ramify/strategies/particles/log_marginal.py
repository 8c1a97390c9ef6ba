"""The log-marginal of a run: what a particle method estimates besides its answers, kept in the trace."""

from __future__ import annotations

from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.trace import Noted

_MARK = "log-marginal: "


def state_log_marginal(context: Context, value: float) -> None:
    """Put a run's estimate into its trace."""
    context.emit(Noted(f"{_MARK}{value!r}"))


def log_marginal(result: Result) -> float | None:
    """Logarithm of a run's estimate of the mean, over plain samples, of what it weighs answers by.

    That is the mean reward for a particle filter with incremental potentials, and the probability of keeping the
    constraint (times the critic's reward) for SMC steering. The estimate itself is unbiased; its logarithm is low on
    average. None where the method states none, or the run was cut.
    """
    stated = [event.text for event in result.trace.events if isinstance(event, Noted) and event.text.startswith(_MARK)]
    return float(stated[-1].removeprefix(_MARK)) if stated else None

"""Inference-time methods, one file each, and the kernel they stand on. Importing this registers all of them.

Every module below `selection/`, `stopping/`, `search/`, `particles/`, `length/` and `programs/` is imported, so that
a method is one file and one registration.
"""

import pkgutil
from importlib import import_module

from ramify.strategies.kernel.budget import Budget, Prices
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.ledger import Ledger
from ramify.strategies.kernel.result import Candidate, Result, StopReason
from ramify.strategies.kernel.runtime import solve, solve_many
from ramify.strategies.kernel.trace import Trace, TraceEvent, TraceNode
from ramify.strategies.particles.particle_filter import ParticleFilter
from ramify.strategies.registry import DEFAULT_SAMPLING, Method, Strategy, describe, parse_strategy, strategy
from ramify.strategies.search.beam import Beam
from ramify.strategies.selection.best_of_n import BestOfN
from ramify.strategies.selection.sample import Sample
from ramify.strategies.selection.self_consistency import SelfConsistency
from ramify.strategies.steps import StepSplitter

__all__ = [
    "DEFAULT_SAMPLING",
    "Beam",
    "BestOfN",
    "Budget",
    "Candidate",
    "Context",
    "Ledger",
    "Method",
    "ParticleFilter",
    "Prices",
    "Result",
    "Sample",
    "SelfConsistency",
    "StepSplitter",
    "StopReason",
    "Strategy",
    "Trace",
    "TraceEvent",
    "TraceNode",
    "describe",
    "parse_strategy",
    "solve",
    "solve_many",
    "strategy",
]

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)

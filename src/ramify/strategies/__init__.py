"""Inference-time methods, one file each, and the kernel they stand on. Importing this registers all of them."""

from ramify.strategies.beam import Beam
from ramify.strategies.best_of_n import BestOfN
from ramify.strategies.budget import Budget, Prices
from ramify.strategies.context import Context
from ramify.strategies.ledger import Ledger
from ramify.strategies.particle_filter import ParticleFilter
from ramify.strategies.registry import DEFAULT_SAMPLING, Method, Strategy, describe, parse_strategy, strategy
from ramify.strategies.result import Candidate, Result, StopReason
from ramify.strategies.runtime import solve, solve_many
from ramify.strategies.sample import Sample
from ramify.strategies.self_consistency import SelfConsistency
from ramify.strategies.steps import StepSplitter
from ramify.strategies.trace import Trace, TraceEvent, TraceNode

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

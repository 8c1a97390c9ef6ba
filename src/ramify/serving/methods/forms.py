"""The forms that a method holds answers to: judged, as those of plain calls are, before anything of the server reads
them."""

from __future__ import annotations

from ramify.sampling import SamplingParams, StructuredOutputsParams
from ramify.serving.generation import check_form
from ramify.serving.models import ServedModel
from ramify.serving.server import Server
from ramify.strategies.particles.smc_steering import SmcSteering
from ramify.strategies.registry import Strategy

_OPTIONS = {"regex": "regex", "grammar": "grammar", "json_schema": "json"}


async def judge_forms(server: Server, model: ServedModel, strategy: Strategy) -> None:
    """Judge the form of the answers, and the constraints of a method that has its own.

    Raises:
        ConfigError, SamplingParamsError: one cannot be used.
        ApiError: 429, too many new ones wait to be judged.
    """
    await check_form(server, model, strategy.sampling)
    if not isinstance(strategy, SmcSteering):
        return
    for option, form in _OPTIONS.items():
        text = getattr(strategy, option)
        if text:
            params = SamplingParams(structured_outputs=StructuredOutputsParams(**{form: text}))
            await check_form(server, model, params)

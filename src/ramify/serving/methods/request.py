"""What a call asks for: a method, its budget and its seed, from the body's ``ramify`` field or the model's name.

``nano@particle-filter:n=16,tokens=4096`` says all of it in a name, for clients that can set nothing else: ``tokens``,
``seconds`` and ``dollars`` are the budget, ``seed`` is the seed, and the rest are options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ramify import registry
from ramify.backends.base import Capability
from ramify.errors import ConfigError, RamifyError
from ramify.registry import file_options, option_types, parse_spec, read_value, unknown
from ramify.sampling import SamplingParams
from ramify.scoring.equivalence import Equivalence, MarkedAnswer
from ramify.scoring.scorers import Scorer
from ramify.serving.errors import ApiError
from ramify.serving.protocol.ramify_field import MAX_SPEC, BudgetField, RamifyField
from ramify.strategies.registry import DEFAULT_SAMPLING, Strategy, build_strategy
from ramify.strategies.spec_text import SpecText, escape

SEPARATOR = "@"
_BUDGET = ("tokens", "seconds", "dollars")
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
EQUIVALENCES = ("marked", "number", "choice", "text", "group")
"""Those that are quick and run nothing of the model's: safe to choose for a client."""


@dataclass(frozen=True, slots=True)
class Requested:
    """A method as a call asks for it.

    Attributes:
        model: public name of the model, without the method.
        name, options: of the strategy; options as a spec writes them.
        scorer: where the call describes one by itself.
        limits: of the budget: tokens, seconds, dollars, as far as they are given.
        seed: of the run; None leaves the choice to the server.
        equivalence: what makes two answers the same.
        candidates, trace, events: what is told of the run.
        place: the field that named the method, for errors.
    """

    model: str
    name: str
    options: Mapping[str, str]
    scorer: Scorer | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    equivalence: Equivalence = field(default_factory=MarkedAnswer)
    candidates: bool = False
    trace: bool = False
    events: bool = True
    place: str = "ramify.strategy"

    def strategy(self, sampling: SamplingParams = DEFAULT_SAMPLING) -> Strategy:
        """The strategy, its tokens drawn as `sampling` says.

        Raises:
            ApiError: 400, an option or a value does not work.
        """
        try:
            return build_strategy(self.name, self.options, sampling, self.scorer)
        except RamifyError as error:
            raise ApiError(400, str(error), param=self.place) from error


def model_name(name: str) -> str:
    """The model of a name that may hold a method."""
    return name.partition(SEPARATOR)[0]


def requested(name: str, given: RamifyField | None, seed: int | None) -> Requested | None:
    """What a call asks for; None if that is no method.

    Args:
        name: the body's model, possibly with a method.
        given: the body's ``ramify``.
        seed: the body's.

    Raises:
        ApiError: 400, what is asked for does not work; says what does.
    """
    model, separator, spec = name.partition(SEPARATOR)
    given = given or RamifyField.model_validate({})
    if not separator and given.strategy is None:
        _check_plain(given)
        return None
    if separator and given.strategy is not None:
        raise ApiError(
            400, f"model {name!r} and ramify.strategy {given.strategy!r} each name a method: keep one", param="model"
        )
    place = "model" if separator else "ramify.strategy"
    strategy, options = _spec(spec if separator else given.strategy or "", place)
    types = option_types(registry.technique("strategy", strategy).factory)
    limits = _limits_of_spec(options, place)
    seeds = [_whole(options.pop("seed"), "seed", place)] if "seed" in options else []
    seeds += [value for value in (seed, given.seed) if value is not None]
    if len(set(seeds)) > 1:
        raise ApiError(400, f"the call gives seeds {', '.join(map(str, seeds))}: keep one", param="seed")
    limits = _merged(limits, _limits_of_field(given.budget), "ramify.budget")
    options = _merged(options, _options(given.params or {}, types, "ramify.params"), "ramify.params")
    asked = Requested(
        model, strategy, *_scored(strategy, options, given.scorer), limits, seeds[0] if seeds else None,
        _equivalence(given.equivalence), given.candidates, given.trace, given.events, place,
    )  # fmt: skip
    _check_files(strategy, asked.options, place)
    asked.strategy()
    return asked


def _check_plain(given: RamifyField) -> None:
    """Without a strategy, what belongs to one would change nothing."""
    for name in ("params", "budget", "scorer", "equivalence", "seed", "candidates", "trace"):
        if getattr(given, name) not in (None, False):
            raise ApiError(
                400, f'ramify.{name} belongs to a method: give ramify.strategy too, "best-of-n" say',
                param=f"ramify.{name}",
            )  # fmt: skip


def _check_files(strategy: str, options: Mapping[str, str], place: str) -> None:
    """No client chooses a file of the server, not even to learn whether it is there."""
    for name, mark in file_options(registry.technique("strategy", strategy).factory).items():
        value = options.get(name, "")
        if value and value.startswith(mark.prefix):
            instead = "give the text itself" if mark.prefix else "leave it out"
            message = (
                f"{name}={value!r} of {strategy} names a file of the server, which no client may choose: {instead}"
            )
            raise ApiError(400, message, param=place)


def _spec(text: str, place: str) -> tuple[str, dict[str, str]]:
    if len(text) > MAX_SPEC:
        raise ApiError(
            400, f"the method's spec has {len(text):,} characters, and {MAX_SPEC:,} are allowed", param=place
        )
    try:
        name, options = parse_spec(text)
        registry.technique("strategy", name)
    except ConfigError as error:
        raise ApiError(400, f"{error} (GET /v1/strategies describes each)", param=place) from error
    return name, options


def _limits_of_spec(options: dict[str, str], place: str) -> dict[str, float]:
    """Take the budget out of a spec's options."""
    limits: dict[str, float] = {}
    for name in _BUDGET:
        text = options.pop(name, None)
        if text is None:
            continue
        if name == "tokens":
            limits[name] = _whole(text, name, place)
        elif _NUMBER.fullmatch(text):
            limits[name] = float(text)
        else:
            raise ApiError(400, f"{name}={text!r} does not work: write a number such as 30 or 0.5", param=place)
        if not limits[name] > 0:
            raise ApiError(400, f"{name}={text} does not work: a budget is above 0", param=place)
    return limits


def _whole(text: str, name: str, place: str) -> int:
    if not _WHOLE.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise ApiError(400, f"{name}={text!r} does not work: write a whole number, such as 4096", param=place)
    return int(text)


def _limits_of_field(given: int | BudgetField | None) -> dict[str, float]:
    if given is None:
        return {}
    if isinstance(given, int):
        return {"tokens": given}
    return given.model_dump(exclude_none=True)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any], place: str) -> dict[str, Any]:
    twice = sorted(set(first) & set(second))
    if twice:
        raise ApiError(
            400, f"{twice[0]} is given twice, in {place} and with the strategy's name: keep one", param=place
        )
    return {**first, **second}


def _options(given: Mapping[str, Any], types: Mapping[str, Any], place: str) -> dict[str, str]:
    """JSON's values as a spec writes them."""
    options: dict[str, str] = {}
    for name, value in given.items():
        name = name.replace("-", "_")
        if name in ("seed", *_BUDGET):
            instead = "the body's seed" if name == "seed" else f"ramify.budget.{name}"
            raise ApiError(400, f"{place}.{name} is no option of a method: give it as {instead}", param=place)
        options[name] = _written(value, types.get(name))
    return options


def _written(value: Any, wanted: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        takes_escapes = wanted is SpecText or SpecText in getattr(wanted, "__args__", ())
        return escape(value) if takes_escapes else value
    return repr(value)


def _scored(
    strategy: str, options: dict[str, str], given: str | Mapping[str, Any] | None
) -> tuple[dict[str, str], Scorer | None]:
    """The options, and the scorer where the call names one.

    A name that is no scorer's is a reward model's, for the scorer that the strategy has by itself.
    """
    text = options.get("scorer")
    if given is None and text is None:
        return options, None
    if given is not None and text is not None:
        raise ApiError(
            400, "ramify.scorer and the strategy's option scorer are both given: keep one", param="ramify.scorer"
        )
    scorers = {entry.name: entry for entry in registry.techniques("scorer")}
    if given is None:
        if text in scorers:
            return options, None
        options = {key: value for key, value in options.items() if key != "scorer"}
        return {**options, **_for_reward_model(strategy, str(text))}, None
    name, settings = _scorer_spec(given)
    if name not in scorers:
        if name and (settings or "model" in options):
            raise ApiError(400, unknown("scorer", name, scorers), param="ramify.scorer")
        return {**options, **(_for_reward_model(strategy, name) if name else settings)}, None
    try:
        factory = scorers[name].factory
        types = option_types(factory)
        for key in settings:
            if key not in types:
                raise ConfigError(unknown(f"option of {name}", key, types))
        values = {key: read_value(value, types[key], f"scorer:{key}") for key, value in settings.items()}
        made: Scorer = factory(**values)
    except RamifyError as error:
        raise ApiError(400, str(error), param="ramify.scorer") from error
    return options, made


def _for_reward_model(strategy: str, model: str) -> dict[str, str]:
    """The options with which a strategy scores by a reward model: its own scorer's, if that takes one."""
    usual = getattr(registry.technique("strategy", strategy).factory(), "scorer", None)
    takes_one = Capability.REWARD in getattr(usual, "needs", ()) and hasattr(usual, "model")
    return {"model": model} if takes_one else {"scorer": "prm", "model": model}


def _scorer_spec(given: str | Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Name and options of a scorer; the name is empty for the strategy's own."""
    if isinstance(given, str):
        try:
            return parse_spec(given)
        except ConfigError as error:
            raise ApiError(400, str(error), param="ramify.scorer") from error
    rest = dict(given)
    name = rest.pop("type", "")
    if not isinstance(name, str):
        raise ApiError(400, f"ramify.scorer.type={name!r} is no name of a scorer", param="ramify.scorer")
    return name, {key: _written(value, None) for key, value in rest.items()}


def _equivalence(spec: str | None) -> Equivalence:
    if spec is None:
        return MarkedAnswer()
    try:
        name, _ = parse_spec(spec)
        if name not in EQUIVALENCES:
            raise ConfigError(unknown("equivalence", name, EQUIVALENCES))
        made: Equivalence = registry.build("equivalence", spec)
    except ConfigError as error:
        raise ApiError(400, str(error), param="ramify.equivalence") from error
    return made

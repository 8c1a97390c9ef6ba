"""What a client may choose from: every method with its options, as the registry knows them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import Any, Literal

from ramify import registry
from ramify.backends.base import Capability
from ramify.registry import Technique, file_options, option_types
from ramify.scoring.scorers import Scorer
from ramify.strategies.needed_models import other_models, reward_models
from ramify.strategies.registry import Strategy, describe, requirements
from ramify.strategies.steps import StepSplitter

_OPTION = re.compile(r"^(\w+(?:, \w+)*): (.*)$")
_NOT_BY_REQUEST = ("ensemble", "rule", "tests")
"""Scorers that need what no request can give: other scorers as objects, a function, a problem's own tests."""
_JSON_TYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number"}


@lru_cache(maxsize=1)
def catalogue() -> tuple[dict[str, Any], ...]:
    """All methods, by name."""
    return tuple(_method(entry) for entry in registry.techniques("strategy"))


@lru_cache(maxsize=1)
def scorers() -> tuple[dict[str, Any], ...]:
    """All scorers that can be described in a request, by name."""
    return tuple(_entry(entry) for entry in registry.techniques("scorer") if entry.name not in _NOT_BY_REQUEST)


def _method(entry: Technique) -> dict[str, Any]:
    made: Strategy = entry.factory()
    scorer: Scorer | None = getattr(made, "scorer", None)
    return {
        **_entry(entry),
        "object": "strategy",
        "default": describe(made),
        "requires": sorted(str(need) for need in requirements(made)),
        "scorer": None if scorer is None else type(scorer).__name__,
        "reward_models": list(reward_models(made)) if Capability.REWARD in made.requires else [],
        "other_models": list(other_models(made)),
    }


def _entry(entry: Technique) -> dict[str, Any]:
    return {
        "id": entry.name,
        "summary": entry.summary,
        "trade": entry.trade,
        "needs": list(entry.needs),
        "paper": entry.paper,
        "docs": entry.page,
        "params": _schema(entry.factory),
    }


def _schema(factory: Callable[..., Any]) -> dict[str, Any]:
    """JSON schema of the options that can be given in a request."""
    texts, closed = _descriptions(factory), file_options(factory)
    properties: dict[str, Any] = {}
    for name, wanted in option_types(factory).items():
        kind = _json_type(wanted)
        if kind is None or name == "sampling" or (name in closed and not closed[name].prefix):
            continue
        default = _default(factory, name)
        properties[name] = {
            **kind,
            **({"description": texts[name]} if name in texts else {}),
            **({} if default is None else {"default": default}),
        }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _json_type(wanted: Any) -> dict[str, Any] | None:
    """The schema of an option's type; None if it cannot be given as text."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        kinds = [kind for part in arguments if part is not type(None) and (kind := _json_type(part)) is not None]
        return None if not kinds else kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if wanted is StepSplitter or wanted is Scorer:
        return {"type": "string"}
    if not isinstance(wanted, type):
        return None
    if issubclass(wanted, Enum):
        return {"type": "string", "enum": [member.value for member in wanted]}
    if wanted in _JSON_TYPES:
        return {"type": _JSON_TYPES[wanted]}
    return {"type": "string"} if issubclass(wanted, str) else None


def _default(factory: Callable[..., Any], name: str) -> Any:
    if not dataclasses.is_dataclass(factory):
        return None
    try:
        value = getattr(factory(), name)
    except TypeError:  # it has options without a default
        return None
    if isinstance(value, bool | int | float | str):
        return value
    return str(value) if isinstance(value, StepSplitter) else None


def _descriptions(factory: Callable[..., Any]) -> dict[str, str]:
    """What docstrings say of each option, base classes' first."""
    found: dict[str, str] = {}
    for base in reversed(inspect.getmro(factory)) if isinstance(factory, type) else (factory,):
        _, _, attributes = (inspect.cleandoc(base.__doc__ or "")).partition("Attributes:\n")
        name: list[str] = []
        for line in attributes.splitlines():
            if line and not line.startswith(" "):
                break
            match = _OPTION.match(line.strip()) if len(line) - len(line.lstrip()) == 4 else None
            if match is not None:
                name = match.group(1).split(", ")
                found.update(dict.fromkeys(name, match.group(2)))
            elif line.strip():
                found.update({each: f"{found[each]} {line.strip()}" for each in name})
    return found

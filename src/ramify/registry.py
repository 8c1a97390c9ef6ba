"""The registry of techniques: every plug-in of every kind, with what it trades, what it needs and where it comes from.

A technique is one file and one registration. `ramify techniques` prints this list; specs such as
``best-of-n:n=16,agg=min`` are turned into objects here, so that every kind is configured in one way.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeVar

from ramify.errors import ConfigError

Trade = Literal["lossless", "distribution", "approximate"]
"""lossless: the same tokens with it on or off. distribution: a stated law, other draws. approximate: another law."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReadsFile:
    """Marks an option whose text names a file on the machine that runs it: ``Annotated[str, ReadsFile()]``.

    Whoever takes options from strangers refuses such a value.

    Attributes:
        prefix: only text that begins with it names a file.
    """

    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Technique:
    """One row of the list.

    Attributes:
        name: what a spec calls it, e.g. ``"best-of-n"``.
        kind: the extension point, e.g. ``"strategy"``, ``"scorer"``, ``"drafter"``.
        trade: lossless, distribution or approximate.
        needs: what has to be there: capabilities of a backend, ``"calibration"``, ``"training"``, ``"second model"``.
        paper: where it comes from, e.g. ``"arXiv:2203.11171"``; empty for common practice.
        page: the page of the docs that shows its measured effect.
        factory: makes it from keyword arguments; usually a frozen dataclass.
    """

    name: str
    kind: str
    trade: Trade
    needs: tuple[str, ...]
    paper: str
    page: str
    factory: Callable[..., Any]

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (self.factory.__doc__ or "").strip().split("\n")[0]


_TECHNIQUES: dict[tuple[str, str], Technique] = {}


def register(
    name: str, *, kind: str, trade: Trade, needs: Iterable[str] = (), paper: str = "", page: str = ""
) -> Callable[[T], T]:
    """Class decorator: enter a technique into the list.

    Raises:
        ConfigError: the kind has another technique of this name.
    """

    def enter(factory: T) -> T:
        known = _TECHNIQUES.get((kind, name))
        if known is not None and getattr(known.factory, "__qualname__", None) != getattr(factory, "__qualname__", None):
            raise ConfigError(f"a {kind} named {name!r} exists already ({known.factory!r}): choose another name")
        assert callable(factory)
        needed = tuple(str(need) for need in needs)
        _TECHNIQUES[kind, name] = Technique(name, kind, trade, needed, paper, page, factory)
        return factory

    return enter


def techniques(kind: str | None = None) -> list[Technique]:
    """All registered techniques, or those of one kind, by kind and name."""
    return [entry for key, entry in sorted(_TECHNIQUES.items()) if kind is None or key[0] == kind]


def technique(kind: str, name: str) -> Technique:
    """The technique of that kind and name.

    Raises:
        ConfigError: there is none; names the nearest ones.
    """
    found = _TECHNIQUES.get((kind, name))
    if found is None:
        raise ConfigError(unknown(kind, name, [entry.name for entry in techniques(kind)]))
    return found


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split ``name:key=value,key=value`` into the name and its options, as text.

    Raises:
        ConfigError: an option has no ``=`` or is given twice.
    """
    name, _, rest = spec.strip().partition(":")
    options: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise ConfigError(f"{part!r} in {spec!r} is no option: write name:key=value,key=value")
        if key in options:
            raise ConfigError(f"{key!r} is given twice in {spec!r}: keep one")
        options[key] = value.strip()
    return name.strip(), options


def build(kind: str, spec: str) -> Any:
    """Make the technique that a spec describes, its options read by the factory's annotations.

    Raises:
        ConfigError: no such technique, no such option, or a value of the wrong type.
    """
    name, options = parse_spec(spec)
    found = technique(kind, name)
    known = option_types(found.factory)
    for key in options:
        if key not in known:
            raise ConfigError(unknown(f"option of {name}", key, known))
    return found.factory(**{key: read_value(text, known[key], f"{name}:{key}") for key, text in options.items()})


def option_types(factory: Callable[..., Any]) -> dict[str, Any]:
    """Options of a factory and their types: the fields of a dataclass or the parameters of a function."""
    hints = typing.get_type_hints(factory)
    if dataclasses.is_dataclass(factory):
        return {field.name: hints[field.name] for field in dataclasses.fields(factory) if field.init}
    hints.pop("return", None)
    return hints


def file_options(factory: Callable[..., Any]) -> dict[str, ReadsFile]:
    """Options of a factory that name files."""
    hints = typing.get_type_hints(factory, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: mark for name, found in marks.items() for mark in found if isinstance(mark, ReadsFile)}


def read_value(text: str, wanted: Any, where: str) -> Any:
    """Read an option's text as the annotated type: int, float, bool, str, Enum, Literal, or any of these or None.

    Raises:
        ConfigError: the text is no such value.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        if type(None) in arguments and text.lower() in ("none", "null", ""):
            return None
        return _read_any(text, [part for part in arguments if part is not type(None)], where)
    if origin is Literal:
        if text in arguments:
            return text
        raise ConfigError(f"{where}={text!r} does not work: choose from {', '.join(map(str, arguments))}")
    if wanted is bool:
        if text.lower() in ("true", "false", "1", "0", "yes", "no"):
            return text.lower() in ("true", "1", "yes")
        raise ConfigError(f"{where}={text!r} does not work: it must be true or false")
    if isinstance(wanted, type) and issubclass(wanted, int | float | str | Enum):
        try:
            value = wanted(text)
        except ValueError:
            raise ConfigError(f"{where}={text!r} does not work: it must be {_type_name(wanted)}") from None
        if isinstance(value, float) and math.isnan(value):
            raise ConfigError(f"{where}={text!r} does not work: it must be a number")
        return value
    raise ConfigError(f"{where} cannot be given as text: pass it from Python")


def _read_any(text: str, choices: list[Any], where: str) -> Any:
    problems = []
    for choice in choices:
        try:
            return read_value(text, choice, where)
        except ConfigError as error:
            problems.append(error)
    raise problems[0]


def _type_name(wanted: type) -> str:
    if issubclass(wanted, Enum):
        return "one of " + ", ".join(str(member.value) for member in wanted)
    return {int: "a whole number", float: "a number"}.get(wanted, wanted.__name__)


def unknown(what: str, name: str, known: Iterable[str] | Mapping[str, Any]) -> str:
    """What to say of a name that there is not: the nearest one, and all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} Choose from: {', '.join(names) or 'none is registered'}"

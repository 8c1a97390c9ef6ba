"""Architectures of Archon as plain data: components in layers, how they are written in a spec, and which orders work.

``generator:8/critic/ranker:4/fuser`` is four layers. ``+`` puts several components into one layer, ``:8`` is a
component's number (samples, or how many candidates stay), ``@name`` the model that it asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ramify.errors import ConfigError

MAX_TESTS = 10
"""Tests that a generator of tests may be asked for: more cost every candidate a longer judgement."""
_WRITTEN = re.compile(r"(?P<name>[a-z-]+)(?::(?P<number>-?\d+))?(?:@(?P<model>[^/+,\s]+))?")


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a layer.

    Attributes:
        number: what it means stands with each kind.
        model: which of the backend's models it asks; None for the main one.

    Raises:
        ConfigError: the number cannot work.
    """

    number: int = 1
    model: str | None = None
    name: ClassVar[str] = ""
    least: ClassVar[int] = 1
    most: ClassVar[int | None] = None
    several: ClassVar[bool] = False
    """Whether a layer may hold more than one of it."""
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        most = self.number if self.most is None else self.most
        if isinstance(self.number, bool) or not isinstance(self.number, int) or not self.least <= self.number <= most:
            limits = f"{self.least} or more" if self.most is None else f"{self.least} to {self.most}"
            raise ConfigError(f"{self.name}:{self.number} does not work: the number must be {limits}")
        if self.model is not None and not re.fullmatch(r"[^/+,\s]+", self.model):
            raise ConfigError(f"model={self.model!r} does not work: a name has no '/', '+', ',' or space")

    def __str__(self) -> str:
        number = f":{self.number}" if self.takes_number and self.number != type(self)().number else ""
        return self.name + number + (f"@{self.model}" if self.model else "")


@dataclass(frozen=True, slots=True)
class Generator(Component):
    """Answers the problem's own prompt, `number` times; what it draws is added to the candidates."""

    name: ClassVar[str] = "generator"
    several: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Critic(Component):
    """Writes the strengths and weaknesses of every candidate."""

    name: ClassVar[str] = "critic"
    most: ClassVar[int | None] = 1
    takes_number: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Ranker(Component):
    """Puts the candidates in order; the first `number` stay (0: all)."""

    number: int = 0
    name: ClassVar[str] = "ranker"
    least: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Fuser(Component):
    """Writes `number` new candidates from all there are, which they replace."""

    name: ClassVar[str] = "fuser"
    several: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Verifier(Component):
    """Checks every candidate; the correct ones stay, or all if none is."""

    name: ClassVar[str] = "verifier"
    most: ClassVar[int | None] = 1
    takes_number: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class UnitTests(Component):
    """Writes up to `number` tests of an answer, as statements in words."""

    number: int = 5
    kind: ClassVar[Literal["text", "code"]] = "text"
    name: ClassVar[str] = "tests"
    most: ClassVar[int | None] = MAX_TESTS


@dataclass(frozen=True, slots=True)
class CodeTests(UnitTests):
    """Writes up to `number` tests of an answer that is a program, as Python that fails if it is wrong."""

    kind: ClassVar[Literal["text", "code"]] = "code"
    name: ClassVar[str] = "code-tests"


@dataclass(frozen=True, slots=True)
class Evaluator(Component):
    """Runs the tests; the `number` candidates that pass most of them stay, most first (0: all)."""

    number: int = 0
    name: ClassVar[str] = "evaluator"
    least: ClassVar[int] = 0


Layer = tuple[Component, ...]
KINDS: tuple[type[Component], ...] = (Generator, Critic, Ranker, Fuser, Verifier, UnitTests, CodeTests, Evaluator)
_BY_NAME = {kind.name: kind for kind in KINDS}


def read_layers(text: str) -> tuple[Layer, ...]:
    """The layers that a spec writes, checked.

    Raises:
        ConfigError: it cannot be read, or the order does not work.
    """
    return check_layers([[_read(part) for part in layer.split("+")] for layer in text.strip().split("/")])


def write_layers(layers: Sequence[Component | Sequence[Component]]) -> str:
    """What `read_layers` reads; a layer of one component may be given as that component.

    Raises:
        ConfigError: the order does not work.
    """
    return "/".join("+".join(map(str, layer)) for layer in check_layers(layers))


def check_layers(layers: Sequence[Component | Sequence[Component]]) -> tuple[Layer, ...]:
    """The layers, where they can work in this order.

    Raises:
        ConfigError: says which layer is out of place, and what to do about it.
    """
    whole = tuple((layer,) if isinstance(layer, Component) else tuple(layer) for layer in layers)
    if not whole or any(not layer for layer in whole):
        raise ConfigError("an architecture without layers, or with an empty one, does not work: begin with generator:8")
    for layer in whole:
        _check_layer(layer)
    kinds = [type(layer[0]) for layer in whole]
    if kinds[0] is not Generator:
        raise ConfigError(f"{kinds[0].name} cannot come first: there is nothing to work on; begin with generator:8")
    for place, kind in enumerate(kinds):
        _check_place(place, kind, kinds)
    return whole


def one_answer(layers: Sequence[Layer]) -> bool:
    """Whether the last layer leaves a single candidate, so that nothing has to be chosen."""
    last = layers[-1]
    return len(last) == 1 and isinstance(last[0], Generator | Fuser | Ranker | Evaluator) and last[0].number == 1


def _check_layer(layer: Layer) -> None:
    """One layer is of one kind, and of one component unless the kind allows more."""
    first = type(layer[0])
    other = next((component for component in layer if type(component) is not first), None)
    if other is not None:
        raise ConfigError(f"a layer of {first.name}+{other.name} does not work: put them in layers of their own")
    if len(layer) > 1 and not first.several:
        raise ConfigError(f"a layer with {len(layer)} of {first.name} does not work: one is enough")


def _check_place(place: int, kind: type[Component], kinds: Sequence[type[Component]]) -> None:
    """One layer has before and behind it what it works with."""
    before, behind = kinds[:place], kinds[place + 1 :]
    if kind is Generator and set(before) - {Generator}:
        raise ConfigError("a generator behind another kind of layer does not work: its answers would come unjudged; "
                          "generators come first")  # fmt: skip
    if kind is Critic and not any(later in (Ranker, Fuser) for later in _until(behind, Critic)):
        raise ConfigError("a critic whose critiques nobody reads does not work: put a ranker or a fuser behind it")
    if issubclass(kind, UnitTests) and Evaluator not in _until(behind, UnitTests):
        raise ConfigError(f"{kind.name} that nobody runs do not work: put an evaluator behind them")
    if kind is Evaluator and not any(issubclass(earlier, UnitTests) for earlier in before):
        raise ConfigError("an evaluator without tests does not work: put tests:5 (or code-tests:5) before it")


def _until(kinds: Sequence[type[Component]], end: type[Component]) -> list[type[Component]]:
    """The kinds before the next one of `end`."""
    found: list[type[Component]] = []
    for kind in kinds:
        if issubclass(kind, end):
            break
        found.append(kind)
    return found


def _read(written: str) -> Component:
    match = _WRITTEN.fullmatch(written.strip())
    if match is None or match["name"] not in _BY_NAME:
        names = ", ".join(_BY_NAME)
        raise ConfigError(
            f"{written.strip()!r} is no component: write name, name:number or name:number@model ({names})"
        )
    kind, number = _BY_NAME[match["name"]], match["number"]
    if number is None:
        return kind(model=match["model"])
    if not kind.takes_number:
        raise ConfigError(f"{written.strip()!r} does not work: a {kind.name} takes no number")
    return kind(int(number), match["model"])

"""Where a server's options come from: flags, RAMIFY_ variables, a file, defaults, in this order.

`OPTIONS` is made from the fields of `ServerConfig` and `EngineConfig`; flags, variables, keys of the file and the
table in the docs are all made from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ramify.config import EngineConfig
from ramify.errors import ConfigError
from ramify.kernels.native import ISA_VARIABLE, KERNELS_VARIABLE
from ramify.quantization.cache import CACHE_VARIABLE
from ramify.serving.config import ServerConfig
from ramify.serving.limits import Limits

VARIABLE_PREFIX = "RAMIFY_"
_ENGINE_VARIABLES = {CACHE_VARIABLE, ISA_VARIABLE, KERNELS_VARIABLE}
"""Read by the engine itself."""
Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        name: of the field, and the key of the file.
        kind: of its value, or of each of its values.
        many: it takes several.
        choices: the values that it may have; empty is any.
        default: None is none, or one that depends.
        help: one line.
        section: "server" or "engine".
    """

    name: str
    kind: type[Value]
    help: str
    default: Any = None
    many: bool = False
    choices: tuple[str, ...] = ()
    section: Literal["server", "engine"] = "server"

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As in the environment."""
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def shown_default(self) -> str:
        """As people read it; empty where there is none, or it depends."""
        if self.default is None or self.default in ("", ()) or not isinstance(self.default, str | int | float):
            return ""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)


MODELS = Option(
    "models", str, "Models to serve, the default first: a bundled name, a folder, a hub id, or NAME=MODEL.", many=True
)
NAMES = Option(
    "served_model_name", str, "Public name of a model, in their order; by default its last path part.", many=True
)


def _options() -> tuple[Option, ...]:
    server = [field for field in dataclasses.fields(ServerConfig) if field.name not in ("models", "engine")]
    hints = typing.get_type_hints(ServerConfig)
    found = [NAMES]
    found += [_option(field, hints[field.name], field.metadata["help"], "server") for field in server]
    lines = _attribute_lines(EngineConfig)
    hints = typing.get_type_hints(EngineConfig)
    found += [
        _option(field, hints[field.name], lines[field.name], "engine") for field in dataclasses.fields(EngineConfig)
    ]
    return tuple(found)


def _option(field: dataclasses.Field[Any], hint: Any, text: str, section: Literal["server", "engine"]) -> Option:
    if hint is Limits:
        return Option(field.name, str, text, many=True, section=section)
    kind, many, choices = hint, False, ()
    if isinstance(kind, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        kind, many = typing.get_args(kind)[0], True
    if typing.get_origin(kind) is Literal:
        choices, kind = typing.get_args(kind), str
    return Option(field.name, kind, text, field.default, many, choices, section)


def _attribute_lines(owner: type) -> dict[str, str]:
    """What a class's docstring says of each attribute, on one line."""
    text = inspect.getdoc(owner) or ""
    block = re.search(r"^Attributes:\n(.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", block[1] if block else "", re.MULTILINE)
    return {name: _sentence(" ".join(said.split())) for name, said in entries}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


OPTIONS = _options()
"""All but the models, which are arguments."""
_BY_NAME = {option.name: option for option in (MODELS, *OPTIONS)}


def server_config(given: Mapping[str, Any], file: Path | None = None) -> ServerConfig:
    """The configuration of a server.

    Args:
        given: options by name, from flags and variables; None and empty ones are not given.
        file: TOML or YAML with the others.

    Raises:
        ConfigError: an option is unknown or cannot work.
    """
    values = read_file(file) if file is not None else {}
    values |= {name: value for name, value in given.items() if value is not None and value != ()}
    models = _named_models(values.pop("models", ()), values.pop("served_model_name", ()))
    limits = _limits(values.pop("limits", {}))
    engine = {name: values.pop(name) for name in list(values) if _BY_NAME[name].section == "engine"}
    EngineConfig(**engine)  # says now what cannot work
    return ServerConfig(models=models, limits=limits, engine=engine, **values)


def read_file(path: Path) -> dict[str, Any]:
    """The options in a file, by name.

    Raises:
        ConfigError: it cannot be read, or a key or value is not an option's.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {str(path)!r} cannot be read: {error}") from error
    data = _parse(path, text)
    if not isinstance(data, dict):
        raise ConfigError(f"configuration file {str(path)!r} is not a table of options")
    return {_known(str(name), _BY_NAME, str(path)): _checked(str(name), value) for name, value in data.items()}


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Sentences about RAMIFY_ variables that are no option's."""
    names = {option.variable for option in _BY_NAME.values()} | {VARIABLE_PREFIX + "CONFIG"} | _ENGINE_VARIABLES
    strangers = sorted(name for name in environ if name.startswith(VARIABLE_PREFIX) and name not in names)
    return [f"{name} is no option{_did_you_mean(name, names)}" for name in strangers]


def options_table() -> str:
    """All options as a Markdown table, for the docs."""
    rows = ["| flag | variable | default | |", "|---|---|---|---|"]
    rows += [f"| `{one.flag}` | `{one.variable}` | {one.shown_default} | {one.help} |" for one in OPTIONS]
    return "\n".join(rows)


def limits_table() -> str:
    """All limits as a Markdown table, for the docs."""
    rows = ["| limit | default | bounds |", "|---|---|---|"]
    rows += [f"| `{one.name}` | {one.default} | {one.metadata['help']} |" for one in dataclasses.fields(Limits)]
    return "\n".join(rows)


def _parse(path: Path, text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix in (".yaml", ".yml"):
            return yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration file {str(path)!r}: {error}") from error
    raise ConfigError(f"configuration file {str(path)!r} has to end in .toml, .yaml or .yml")


def _checked(name: str, value: Any) -> Any:
    """A value of a file, as its option takes it."""
    if name in ("models", "limits") and isinstance(value, Mapping):
        return {str(key): each for key, each in value.items()}
    option = _BY_NAME[name]
    if option.many:
        values = value if isinstance(value, list) else [value]
        return tuple(_of_kind(option, each) for each in values)
    return _of_kind(option, value)


def _of_kind(option: Option, value: Any) -> Any:
    if option.kind is float and type(value) is int:
        value = float(value)
    if type(value) is not option.kind:
        raise ConfigError(f"{option.name}={value!r} does not work: it must be of type {option.kind.__name__}")
    if option.choices and value not in option.choices:
        raise ConfigError(f"{option.name}={value!r} does not work: use one of {', '.join(option.choices)}")
    return value


def _named_models(sources: Mapping[str, str] | Iterable[str], names: Iterable[str]) -> dict[str, str]:
    if isinstance(sources, Mapping):
        return dict(sources)
    pairs = [_name_and_source(text) for text in sources]
    given = list(names)
    if len(given) > len(pairs):
        raise ConfigError(f"{len(given)} names for {len(pairs)} models: give one served_model_name a model")
    pairs = [(name, source) for name, (_, source) in zip(given, pairs, strict=False)] + pairs[len(given) :]
    models = dict(pairs)
    if len(models) < len(pairs):
        raise ConfigError("two models would have one public name: tell them apart with NAME=MODEL")
    return models


def _name_and_source(text: str) -> tuple[str, str]:
    name, found, source = text.partition("=")
    if found and name and source:
        return name, source
    is_path = text.startswith((".", "/", "~")) or Path(text).is_dir()
    return (Path(text).expanduser().resolve().name if is_path else text), text


def _limits(given: Mapping[str, Any] | Iterable[str]) -> Limits:
    if not isinstance(given, Mapping):
        given = dict(_assignment(text) for text in given)
    fields = typing.get_type_hints(Limits)
    return Limits(**{_known(name, fields, "limits"): _number(name, fields[name], each) for name, each in given.items()})


def _assignment(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise ConfigError(f"limits: {text!r} must read NAME=VALUE, e.g. max_n=16")
    return name.strip(), value


def _number(name: str, kind: type[int] | type[float], value: Any) -> Any:
    try:
        if not isinstance(value, bool):
            return kind(value)
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"limit {name}={value!r} does not work: it must be a number of type {kind.__name__}")


def _known(name: str, names: Iterable[str], where: str) -> str:
    names = list(names)
    if name not in names:
        raise ConfigError(f"{where}: there is no {name!r}{_did_you_mean(name, names)}")
    return name


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""

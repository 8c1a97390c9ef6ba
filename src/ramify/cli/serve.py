"""`ramify serve`: the OpenAI-compatible server. Its flags are made from the server's options (`serving.options`)."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from ramify.serving.options import MODELS, OPTIONS, Option, server_config, unknown_variables

_log = logging.getLogger("ramify.serving")


def serve(config: Path | None = None, **given: Any) -> None:
    """Serve models over HTTP, as OpenAI's API and more.

    A flag goes before its variable, that before the file of --config, that before the default. Where several values
    may be given, a flag is repeated and a variable holds them with spaces between.
    """
    for sentence in unknown_variables():
        _log.warning("%s", sentence)
    options = server_config(
        {name: tuple(each) if isinstance(each, list) else each for name, each in given.items()}, config
    )
    from ramify.serving.launch import launch

    raise typer.Exit(launch(options))


class ServeCommand(TyperCommand):
    """Its help is a plain list: in the usual table the names of the variables would be cut."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "rich_markup_mode": None})


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = Literal[option.choices] if option.choices else option.kind
    about: dict[str, Any] = {"help": option.help, "envvar": option.variable, "show_envvar": True}
    if option is MODELS:
        extra: Any = typer.Argument(metavar="MODEL...", show_default=False, **about)
    else:
        flags = f"{option.flag}/--no-{option.flag[2:]}" if option.kind is bool else option.flag
        extra = typer.Option(flags, show_default=option.shown_default or False, **about)
    return _keyword(option.name, Annotated[list[kind] | None if option.many else kind | None, extra])


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


_CONFIG = Annotated[
    Path | None,
    typer.Option("--config", help="TOML or YAML with these options, by their names with underscores.",
                 envvar="RAMIFY_CONFIG", show_envvar=True, show_default=False),
]  # fmt: skip
_parameters = [*map(_parameter, (MODELS, *OPTIONS)), _keyword("config", _CONFIG)]
serve.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
serve.__annotations__ = {each.name: each.annotation for each in _parameters}

"""What the commands share: exit codes, options, and where output goes (results to stdout, the rest to stderr)."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ramify.errors import (
    CapabilityError,
    ConfigError,
    ModelError,
    RamifyError,
    RequestError,
    SamplingParamsError,
    TaskError,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ramify.backends.local import LocalBackend
    from ramify.backends.openai import OpenAIBackend
    from ramify.sampling import SamplingParams
    from ramify.strategies import Prices
    from ramify.strategies.registry import Strategy


class ExitCode(IntEnum):
    """What scripts can rely on."""

    OK = 0
    FAILED = 1  # the work failed, or part of it (some lines of a batch, some problems of an evaluation)
    USAGE = 2  # options or input that cannot work
    MODEL = 3  # a model is missing or cannot be used
    INTERRUPTED = 130


_USAGE_ERRORS = (ConfigError, SamplingParamsError, RequestError, CapabilityError, TaskError)

Model = Annotated[str, typer.Option("--model", "-m", help="Bundled name (nano), folder of a checkpoint, or hub id.")]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option("--engine", "-e", metavar="KEY=VALUE", help="Engine option, e.g. max_num_seqs=64. Repeatable."),
]
Quantization = Annotated[
    str | None,
    typer.Option(help="Format of the weights: w8a8, w6a8, w4a8, w4a16, w8a16 or bfloat16; made once, then cached."),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Seed = Annotated[int, typer.Option(help="Of all draws: one seed, one answer.")]
RewardModel = Annotated[str, typer.Option(help="Reward model that scorers use; loaded only where one does.")]
OtherModels = Annotated[
    list[str] | None,
    typer.Option("--other-model", help="Model to load besides; those that a strategy names always are. Repeatable."),
]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
TopP = Annotated[float, typer.Option(help="Nucleus: smallest set of tokens with this probability mass; 1 is off.")]
TopK = Annotated[int, typer.Option(help="Only the k most likely tokens; 0 is off.")]
MinP = Annotated[float, typer.Option(help="Only tokens with this share of the likeliest one's probability; 0 is off.")]
MaxTokens = Annotated[int | None, typer.Option(help="Tokens to draw at most; up to the context's end by default.")]
Stop = Annotated[list[str] | None, typer.Option(help="String that ends an answer. Repeatable.")]
Budget = Annotated[str, typer.Option(help="Cap for each problem: 2000 (tokens), 4k, 30s, or several with commas.")]


BaseUrl = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1; --model is its model's name."),
]
EndpointOptions = Annotated[
    list[str] | None,
    typer.Option("--endpoint", metavar="KEY=VALUE", help="What the server can do, e.g. api=completions. Repeatable."),
]
PriceFile = Annotated[
    Path | None, typer.Option("--prices", help="JSON: model to dollars per million tokens, for budgets in dollars.")
]


def exit_code_of(error: RamifyError) -> ExitCode:
    """The exit code that an error ends a command with."""
    if isinstance(error, ModelError):
        return ExitCode.MODEL
    return ExitCode.USAGE if isinstance(error, _USAGE_ERRORS) else ExitCode.FAILED


def say(text: str) -> None:
    """A line for the person at the terminal, on standard error."""
    typer.echo(text, err=True)


def print_json(data: Any) -> None:
    """One JSON document on one line of standard output. NaN is an error: undefined numbers are null."""
    typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))


def output_console() -> Console:
    """Rich output on standard output."""
    from rich.console import Console

    return Console(highlight=False)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


def engine_options(given: Iterable[str] | None, quantization: str | None = None) -> dict[str, Any]:
    """``KEY=VALUE`` pairs, and the option of the same name, as keyword arguments of `LLM`.

    Raises:
        ConfigError: a pair has no ``=``, names no option, or has a value of another type.
    """
    from ramify.config import EngineConfig
    from ramify.registry import option_types

    options = _pairs(given, option_types(EngineConfig), "--engine")
    if quantization is not None:
        options["quantization"] = quantization
    EngineConfig.from_options(options)
    return options


def _pairs(given: Iterable[str] | None, types: Mapping[str, Any], option: str) -> dict[str, Any]:
    """``KEY=VALUE`` pairs of a repeatable option, read as the types say.

    Raises:
        ConfigError: a pair has no ``=``, names nothing that there is, or has a value of another type.
    """
    from ramify.registry import read_value

    options: dict[str, Any] = {}
    for pair in given or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{option} {pair!r} is no option: write KEY=VALUE")
        if key not in types:
            near = difflib.get_close_matches(key, types, 1)
            advice = f"did you mean {near[0]}?" if near else f"choose from {', '.join(sorted(types))}"
            raise ConfigError(f"{option} has no {key!r}: {advice}")
        options[key] = read_value(value, types[key], key)
    return options


def sampling_params(**given: Any) -> SamplingParams:
    """`SamplingParams` from a command's options.

    Raises:
        SamplingParamsError: a value is out of its range.
    """
    from ramify.sampling import SamplingParams

    given["stop"] = tuple(given.get("stop") or ())
    return SamplingParams(**given)


def read_text(argument: str | None, file: Path | None, what: str) -> list[str]:
    """Texts of a command: its argument, or the lines of a file (``-`` is standard input).

    Raises:
        ConfigError: both or neither are given, or the file cannot be read.
    """
    if (argument is None) == (file is None):
        raise ConfigError(f"give either {what} as an argument or a file with --file (- reads standard input)")
    if argument is not None:
        return [argument]
    if str(file) == "-":
        return [line.rstrip("\n") for line in sys.stdin if line.strip()]
    assert file is not None
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None


def text_or_file(value: str) -> str:
    """An option's text; that of a file where it starts with @.

    Raises:
        ConfigError: the file cannot be read.
    """
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{value[1:]} cannot be read ({error}): give the path of a text file") from None


def strategy(spec: str, reward_model: str) -> Strategy:
    """The strategy of a spec; a scorer whose reward model the spec leaves open uses `reward_model`.

    Raises:
        ConfigError: an unknown name or option, or a value that does not work.
    """
    from ramify.backends.base import Capability
    from ramify.registry import parse_spec
    from ramify.strategies import parse_strategy

    made = parse_strategy(spec)
    open_model = Capability.REWARD in made.requires and hasattr(getattr(made, "scorer", None), "model")
    if open_model and "model" not in parse_spec(spec)[1]:
        made = parse_strategy(f"{spec}{',' if ':' in spec else ':'}model={reward_model}")
    return made


def models_for(*strategies: Strategy, others: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
    """What to load besides the main model, as arguments of `LocalBackend.load`: what strategies name, and `others`."""
    from ramify.strategies.needed_models import other_models, reward_models

    named = dict.fromkeys([*other_models(*strategies), *(others or ())])
    return {"reward_models": reward_models(*strategies), "models": tuple(named)}


def open_backend(
    model: str,
    needed: Mapping[str, tuple[str, ...]],
    options: Mapping[str, Any],
    base_url: str | None = None,
    endpoint: Iterable[str] | None = None,
) -> LocalBackend | OpenAIBackend:
    """The local engine, or with `base_url` the models behind a server; an async context manager.

    Args:
        needed: see `models_for`.
        options: engine options; with a server only the seed is of use, and it is the strategies'.
        endpoint: ``KEY=VALUE`` pairs, fields of `Endpoint`.

    Raises:
        ConfigError: options of the engine with a server, or of a server without one; a value that does not work.
    """
    if base_url is None:
        from ramify.backends.local import LocalBackend

        if endpoint:
            raise ConfigError(f"--endpoint {', '.join(endpoint)} says what a server can do: give its --base-url too")
        return LocalBackend.load(model, **needed, **options)
    from ramify.backends.openai import OpenAIBackend
    from ramify.backends.openai_client import Endpoint
    from ramify.registry import option_types

    given = sorted(set(options) - {"seed"})
    if given:
        raise ConfigError(f"--engine {', '.join(given)} is for the local engine: leave it out with --base-url")
    settings: dict[str, Any] = {"base_url": base_url, "model": model, "models": needed["models"]}
    return OpenAIBackend(Endpoint(**settings, **_pairs(endpoint, option_types(Endpoint), "--endpoint")))


def prices_of(path: Path | None, model: str) -> Prices:
    """The prices of a model, and of the others of its table; nothing costs anything without a table.

    Raises:
        ConfigError: it is no cost table, or does not have the model.
    """
    from ramify.strategies import Prices

    if path is None:
        return Prices()
    from ramify.backends.openai import load_prices

    table = load_prices(path)
    if model not in table:
        raise ConfigError(f"{path} has no prices of {model!r} (it has {', '.join(table) or 'none'})")
    try:
        others = {name: Prices(**cast(Any, prices)) for name, prices in table.items() if name != model}
        return Prices(**cast(Any, table[model]), models=others)
    except TypeError as error:
        raise ConfigError(
            f"{path} has a price of something else than prompt, prompt_cached, generated: {error}"
        ) from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file and the folders it needs.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from None

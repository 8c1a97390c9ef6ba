"""The `ramify` command: gathers the commands and turns errors into a sentence and an exit code.

Nothing heavy is imported here or at the top of a command's file, so that `ramify --help` answers at once.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ramify.cli import (
    batch,
    bench,
    cache,
    chat,
    demo,
    doctor,
    evaluate,
    generate,
    keys,
    quantize,
    recommend,
    serve,
    solve,
    techniques,
    trace,
)
from ramify.cli.common import ExitCode, exit_code_of, say
from ramify.errors import RamifyError


class Commands(TyperGroup):
    """Commands whose errors end in a sentence on standard error and an exit code for scripts."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except RamifyError as error:
            say(f"error: {error}")
            raise typer.Exit(exit_code_of(error)) from None
        except BrokenPipeError:
            raise  # whoever read the output has gone (`ramify ... | head`): typer ends quietly
        except OSError as error:
            say(f"error: {error}")
            raise typer.Exit(ExitCode.FAILED) from None


app = typer.Typer(
    name="ramify",
    cls=Commands,
    help="Get better answers out of language models by spending compute well.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("solve")(solve.solve)
app.command("trace")(trace.trace)
app.command("eval")(evaluate.evaluate)
app.command("recommend")(recommend.recommend)
app.command("batch")(batch.batch)
app.command("cache")(cache.cache)
app.command("quantize")(quantize.quantize)
app.command("techniques")(techniques.techniques)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("serve", cls=serve.ServeCommand)(serve.serve)
app.add_typer(keys.app, name="keys")
app.add_typer(bench.bench, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ramify {version('ramify')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave out what engines say at the start.")] = False,
) -> None:
    log = logging.getLogger("ramify")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    if not log.handlers:
        log.addHandler(_Sayer())


class _Sayer(logging.Handler):
    """What the engine logs (the model, the sum behind its KV pool, faults) goes to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        say(self.format(record))

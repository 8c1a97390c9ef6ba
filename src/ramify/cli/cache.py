"""`ramify cache`: what is cached on disk, and how to be rid of it."""

from __future__ import annotations

from typing import Annotated

import typer

from ramify.cli import common


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove it all; running engines go on.")] = False,
    json: common.Json = False,
) -> None:
    """Show or clear the cache of packed weights."""
    from ramify.quantization import cache as weights

    folder, size = weights.weights_folder(), weights.cached_bytes()
    freed = weights.clear() if clear else 0
    if json:
        common.print_json({"folder": str(folder), "bytes": 0 if clear else size, "freed_bytes": freed})
    elif clear:
        typer.echo(f"{folder}: {freed / 2**20:,.1f} MiB removed")
    else:
        typer.echo(f"{folder}: {size / 2**20:,.1f} MiB")

"""`ramify techniques`: everything that is registered, what it trades, what it needs and where it comes from."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from ramify.cli import common


def techniques(
    kind: Annotated[str | None, typer.Option("--kind", "-k", help="Only this kind, e.g. strategy.")] = None,
    json: common.Json = False,
) -> None:
    """List all techniques. Trade: lossless (same tokens), distribution (same law, other draws) or approximate."""
    from rich.table import Table

    import ramify.scoring
    import ramify.strategies  # noqa: F401 - importing registers
    from ramify import registry
    from ramify.errors import ConfigError

    found = registry.techniques(kind)
    if not found:
        kinds = sorted({entry.kind for entry in registry.techniques()})
        raise ConfigError(f"there is no technique of kind {kind!r}: choose from {', '.join(kinds)}")
    if json:
        common.print_json([as_json(entry) for entry in found])
        return
    table = Table()
    for name in ("kind", "name", "trade", "needs", "paper", "options", "what it does"):
        table.add_column(name, no_wrap=name in ("kind", "name"))
    for entry in found:
        options = ", ".join(registry.option_types(entry.factory))
        table.add_row(entry.kind, entry.name, entry.trade, ", ".join(entry.needs), entry.paper, options, entry.summary)
    common.output_console().print(table)


def as_json(entry: Any) -> dict[str, Any]:
    """A technique as plain data."""
    from ramify.registry import option_types

    fields = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry) if field.name != "factory"}
    return {
        **fields,
        "needs": list(entry.needs),
        "options": list(option_types(entry.factory)),
        "summary": entry.summary,
    }

"""`ramify techniques`: everything that is registered, what it trades, what it needs and where it comes from."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Annotated, Any

import typer

from ramify.cli import common


def techniques(
    kind: Annotated[str | None, typer.Option("--kind", "-k", help="Only this kind, e.g. strategy.")] = None,
    json: common.Json = False,
) -> None:
    """List all techniques. Trade: lossless (same tokens), distribution (same law, other draws) or approximate."""
    from rich.markup import escape
    from rich.padding import Padding

    import ramify.engine.policies
    import ramify.kv.formats
    import ramify.quantization.formats
    import ramify.scoring
    import ramify.strategies
    import ramify.text.reasoning
    import ramify.text.tool_calls  # noqa: F401 - importing registers
    from ramify import registry
    from ramify.errors import ConfigError

    found = registry.techniques(kind)
    if not found:
        kinds = sorted({entry.kind for entry in registry.techniques()})
        raise ConfigError(f"there is no technique of kind {kind!r}: choose from {', '.join(kinds)}")
    if json:
        common.print_json([as_json(entry) for entry in found])
        return
    console = common.output_console()
    for kind_name, entries in itertools.groupby(found, key=lambda entry: entry.kind):
        console.print(f"[bold]{kind_name}[/]")
        for entry in entries:
            needs = f"needs {', '.join(entry.needs)}" if entry.needs else "needs nothing"
            facts = "; ".join(part for part in (entry.trade, needs, entry.paper, entry.page) if part)
            options = ", ".join(registry.option_types(entry.factory))
            lines = [entry.summary, *([f"options: {options}"] if options else [])]
            console.print(f"  [cyan]{entry.name}[/]  {facts}", highlight=False, soft_wrap=True)
            console.print(Padding(escape("\n".join(lines)), (0, 0, 0, 6)), style="dim", highlight=False)


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

"""`ramify trace`: read the trace of a run in the terminal, or as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import common
from ramify.errors import ConfigError

if TYPE_CHECKING:
    from ramify.strategies.kernel.trace import AnyEvent, Trace, TraceNode


def trace(
    file: Annotated[Path, typer.Argument(help="A trace, as `ramify solve --trace FILE` writes it.")],
    node: Annotated[int | None, typer.Option(help="Show one node whole, with the way to it.")] = None,
    events: Annotated[bool, typer.Option(help="List the events in order instead of the tree.")] = False,
    max_children: Annotated[int, typer.Option(help="Children shown of a node.")] = 8,
    html: Annotated[
        Path | None, typer.Option(help="Write the trace to this HTML file, which opens from disk, complete in itself.")
    ] = None,
    json: common.Json = False,
) -> None:
    """Show a run: its search tree with scores, what was dropped, the choice, and the ledger.

    A trace of a run that was killed, or that still runs, is shown as far as it goes. --json: the tree as one object.
    """
    from ramify.strategies.kernel.trace_file import read_trace

    found = read_trace(file)
    if html is not None:
        from ramify.serving.page.viewer import trace_html

        common.write_file(html, trace_html(found).encode())
        common.say(f"wrote {html}: open it in a browser")
    elif node is not None:
        show_node(found, node)
    elif events:
        for event in found.events:
            typer.echo(event_line(event))
    elif json:
        common.print_json(to_json(found))
    else:
        show_tree(found, max_children)


def to_json(found: Trace) -> dict[str, Any]:
    """The run, its tree and its ledger as plain data."""
    import msgspec

    started, stopped = found.events[0], found.events[-1]
    nodes = [msgspec.to_builtins(node) for node in found.tree()]
    return {"run": msgspec.to_builtins(started), "end": msgspec.to_builtins(stopped), "nodes": nodes}


def show_tree(found: Trace, max_children: int) -> None:
    """Print the tree, remarks and the ledger."""
    from ramify.cli.tree import costs_table, search_tree
    from ramify.strategies.kernel.trace import Noted, Reported, Started, Stopped

    console = common.output_console()
    started, stopped = found.events[0], found.events[-1]
    assert isinstance(started, Started)
    console.print(f"{started.strategy}, seed {started.seed}", markup=False)
    console.print(search_tree(found.tree(), started.prompt or started.problem, max_children))
    for event in found.events:
        if isinstance(event, Noted):
            console.print(f"note: {event.text}", markup=False)
    reports = [event for event in found.events if isinstance(event, Reported)]
    ending = stopped.reason if isinstance(stopped, Stopped) else "the trace ends here: the run was killed or goes on"
    answer = reports[-1].answer if reports else None
    console.print(f"\nanswer  {answer or '(none)'}   ({ending})", markup=False)
    if isinstance(stopped, Stopped) and stopped.ledger:
        console.print()
        console.print(costs_table(stopped.ledger))


def show_node(found: Trace, number: int) -> None:
    """Print one node with the text on the way to it.

    Raises:
        ConfigError: there is no such node.
    """
    nodes = found.tree()
    if not 0 <= number < len(nodes):
        raise ConfigError(f"the trace has nodes 0 to {len(nodes) - 1}, and no {number}")
    way: list[TraceNode] = []
    here: int | None = number
    while here is not None:
        way.append(nodes[here])
        here = nodes[here].parent
    for step in reversed(way):
        scores = "".join(f"  {name}={value:.3f}" for name, value in step.scores.items())
        mark = " *" if step.best else ""
        typer.echo(f"[{step.id}] {step.status}, {step.num_tokens} tokens{scores}{mark}")
        if step.text:
            typer.echo(step.text.rstrip("\n"))
    typer.echo(f"children: {', '.join(map(str, nodes[number].children)) or 'none'}")


def event_line(event: AnyEvent) -> str:
    """An event on one line."""
    import msgspec

    fields = msgspec.structs.asdict(event)
    shown = [f"{name}={value!r}" for name, value in fields.items() if value not in (None, [], {}, "")]
    return f"{type(event).__name__:<10}{' '.join(shown)}"

"""A search tree and a ledger as rich renderables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ramify.strategies.kernel.ledger import Ledger
from ramify.strategies.kernel.trace import TraceNode

MAX_CHILDREN = 8
"""Children shown of a node: the chosen one and the first others; a line counts the rest."""
MAX_TEXT = 100
_MARKS = {"stop": "done", "length": "cut", "abort": "stopped", "dropped": "dropped", "open": "open"}


def search_tree(nodes: Sequence[TraceNode], title: str, max_children: int = MAX_CHILDREN) -> Tree:
    """The tree of a trace; the chosen path is bold, each node shows its last score and how it ended.

    Args:
        nodes: as `Trace.tree` gives them: position i holds node i, 0 is the root.
        title: shown at the root.
        max_children: of one node.
    """
    tree = Tree(Text(title, style="bold"))
    stack = [(0, tree)]
    while stack:
        number, branch = stack.pop()
        shown = _shown(nodes, nodes[number].children, max_children)
        stack += [(child, branch.add(_label(nodes[child]))) for child in shown]
        hidden = len(nodes[number].children) - len(shown)
        if hidden:
            branch.add(Text(f"... {hidden} more", style="dim"))
    return tree


def ledger_table(ledger: Ledger) -> Table:
    """What a result cost; `total` is what a token budget caps."""
    return costs_table(ledger.to_dict())


def costs_table(ledger: Mapping[str, float]) -> Table:
    """A ledger's entries by name, as `Ledger.to_dict` gives them."""
    table = Table(title="ledger", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, value in ledger.items():
        if name in ("wall_s", "cost"):
            continue
        if value or name in ("generated", "verifier", "total_tokens"):
            table.add_row(name.replace("_", " "), f"{value:,}", style="bold" if name == "total_tokens" else "")
    table.add_row("seconds", f"{ledger.get('wall_s', 0.0):.2f}")
    if ledger.get("cost"):
        table.add_row("dollars", f"{ledger['cost']:.6f}")
    return table


def _shown(nodes: Sequence[TraceNode], children: Sequence[int], limit: int) -> list[int]:
    if len(children) <= limit:
        return list(children)
    chosen = [child for child in children if nodes[child].best]
    others = [child for child in children if not nodes[child].best][: limit - len(chosen)]
    return sorted([*chosen, *others])


def _label(node: TraceNode) -> Text:
    """One line: text, score, tokens, state."""
    words = " | ".join(line for line in node.text.strip().splitlines() if line.strip())
    label = Text(words if len(words) <= MAX_TEXT else words[: MAX_TEXT - 3] + "...", style="bold" if node.best else "")
    if not words:
        label.append("(nothing)", style="dim")
    for score in node.scores.values():
        label.append(f"  {score:.2f}", style=_colour(score))
    if node.status != "open":
        label.append(f"  {_MARKS.get(node.status, node.status)}", style="dim")
    if node.best:
        label.append("  *", style="bold")
    return label


def _colour(score: float) -> str:
    return "green" if score >= 0.5 else "red"

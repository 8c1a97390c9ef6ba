"""The tree shows the chosen path whatever is left out, and the ledger what a budget caps."""

from typing import Any

from rich.console import Console

from ramify.cli.tree import ledger_table, search_tree
from ramify.strategies.kernel.ledger import Ledger
from ramify.strategies.kernel.trace import TraceNode


def shown(renderable: Any) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_a_tree_shows_text_score_state_and_the_chosen_path() -> None:
    nodes = [
        TraceNode(id=0, children=[1, 2]),
        TraceNode(id=1, parent=0, text="3 + 4 = 7\n", scores={"prm": 0.91}, best=True, children=[3]),
        TraceNode(id=2, parent=0, text="3 + 4 = 8\n", scores={"prm": 0.02}, status="dropped"),
        TraceNode(id=3, parent=1, text="#### 7", status="stop", best=True),
    ]
    text = shown(search_tree(nodes, "How many [apples]?"))
    assert "How many [apples]?" in text
    assert "3 + 4 = 7  0.91  *" in text
    assert "3 + 4 = 8  0.02  dropped" in text
    assert "#### 7  done  *" in text


def test_a_wide_tree_is_cut_but_never_the_chosen_path() -> None:
    children = list(range(1, 31))
    nodes = [TraceNode(id=0, children=children)]
    nodes += [TraceNode(id=i, parent=0, text=f"branch {i}", best=i == 29) for i in children]
    text = shown(search_tree(nodes, "root", max_children=4))
    assert "branch 29" in text
    assert "... 26 more" in text


def test_the_ledger_shows_totals_and_leaves_out_what_was_not_used() -> None:
    text = shown(ledger_table(Ledger(prompt=10, generated=1200, verifier=300, calls=3, wall_s=1.5)))
    assert "1,200" in text
    assert "1,500" in text
    assert "probe" not in text
    assert "1.50" in text

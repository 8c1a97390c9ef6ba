"""`ramify trace --html` in a real browser: one file, opened from disk, that shows any run and lets nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from typer.testing import CliRunner

from ramify.cli.main import app
from ramify.serving.page.viewer import trace_html
from ramify.strategies.kernel.trace import (
    AnyEvent,
    Dropped,
    Grown,
    Noted,
    Ran,
    Reported,
    Scored,
    Started,
    Stopped,
    Trace,
)
from tests.serving.page.conftest import Watched

HOSTILE = [
    "</script><script>window.broken = 1</script>",
    "<img src=x onerror='window.broken = 1'>",
    "\u202egnp.exe\u202c \u200f\u05d0",
    "bell\u0007 null\u0000 joiner\u200d",
    "<!-- --><style>body{display:none}</style>",
    "\u2028line\u2029paragraph",
    "javascript:window.broken=1",
    "${window.broken=1}{{constructor.constructor('window.broken=1')()}}",
]
EVENTS: list[AnyEvent] = [
    Started("1", "beam:n=2,m=2", 7, "Make 25."),
    Grown(1, 0, "7 * 4 = 28\n", 7, logprob=-1.5, token_ids=[1, 2, 3]),
    Ran(1, 3, 9),
    Grown(2, 0, "7 - 4 = 3\n", 6),
    Ran(2, 3, 8),
    Scored(1, "ProcessReward", 0.8),
    Scored(2, "ProcessReward", 0.1),
    Dropped([2]),
    Grown(3, 1, "28 - 3 = 25\n", 8, "stop"),
    Ran(3, 10, 17),
    Scored(3, "ProcessReward", 0.9),
    Noted("two branches were alike"),
    Reported(3, "25", 1),
    Stopped("finished", 21, {"generated": 21, "verifier": 40, "wall_s": 0.5}),
]


def opened(watched: Watched, events: list[AnyEvent], folder: Path, address: str = "") -> None:
    file = folder / "trace.html"
    file.write_text(trace_html(Trace(events)), encoding="utf-8")
    watched.page.goto(f"{file.as_uri()}{address}")
    watched.page.get_by_role("tab", name="Tree").wait_for()


def test_the_command_writes_a_file_that_shows_the_run(watched: Watched, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    trace.write_bytes(Trace(EVENTS).to_jsonl())
    done = CliRunner().invoke(app, ["trace", str(trace), "--html", str(tmp_path / "run.html")])
    assert done.exit_code == 0, done.output
    watched.page.goto((tmp_path / "run.html").as_uri())
    page = watched.page
    assert page.get_by_role("heading", name="beam:n=2,m=2").is_visible()
    assert "two branches were alike" in page.inner_text("body")
    page.get_by_role("tab", name="Ledger").click()
    assert "61 tokens of the budget" in page.inner_text("table")
    assert watched.problems == []
    assert watched.hosts() == set()


def test_the_list_is_walked_folded_and_read_by_keyboard_alone(watched: Watched, tmp_path: Path) -> None:
    opened(watched, EVENTS, tmp_path)
    page = watched.page
    page.get_by_role("tab", name="Tree").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Nodes").get_attribute("aria-selected") == "true"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    tree = page.get_by_role("tree")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
        if tree.evaluate("element => element === document.activeElement"):
            break
    tree.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("complementary").get_by_role("heading", name="node 1").is_visible()
    rows = page.get_by_role("treeitem")
    assert rows.count() == 4
    assert rows.nth(3).get_attribute("aria-label") == "node 2, dropped, 6 tokens, score 0.100. 7 - 4 = 3"
    page.keyboard.press("ArrowLeft")
    assert rows.count() == 3
    page.keyboard.press("ArrowRight")
    assert rows.count() == 4
    assert watched.problems == []


def test_a_link_leads_to_a_node(watched: Watched, tmp_path: Path) -> None:
    opened(watched, EVENTS, tmp_path, "#node=3")
    side = watched.page.get_by_role("complementary")
    assert side.get_by_role("heading", name="node 3").is_visible()
    assert "28 - 3 = 25" in side.inner_text()
    assert "engine steps" in side.inner_text()
    watched.page.evaluate("location.hash = '#node=1'")
    side.get_by_role("heading", name="node 1").wait_for()


def test_searching_and_filtering_show_what_matches_and_the_way_to_it(watched: Watched, tmp_path: Path) -> None:
    opened(watched, EVENTS, tmp_path)
    page = watched.page
    page.get_by_role("tab", name="Nodes").click()
    page.get_by_role("searchbox").fill("28 -")
    page.get_by_text("1 of 4 nodes").wait_for()
    assert page.get_by_role("treeitem").count() == 3  # the node, its parent and the root
    page.get_by_role("button", name="Next").click()
    assert page.get_by_role("complementary").get_by_role("heading", name="node 3").is_visible()
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Show").select_option("dropped")
    page.get_by_text("1 of 4 nodes").wait_for()
    page.get_by_label("Show").select_option("all")
    page.get_by_label("Score from").fill("0.85")
    page.get_by_text("1 of 4 nodes").wait_for()


def test_the_timeline_shows_what_the_batch_held_at_each_step(watched: Watched, tmp_path: Path) -> None:
    opened(watched, EVENTS, tmp_path)
    watched.page.get_by_role("tab", name="Timeline").click()
    assert "each engine step: 3 branches, at most 2 at once" in watched.page.inner_text("figcaption")
    titles = watched.page.locator("rect title").all_text_contents()
    assert titles == ["node 1, engine step 3 to 9", "node 2, engine step 3 to 8", "node 3, engine step 10 to 17"]


@pytest.mark.parametrize("place", ["prompt", "text", "answer", "note", "scorer"])
def test_what_a_model_writes_is_text_wherever_it_stands(watched: Watched, tmp_path: Path, place: str) -> None:
    text = " ".join(HOSTILE)
    given = {name: text if name == place else "plain" for name in ("prompt", "text", "answer", "note", "scorer")}
    events: list[AnyEvent] = [
        Started("1", "sample", 0, given["prompt"]),
        Grown(1, 0, given["text"], 5, "stop"),
        Scored(1, given["scorer"], 0.5),
        Noted(given["note"]),
        Reported(1, given["answer"], 1),
        Stopped("finished", 5, {"generated": 5}),
    ]
    opened(watched, events, tmp_path, "#node=1")
    page = watched.page
    for tab in ("Nodes", "Timeline", "Events", "Ledger"):
        page.get_by_role("tab", name=tab).click()
    assert page.evaluate("window.broken") is None
    assert page.evaluate("document.querySelectorAll('img, #app script, #app style').length") == 0
    seen = page.inner_text("body")
    assert "<img src=x" in seen
    assert not re.search("[\u202a-\u202e\u200b-\u200f\u0000\u0007]", seen)  # marks that reorder or hide are spelled out
    assert "⟨U+202E⟩" in seen
    assert watched.problems == []


def test_a_tree_of_ten_thousand_nodes_is_laid_out_searched_and_walked(watched: Watched, tmp_path: Path) -> None:
    events: list[AnyEvent] = [Started("1", "beam", 0, "big")]
    events += [Grown(i, (i - 1) // 4, f"step {i}", 5) for i in range(1, 10_001)]
    events += [Scored(i, "prm", (i % 100) / 100) for i in range(1, 10_001)]
    events += [
        Dropped(list(range(5000, 7000))),
        Reported(10_000, "x", 1),
        Stopped("finished", 50_000, {"generated": 50_000}),
    ]
    opened(watched, events, tmp_path)
    page = watched.page
    page.get_by_text("10001 nodes").wait_for()
    page.get_by_role("tab", name="Nodes").click()
    page.get_by_role("tree").focus()
    page.keyboard.press("End")
    assert page.get_by_role("treeitem").count() < 100  # only what is in view exists
    page.get_by_role("searchbox").fill("step 9999")
    page.get_by_text("1 of 10001 nodes").wait_for()
    page.get_by_role("tab", name="Timeline").click()
    page.get_by_text("10000 branches").wait_for()
    assert watched.problems == []


def test_a_chain_thousands_deep_does_not_break_the_viewer(watched: Watched, tmp_path: Path) -> None:
    events: list[AnyEvent] = [Started("1", "sample", 0, "deep"), *(Grown(i, i - 1, f"s{i}", 1) for i in range(1, 4001))]
    opened(watched, events, tmp_path, "#node=4000")
    assert watched.page.get_by_role("complementary").get_by_role("heading", name="node 4000").is_visible()
    assert "the run was killed or goes on" in watched.page.inner_text("body")
    assert watched.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(watched: Watched, tmp_path: Path, scheme: str) -> None:
    watched.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    opened(watched, EVENTS, tmp_path, "#node=3")
    for tab in ("Tree", "Nodes", "Timeline", "Events", "Ledger"):
        watched.page.get_by_role("tab", name=tab).click()
        found = [fault for fault in Axe().run(watched.page).response["violations"] if fault["impact"] in SERIOUS]
        assert found == [], (tab, [(fault["id"], [node["html"] for node in fault["nodes"]][:3]) for fault in found])


SERIOUS = ("serious", "critical")


def test_on_a_phone_nothing_is_wider_than_the_screen(watched: Watched, tmp_path: Path) -> None:
    watched.page.set_viewport_size({"width": 360, "height": 740})
    opened(watched, EVENTS, tmp_path, "#node=3")
    for tab in ("Tree", "Nodes", "Timeline", "Ledger"):
        watched.page.get_by_role("tab", name=tab).click()
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360, tab

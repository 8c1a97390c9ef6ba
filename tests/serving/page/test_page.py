"""The page in a real browser, over the real server: ask, watch, stop, compare, reload, lose the server, find it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.serving.page.conftest import Watched
from tests.warm_python import Program

QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."
SERIOUS = ("serious", "critical")
LONG = "best-of-n:n=64"
"""Takes long enough to be stopped on the way."""


KEY = "a-key-for-this-test-alone"


class Site:
    """`ramify serve`, with a key, on a port of its own; killed without warning."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._http = httpx2.Client()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        command = ["ramify", "serve", "nano", "nano-prm", "--port", str(self.port), "--storage-url", ":memory:"]
        with open(os.devnull, "r+b") as nothing:
            self.process = Program(self._python, [*command, "--api-key", KEY], streams=[nothing.fileno()] * 3)
        while not self.is_ready():
            assert self.process.poll() is None, "the server did not start"
            time.sleep(0.05)

    def is_ready(self) -> bool:
        try:
            return self._http.get(f"{self.url}ready").status_code == 200
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def running_site(warm_python: str) -> Iterator[Site]:
    site = Site(warm_python)
    yield site
    site.kill()


@pytest.fixture
def site(running_site: Site, watched: Watched) -> str:
    """The address of the server, whose key the page's tab has already."""
    watched.page.add_init_script(f"sessionStorage.setItem('ramify-api-key', '{KEY}')")
    return running_site.url


def ask(page: Page, question: str = QUESTION) -> None:
    page.get_by_label("Message").fill(question)
    page.keyboard.press("Enter")


def choose(page: Page, spec: str, budget: int = 3000) -> None:
    page.get_by_label("Spec").first.fill(spec)
    page.get_by_label("Budget").first.fill(str(budget))


def status(page: Page) -> str:
    return page.locator(".answer .status").last.inner_text()


def finished(page: Page) -> None:
    expect(page.locator(".answer.done").last).to_be_visible(timeout=60_000)


def test_a_newcomer_sees_an_answer_and_the_search_behind_it(watched: Watched, site: str) -> None:
    page = watched.page
    page.goto(site)
    page.get_by_role("button", name="an example").click()
    page.get_by_role("button", name="Send").click()
    finished(page)
    assert "answer" in status(page)
    assert page.get_by_role("img", name="Search tree of").is_visible()
    page.get_by_role("tab", name="Nodes").click()
    assert page.get_by_role("treeitem").count() > 8
    page.get_by_role("tab", name="Timeline").click()
    expect(page.locator("figcaption").first).to_contain_text("each engine step")
    page.get_by_text("Ledger", exact=True).last.click()
    assert "verifier" in page.inner_text("body")
    assert watched.problems == []
    assert watched.hosts() == {site.split("/")[2]}


def test_everything_is_reached_and_done_by_keyboard(watched: Watched, site: str) -> None:
    page = watched.page
    page.goto(site)
    expect(page.locator(".connection")).to_contain_text("connected")
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.textContent.trim().slice(0, 30) || document.activeElement.tagName")
        )
    assert {"To the content", "Chat", "Compare", "Server", "TEXTAREA"} <= reached
    page.get_by_label("Message").focus()
    page.keyboard.type("3 + 4 = ?")
    page.keyboard.press("Enter")
    finished(page)
    assert watched.problems == []


def test_a_method_is_switched_and_the_conversation_goes_on(watched: Watched, site: str) -> None:
    page = watched.page
    page.goto(site)
    page.get_by_role("combobox", name="Method").first.select_option("One sample")
    ask(page)
    finished(page)
    assert page.locator(".viewer").count() == 0
    choose(page, "self-consistency:n=3")
    ask(page, "And now make 19 of the numbers 3, 7 and 9.")
    expect(page.locator(".answer.done")).to_have_count(2)
    assert "answer" in status(page)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turns > li")).to_have_count(0)
    assert watched.problems == []


def test_stopping_keeps_what_came_and_frees_the_server(watched: Watched, site: str) -> None:
    page = watched.page
    page.goto(site)
    choose(page, LONG, 20_000)
    ask(page)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".answer .status").last).to_contain_text("stopped by you")
    page.get_by_role("button", name="Ask again").is_visible()
    choose(page, "sample")
    ask(page)
    finished(page)
    assert watched.problems == []


def test_two_methods_are_compared_side_by_side(watched: Watched, site: str) -> None:
    page = watched.page
    page.goto(f"{site}#compare")
    page.get_by_label("Prompt for both").fill(QUESTION)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".compare .answer.done")).to_have_count(2, timeout=60_000)
    expect(page.get_by_role("table", name="What each cost")).to_be_visible()
    assert page.locator(".compare .viewer").count() == 2
    assert watched.problems == []


def test_a_reload_in_the_middle_keeps_the_conversation(watched: Watched, site: str) -> None:
    page = watched.page
    page.goto(site)
    ask(page)
    finished(page)
    answer = page.locator(".answer .model-text").first.inner_text()
    choose(page, LONG, 20_000)
    ask(page, "Once more.")
    expect(page.locator(".answer.running")).to_be_visible()
    page.reload()
    expect(page.locator(".turns > li")).to_have_count(2)
    assert page.locator(".answer .model-text").first.inner_text() == answer
    expect(page.locator(".answer .status").last).to_contain_text("interrupted by a reload")
    choose(page, "sample")
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".answer.running, .answer.done").last).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    assert watched.problems == []


def test_a_server_that_goes_is_missed_and_found_again(watched: Watched, site: str, running_site: Site) -> None:
    page = watched.page
    page.goto(site)
    expect(page.locator(".connection")).to_contain_text("connected")
    choose(page, LONG, 20_000)
    ask(page)
    expect(page.locator(".answer.running")).to_be_visible()
    running_site.kill()
    expect(page.locator(".answer.failed .error")).to_be_visible()
    expect(page.get_by_text("The server cannot be reached.")).to_be_visible()
    assert page.locator(".question").count() == 1  # what was said stays
    running_site.start()
    expect(page.locator(".connection")).to_contain_text("connected", timeout=30_000)
    choose(page, "sample")
    ask(page)
    finished(page)


def test_the_dashboard_shows_throughput_latency_and_the_memory_map(watched: Watched, site: str) -> None:
    page = watched.page
    page.goto(site)
    ask(page)
    finished(page)
    page.get_by_role("link", name="Server").click()
    expect(page.get_by_role("heading", name="Tokens a second")).to_be_visible()
    expect(page.locator(".kv-map figcaption")).to_contain_text("cached, free to reuse")
    expect(page.get_by_role("table")).to_contain_text("time to first token")
    assert watched.problems == []


def test_a_server_with_keys_asks_for_one_and_keeps_it_in_the_tab(watched: Watched, running_site: Site) -> None:
    page = watched.page
    page.goto(running_site.url)
    for key, state in (("wrong", "key needed"), (KEY, "connected")):
        page.get_by_label("This server asks for an API key").fill(key)
        page.get_by_role("button", name="Use").click()
        expect(page.locator(".connection")).to_contain_text(state)
    assert page.evaluate("Object.keys(localStorage).length") == 0


def test_a_model_that_writes_markup_is_shown_as_text(watched: Watched, site: str) -> None:
    page = watched.page
    hostile = "<img src=x onerror='window.broken=1'></script><b>bold</b> \u202edlrow\u202c"
    page.goto(site)
    said = [{"delta": {"content": hostile}}, {"delta": {}, "finish_reason": "stop"}]
    stream = "".join(f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in said) + "data: [DONE]\n\n"
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=stream),
    )
    ask(page, hostile)
    finished(page)
    assert page.evaluate("window.broken") is None
    assert page.locator(".turns img, .turns b").count() == 0
    assert "<img src=x" in page.locator(".answer .model-text").inner_text()
    assert "⟨U+202E⟩" in page.locator(".question").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_on_any_page(watched: Watched, site: str, scheme: str) -> None:
    page = watched.page
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(site)
    choose(page, "beam:n=4,m=2")
    ask(page)
    finished(page)
    for name in ("Chat", "Compare", "Server"):
        page.get_by_role("link", name=name).click()
        found = [fault for fault in Axe().run(page).response["violations"] if fault["impact"] in SERIOUS]
        assert found == [], [(fault["id"], [node["html"] for node in fault["nodes"]][:3]) for fault in found]


def test_on_a_phone_nothing_is_wider_than_the_screen(watched: Watched, site: str) -> None:
    page = watched.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(site)
    ask(page)
    finished(page)
    for name in ("Chat", "Compare", "Server"):
        page.get_by_role("link", name=name).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name


def test_the_pages_policy_allows_its_own_files_alone(running_site: Site) -> None:
    site = running_site.url
    answer = httpx2.get(site)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in answer.text.replace("http-equiv", "")  # no outside host is named
    for path in ("assets/index.js", "assets/index.css"):
        assert httpx2.get(f"{site}{path}").status_code == 200
    headers = {"authorization": f"Bearer {KEY}"}
    assert httpx2.get(f"{site}assets/..%2f..%2fviewer.html", headers=headers).status_code == 404

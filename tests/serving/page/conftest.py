"""A real Chromium, driven by Playwright, for the page and the viewer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@pytest.fixture(scope="module")  # while it lives, Playwright's event loop runs here and no other can
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what went wrong or out of it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def hosts(self) -> set[str]:
        return {request.url.split("/")[2] for request in self.requests if request.url.startswith("http")}


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Watched]:
    """A page of its own whose errors are collected: scripts that fail, policies that are broken, answers of 500."""
    context = chromium.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    seen = Watched(page)
    page.on("pageerror", lambda error: seen.problems.append(str(error)))
    page.on("console", lambda line: line.type == "error" and seen.problems.append(line.text))
    page.on("request", lambda request: seen.requests.append(request))  # it marks what it is given, as no list can be
    yield seen
    context.close()

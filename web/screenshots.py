"""The pictures of the page and the viewer in the docs: a real server, a real browser, the bundled models.

    python web/screenshots.py

Needs what the tests of the page need: Playwright and a Chromium on the path.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ASSETS = Path(__file__).parents[1] / "docs" / "assets"
PORT = 18231
URL = f"http://127.0.0.1:{PORT}/"
QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."
RAMIFY = [sys.executable, "-c", "from ramify.cli.main import app; app()"]


@contextmanager
def server() -> Iterator[None]:
    """`ramify serve` with the bundled models."""
    command = [*RAMIFY, "serve", "nano", "nano-prm", "--port", str(PORT), "--storage-url", ":memory:"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while True:
            try:
                urllib.request.urlopen(f"{URL}ready")
                break
            except OSError:
                time.sleep(0.2)
        yield
        process.terminate()


def chat(page: Page) -> None:
    """An answer with its search."""
    page.goto(URL)
    page.get_by_label("Message").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".answer.done")).to_be_visible(timeout=60_000)
    page.wait_for_timeout(500)


def compare(page: Page) -> None:
    """Two methods side by side."""
    page.goto(f"{URL}#compare")
    page.get_by_label("Prompt for both").fill(QUESTION)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".compare .answer.done")).to_have_count(2, timeout=60_000)
    page.wait_for_timeout(500)


def dashboard(page: Page) -> None:
    """The server under load."""
    page.goto(f"{URL}#server")
    load = ["bench", "serve", "--base-url", URL.rstrip("/"), "--num-prompts", "90", "--request-rate", "12"]
    lengths = ["--input-len", "60", "--prefix-len", "60", "--range-ratio", "0.5", "--output-len", "120"]
    with subprocess.Popen([*RAMIFY, *load, *lengths], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        page.wait_for_timeout(10_000)
        process.terminate()


def viewer(page: Page) -> None:
    """A trace opened from disk, one node chosen."""
    with tempfile.TemporaryDirectory() as folder:
        trace, html = Path(folder) / "run.jsonl", Path(folder) / "run.html"
        spec = "beam:n=8,m=4"
        subprocess.run([*RAMIFY, "-q", "solve", QUESTION, "-s", spec, "--trace", trace, "--no-tree"], check=True)
        subprocess.run([*RAMIFY, "trace", trace, "--html", html], check=True)
        page.goto(f"{html.as_uri()}#node=1")
        page.wait_for_timeout(500)


def main() -> None:
    """Take all pictures."""
    with server(), sync_playwright() as playwright:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        for name, take in (("chat", chat), ("compare", compare), ("dashboard", dashboard), ("viewer", viewer)):
            scheme = "dark" if name == "viewer" else "light"
            page = browser.new_page(viewport={"width": 1100, "height": 820}, color_scheme=scheme)
            take(page)
            page.screenshot(path=ASSETS / f"page-{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()

"""A trace as one HTML file: script, style and data inside, nothing fetched, opened from disk.

The trace is data in the page, never markup: whatever a model wrote is shown as text. A content security policy allows
the file its own script and style, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from ramify.strategies.kernel.trace import Trace

_PARTS = {
    "script": re.compile(r"<script>(.*?)</script>", re.DOTALL),
    "style": re.compile(r"<style>(.*?)</style>", re.DOTALL),
}


def trace_html(trace: Trace) -> str:
    """The page of a trace, complete.

    Args:
        trace: of a run, whole or as far as it went.
    """
    page = (files("ramify.serving.page") / "viewer.html").read_text(encoding="utf-8")
    sources = " ".join(f"{part}-src {_hashes(page, part)};" for part in _PARTS)
    policy = f"default-src 'none'; {sources} base-uri 'none'; form-action 'none'"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}" />'
    # In JSON "<" stands in strings only, where its escape means the same: no text can end the script element.
    data = trace.to_jsonl().decode().replace("<", "\\u003c")
    block = f'<script type="application/json" id="trace-data">\n{data}</script>'
    before, after = page.split("<!--policy-->")
    return f"{before}{meta}{after.replace('<!--trace-->', block, 1)}"


def _hashes(page: str, part: str) -> str:
    digests = (hashlib.sha256(text.encode()).digest() for text in _PARTS[part].findall(page))
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

"""``/``: the web page. Its files are the same for everybody and hold nothing of the server, so they need no key."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

_FOLDER = files("ramify.serving.page") / "static"
_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"content-security-policy": _POLICY, "cross-origin-opener-policy": "same-origin"}
PAGE_PATHS = frozenset({"/", *(f"/assets/{file.name}" for file in (_FOLDER / "assets").iterdir())})
"""The page's own paths."""

router = APIRouter(include_in_schema=False)


@cache
def _content(name: str) -> bytes:
    return _FOLDER.joinpath(*name.split("/")).read_bytes()


def _route(path: str) -> None:
    name = "index.html" if path == "/" else path.removeprefix("/")

    @router.api_route(path, methods=["GET", "HEAD"])
    async def page() -> Response:
        """A file of the page."""
        return Response(_content(name), media_type=_TYPES[name.rpartition(".")[2]], headers=_HEADERS)


for _path in PAGE_PATHS:
    _route(_path)

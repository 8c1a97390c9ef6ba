"""The files of the page in the package are those that `web/` makes."""

import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[3]
INPUTS = ("index.html", "viewer.html", "package-lock.json", "vite.config.ts")


def test_the_package_holds_what_the_sources_make() -> None:
    web = ROOT / "web"
    files = [web / name for name in INPUTS] + [path for path in (web / "src").rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(web).as_posix(), path) for path in files):
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes())
    built_from = (ROOT / "src/ramify/serving/page/built-from.sha256").read_text().strip()
    assert built_from == digest.hexdigest(), "run `make web` and commit what it makes"


def test_no_outside_host_is_named_in_the_page() -> None:
    folder = ROOT / "src/ramify/serving/page"
    for path in (folder / "viewer.html", *(folder / "static").rglob("*.*")):
        for word in path.read_text().replace("http://www.w3.org/", "").split("http")[1:]:
            assert not word.startswith(("://", "s://")), (path, word[:60])

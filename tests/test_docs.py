"""What the docs show runs: every block marked with `<!-- run -->`, page by page, and every example."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^<!-- run -->\n```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if BLOCK.search(path.read_text())
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, warm_python: str) -> Path:
    """A folder with a `ramify` and a `python` that start at once."""
    folder = tmp_path_factory.mktemp("commands")
    for name, program in (("ramify", "ramify"), ("python", "")):
        asker = f"{sys.executable} -S {ROOT / 'tests' / 'warm_python.py'} {warm_python} {program}"
        (folder / name).write_text(f'#!/bin/sh\nexec {asker} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def run(command: list[str], folder: Path, commands: Path) -> None:
    path = f"{commands}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )  # fmt: skip
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_marked_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path, commands: Path) -> None:
    blocks = BLOCK.findall(page.read_text())
    python = "\n".join(code for language, code in blocks if language == "python")
    if python:
        run([str(commands / "python"), "-c", python], tmp_path, commands)
    bash = "".join(code for language, code in blocks if language == "bash")
    if bash:
        run(["bash", "-euo", "pipefail", "-c", bash], tmp_path, commands)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example: Path, tmp_path: Path, commands: Path) -> None:
    run([str(commands / "python"), str(example)], tmp_path, commands)


def test_every_run_mark_stands_before_a_block_that_can_run() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text()
        assert text.count("<!-- run -->") == len(BLOCK.findall(text)), page


def test_every_command_is_in_the_command_line_page() -> None:
    from ramify.cli.main import app

    page = (ROOT / "docs" / "cli.md").read_text()
    for command in app.registered_commands:
        assert f"`ramify {command.name}`" in page

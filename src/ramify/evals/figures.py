"""The one style of all pictures: readable in colour, in grey and with any colour vision; SVG or PNG, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramify.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with any colour vision; markers and dashes tell the lines apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (7, 3)))
FORMATS = (".png", ".svg")
LONGEST_NAME = 48
"""Characters of a name in a picture: a longer one would leave no room for what it names."""


def targets_of(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files to draw to.

    Raises:
        ConfigError: a name has an ending of no format.
    """
    targets = [Path(path) for path in paths]
    for target in targets:
        if target.suffix not in FORMATS:
            raise ConfigError(f"{target}: a plot is written as {' or '.join(FORMATS)}; choose such a name")
    return targets


def short_name(name: str) -> str:
    """A name as pictures show it: of a long one the beginning and the end, with an ellipsis between them."""
    if len(name) <= LONGEST_NAME:
        return name
    end = LONGEST_NAME // 3
    return f"{name[: LONGEST_NAME - end - 1]}\u2026{name[-end:]}"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    # Without pyplot there is no global figure and no window system: the canvas comes from the format.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def save_figure(figure: Figure, targets: Sequence[Path]) -> None:
    """Write a figure in the format of each name's ending, in folders that are made where they are missing."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "ramify", "svg.fonttype": "none"}):
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            # No date in the file: the same numbers give the same plot.
            metadata: dict[str, Any] = {"Date": None} if target.suffix == ".svg" else {"Software": "ramify"}
            figure.savefig(target, metadata=metadata)

"""Pictures of fields, drawn without a display; each is saved as PNG, to look at, and as SVG, to print.

Importing this costs half a second: commands do it when they draw.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fieldctr.disk import replacing

CELL, MARGIN = 0.17, 2.2  # inches: of a heatmap's cell, and for names and title
# One file gives the same bytes each time: no date, ids from the content. Text stays text.
SETTINGS: Any = {"svg.hashsalt": "fieldctr", "svg.fonttype": "none", "font.size": 8, "figure.dpi": 120}


def heatmap(names: Sequence[str], matrix: np.ndarray, title: str) -> Figure:
    """A (F, F) matrix over fields, row by column; blue is negative, red positive, both to the largest magnitude.

    A matrix that is zero on and below the diagonal shows unordered pairs; (F, n) has n columns, numbered from 0.
    """
    side = MARGIN + CELL * max(len(names), 8)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        axes = figure.add_subplot()
        largest = float(np.abs(matrix).max()) or 1.0
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
        rows, columns = (range(size) for size in matrix.shape)
        across = [plain(name) for name in names] if matrix.shape[0] == matrix.shape[1] else [*map(str, columns)]
        axes.set_xticks(columns, labels=across, rotation=90)
        axes.set_yticks(rows, labels=[plain(name) for name in names])
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, shrink=0.6)
        axes.set_title(plain(title), fontsize=9)
    return figure


def field_map(names: Sequence[str], vectors: np.ndarray, title: str) -> Figure:
    """The first two principal components of (F, E) vectors, both axes at one scale."""
    points, share = principal(vectors)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8, 8), layout="constrained")
        axes = figure.add_subplot()
        axes.scatter(*points.T, s=10)
        for name, point in zip(names, points, strict=True):
            axes.annotate(plain(name), point, xytext=(3, 3), textcoords="offset points", fontsize=7)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.12)
        axes.set_title(plain(f"{title}; {share:.0%} of the variance"), fontsize=9)
    return figure


def principal(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """(F, 2) coordinates along the two directions of most variance, and their share of it."""
    left, scale, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    points = np.zeros((len(vectors), 2))
    points[:, : len(scale)] = (left * scale)[:, :2]
    return points, float((scale[:2] ** 2).sum() / max(float((scale**2).sum()), 1e-12))


def save(figure: Figure, stem: Path) -> Path:
    """Write stem.svg and stem.png, each whole or not at all; gives the PNG's path."""
    png = stem.with_name(f"{stem.name}.png")
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a field's name may be in any script
        for path, metadata in ((stem.with_name(f"{stem.name}.svg"), {"Date": None}), (png, {})):
            with replacing(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
    return png


def plain(text: str) -> str:
    """A text without mathtext: a dollar in a field's name is a dollar."""
    return text.replace("$", r"\$")

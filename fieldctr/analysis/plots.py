"""Pictures of fields, drawn without a display; each is saved as PNG, to look at, and as SVG, to print.

Importing this costs half a second: commands do it when they draw.
"""

import contextlib
import warnings
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase

from fieldctr.disk import replacing

CELL, MARGIN = 0.17, 2.2  # inches: of a heatmap's cell, and for names and title
SAME = 1e-4  # of the largest magnitude: a diagonal whose numbers differ by less is one number
DIVERGING, RISING = "RdBu_r", "viridis"
FRAMES = {DIVERGING: "black", RISING: "#ff6a2b"}
DOT = "#1f5fa8"
DOT_ROOM, NEIGHBOURS = 4, 3  # pixels that a dot keeps free around it; those that tell how crowded a place is
# One file gives the same bytes each time: no date, ids from the content. Text stays text.
SETTINGS: Any = {"svg.hashsalt": "fieldctr", "svg.fonttype": "none", "font.size": 8, "figure.dpi": 120}


class Words(NamedTuple):
    """What a heatmap says beside its numbers."""

    rows: str
    columns: str
    value: str


def heatmap(
    names: Sequence[str], matrix: np.ndarray, title: str, words: Words, framed: Iterable[tuple[int, int]] = ()
) -> Figure:
    """A (F, F) matrix over fields, row by column; (F, n) has n columns, numbered from 0.

    Numbers of both signs go from blue over white, which is 0, to red; others from dark to light over their own range.
    What is zero on and below the diagonal shows unordered pairs, and that half stays empty; a diagonal that is one
    number, such as a vector's cosine with itself, does not stretch the scale. `framed` pairs of fields get a frame.
    """
    side = MARGIN + CELL * max(len(names), 8)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        axes = figure.add_subplot()
        shown, low, high = scaled(matrix)
        colours = DIVERGING if low < 0 < high else RISING
        image = axes.imshow(shown, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        rows, columns = (range(size) for size in matrix.shape)
        across = [plain(name) for name in names] if matrix.shape[0] == matrix.shape[1] else [*map(str, columns)]
        axes.set_xticks(columns, labels=across, rotation=90)
        axes.set_yticks(rows, labels=[plain(name) for name in names])
        axes.tick_params(length=0)
        axes.set_xlabel(words.columns)
        axes.set_ylabel(words.rows)
        beyond = "max" if np.nanmax(shown) > high else "neither"
        figure.colorbar(image, ax=axes, shrink=0.6, extend=beyond, label=plain(words.value))
        for row, column in framed:
            if np.isfinite(shown[row, column]):
                cell = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=FRAMES[colours], linewidth=1.4)
                axes.add_patch(cell)
        axes.set_title(plain(title), fontsize=9)
    return figure


def scaled(matrix: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The matrix with NaN where nothing is to be seen, and the ends of its scale: symmetric where signs differ."""
    shown = np.array(matrix, float)
    square = shown.shape[0] == shown.shape[1] > 1
    if square and not np.tril(shown).any() and shown.any():
        shown[np.tril_indices(len(shown))] = np.nan
    counted = shown[np.isfinite(shown)]
    if square and np.ptp(np.diag(shown)) < SAME * np.abs(counted).max():  # NaN is not
        counted = shown[~np.eye(len(shown), dtype=bool)]
    low, high = float(counted.min()), float(counted.max())
    if low < 0 < high:
        low, high = -max(-low, high), max(-low, high)
    return shown, low, high if high > low else low + (abs(low) or 1.0)


def field_map(names: Sequence[str], vectors: np.ndarray, title: str) -> Figure:
    """The first two principal components of (F, E) vectors, both axes at one scale."""
    points, share = principal(vectors)
    with drawing():
        figure = Figure(figsize=(8, 8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.scatter(*points.T, s=10, color=DOT)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.12)
        axes.set_xlabel("first principal component")
        axes.set_ylabel("second principal component")
        axes.set_title(plain(f"{title}; {share:.0%} of the variance"), fontsize=9)
        figure.draw_without_rendering()  # from here on it is known where things lie
        figure.set_layout_engine("none")
        _label(axes, [plain(name) for name in names], points)
    return figure


def _label(axes: Axes, names: Sequence[str], points: np.ndarray) -> None:
    """Each name near its point, inside the frame, over no other name and no point; the most crowded ones first."""
    pixels = axes.transData.transform(points)
    taken = [Bbox.from_bounds(x - DOT_ROOM, y - DOT_ROOM, 2 * DOT_ROOM, 2 * DOT_ROOM) for x, y in pixels]
    distance = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    for i in np.argsort(np.sort(distance, axis=1)[:, 1 : 1 + NEIGHBOURS].mean(1)):
        text = axes.annotate(
            names[i], points[i], xytext=(0, 0), textcoords="offset pixels", fontsize=7, va="bottom", ha="left",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.6", "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
        size = np.asarray(Text.get_window_extent(text).size)
        at = _free(pixels[i], size, taken, axes.bbox)
        text.set_position(tuple(at - pixels[i]))
        taken.append(Bbox.from_bounds(*at, *size))


def _free(point: np.ndarray, size: np.ndarray, taken: Sequence[Bbox], frame: BboxBase) -> np.ndarray:
    """The lower left corner, nearest to a point, of a box of this size that covers nothing taken; else beside it."""
    corners = np.array([bounds.bounds for bounds in taken])  # x, y, width, height
    for radius in range(4, 400, 6):
        for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
            reach = np.array([np.cos(angle), np.sin(angle)])
            at = point + radius * reach - size * (1 - reach) / 2  # the side that faces the point is near it
            inside = (at > (frame.x0, frame.y0)).all() and (at + size < (frame.x1, frame.y1)).all()
            apart = (corners[:, :2] > at + size) | (corners[:, :2] + corners[:, 2:] < at)
            if inside and apart.any(axis=1).all():
                return at
    return point


def principal(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """(F, 2) coordinates along the two directions of most variance, and their share of it."""
    left, scale, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    points = np.zeros((len(vectors), 2))
    points[:, : len(scale)] = (left * scale)[:, :2]
    return points, float((scale[:2] ** 2).sum() / max(float((scale**2).sum()), 1e-12))


@contextlib.contextmanager
def drawing() -> Generator[None]:
    """The settings of all pictures; a field's name may be in any script, and no font has all of them."""
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def save(figure: Figure, stem: Path) -> Path:
    """Write stem.svg and stem.png, each whole or not at all; gives the PNG's path."""
    png = stem.with_name(f"{stem.name}.png")
    with drawing():
        for path, metadata in ((stem.with_name(f"{stem.name}.svg"), {"Date": None}), (png, {})):
            with replacing(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
            figure.set_layout_engine("none")  # it is laid out by now: a third of the cost of the other file
    return png


def plain(text: str) -> str:
    """A text without mathtext: a dollar in a field's name is a dollar."""
    return text.replace("$", r"\$")

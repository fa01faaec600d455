"""The weight that a model gives to each pair of fields, as one SVG: no plotting library, sharp at any size."""

from collections.abc import Sequence
from html import escape

import numpy as np

CELL = 14  # pixels
NEGATIVE, POSITIVE = (33, 102, 172), (178, 24, 43)  # blue and red, equally dark; zero is white


def field_pair_heatmap(names: Sequence[str], weight: np.ndarray, title: str) -> str:
    """SVG of a (F, F) matrix: row = query (or first) field, column = key field; colours scaled to the largest |weight|.

    Each cell's tooltip has its pair and value. A matrix that is zero on and below the diagonal shows unordered pairs.
    """
    margin = 8 + round(6.2 * max(map(len, names)))
    side = margin + CELL * len(names)
    largest = float(np.abs(weight).max()) or 1.0
    scale = f"colours from {-largest:.3g} (blue) to {largest:.3g} (red)"
    width, height = max(side + 8, 16 + 7 * max(len(title), len(scale))), side + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="16" font-size="12">{escape(title)}</text>',
        f'<text x="8" y="31">{scale}</text>',
        f'<g transform="translate({margin} {margin + 40})">',
    ]
    for i, row in enumerate(names):
        middle = CELL * i + CELL * 0.72
        parts.append(f'<text x="-4" y="{middle}" text-anchor="end">{escape(row)}</text>')
        parts.append(f'<text transform="translate({middle} -4) rotate(-90)">{escape(row)}</text>')
        parts += [_cell(i, j, float(weight[i, j]), largest, f"{row} - {names[j]}") for j in range(len(names))]
    return "\n".join([*parts, "</g></svg>"])


def _cell(i: int, j: int, value: float, largest: float, pair: str) -> str:
    strength = abs(value) / largest
    end = POSITIVE if value > 0 else NEGATIVE
    colour = ",".join(str(round(255 + (channel - 255) * strength)) for channel in end)
    return (
        f'<rect x="{CELL * j}" y="{CELL * i}" width="{CELL - 1}" height="{CELL - 1}" fill="rgb({colour})">'
        f"<title>{escape(pair)}: {value:.4g}</title></rect>"
    )

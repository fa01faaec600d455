"""Fields as points: the two directions in which their vectors differ most, as one SVG."""

from collections.abc import Sequence
from html import escape

import numpy as np

SIDE, MARGIN = 640, 60  # pixels


def field_map(names: Sequence[str], vectors: np.ndarray, title: str) -> str:
    """SVG of the first two principal components of (F, E) vectors, both axes at one scale."""
    centred = vectors - vectors.mean(0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(names), 2))
    points[:, : len(scale)] = (left * scale)[:, :2]
    share = (scale[:2] ** 2).sum() / max(float((scale**2).sum()), 1e-12)
    places = MARGIN + (SIDE - 2 * MARGIN) * (points - points.min(0)) / max(float(np.ptp(points, axis=0).max()), 1e-12)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" height="{SIDE}" '
        'font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="16" font-size="12">{escape(title)}; {share:.0%} of the variance</text>',
    ]
    for name, (x, y) in zip(names, places, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="rgb(33,102,172)"/>')
        parts.append(f'<text x="{x + 5:.1f}" y="{y + 3:.1f}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"])

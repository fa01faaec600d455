"""The map of fields is well-formed, names all, and keeps distances in the plane."""

from xml.etree import ElementTree

import numpy as np
import pytest

from fieldctr.analysis.field_map import field_map

SVG = "{http://www.w3.org/2000/svg}"


def places(svg: str) -> np.ndarray:
    circles = ElementTree.fromstring(svg).iter(f"{SVG}circle")
    return np.array([[float(circle.attrib["cx"]), float(circle.attrib["cy"])] for circle in circles])


def test_points_in_a_plane_keep_their_distances() -> None:
    flat = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [3.0, 1.0]])
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 2)))
    svg = field_map(["a<b", "c", "d", "e"], flat @ rotation.T, "map")
    drawn = places(svg)
    ratios = [
        np.linalg.norm(drawn[i] - drawn[j]) / np.linalg.norm(flat[i] - flat[j]) for i in range(4) for j in range(i)
    ]
    assert max(ratios) == pytest.approx(min(ratios), rel=0.01)
    assert "100% of the variance" in svg
    assert "a&lt;b" in svg


def test_equal_vectors_do_not_divide_by_zero() -> None:
    assert np.isfinite(places(field_map(["a", "b", "c"], np.ones((3, 4)), "map"))).all()

"""Pictures show the numbers that they were given, in both formats, the same bytes each time."""

import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from fieldctr.analysis.plots import Words, field_map, heatmap, principal, save, scaled

WORDS = Words("row", "column", "value")


def test_a_heatmap_is_its_matrix_under_its_names() -> None:
    matrix = np.array([[0.0, 2.0], [-1.0, 0.5]])
    figure = heatmap(["user", "a<b"], matrix, "w", WORDS, [(0, 1)])
    axes, bar = figure.axes
    image = axes.get_images()[0]
    assert np.array_equal(np.asarray(image.get_array()), matrix)
    assert image.get_clim() == (-2.0, 2.0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["user", "a<b"]
    assert (axes.get_ylabel(), axes.get_xlabel(), bar.get_ylabel()) == WORDS
    (frame,) = axes.patches
    assert frame.get_bbox().bounds == (0.5, -0.5, 1, 1)  # row 0, column 1


def test_a_scale_uses_its_range() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        attention = rng.dirichlet(np.ones(7), 7)
        _, low, high = scaled(attention)
        assert (low, high) == (attention.min(), attention.max())
        signed = rng.normal(size=(7, 7))
        _, low, high = scaled(signed)
        assert -low == high == np.abs(signed).max()
        vectors = rng.normal(size=(7, 20)) + 0.5
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = vectors @ vectors.T
        assert scaled(cosine)[2] == pytest.approx(np.abs(cosine - np.eye(7)).max())  # not 1, which says nothing
        shown, _, _ = scaled(np.triu(signed, 1))
        assert np.isnan(shown).sum() == 28


def test_names_in_a_map_lie_apart_and_inside_its_frame() -> None:
    rng = np.random.default_rng(1)
    for fields in (2, 12, 40):
        crowd = rng.normal(size=(fields, 6)) * rng.choice([0.02, 1, 3], size=(fields, 1))
        figure = field_map([f"number {i} of a long name" for i in range(fields)], crowd, "map")
        figure.draw_without_rendering()
        axes = figure.axes[0]
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        assert len(boxes) == fields
        for box in boxes:
            assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1
            assert axes.bbox.y0 <= box.y0 < box.y1 <= axes.bbox.y1
        for one, other in combinations(boxes, 2):
            assert not one.overlaps(other)


def test_all_zero_and_all_equal_can_be_drawn(tmp_path: Path) -> None:
    save(heatmap(["a"], np.zeros((1, 1)), "w", WORDS), tmp_path / "zero")
    save(field_map(["a", "b", "c"], np.ones((3, 4)), "map"), tmp_path / "one")
    assert {path.name for path in tmp_path.iterdir()} == {"zero.png", "zero.svg", "one.png", "one.svg"}


def test_points_in_a_plane_keep_their_distances() -> None:
    flat = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [3.0, 1.0]])
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 2)))
    drawn, share = principal(flat @ rotation.T)
    for i in range(4):
        for j in range(i):
            assert np.linalg.norm(drawn[i] - drawn[j]) == pytest.approx(np.linalg.norm(flat[i] - flat[j]))
    assert share == pytest.approx(1.0)


def test_names_of_any_script_are_drawn_without_a_word(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert save(field_map(["年龄", "b", ""], np.eye(3), "map"), tmp_path / "map").exists()


def test_names_are_text_and_equal_figures_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save(field_map(["a<b", "$price$", "年龄"], np.eye(3), "map"), tmp_path / name)
    svg = (tmp_path / "first.svg").read_text(encoding="utf-8")
    assert "a&lt;b" in svg
    assert "$price$" in svg
    assert svg == (tmp_path / "second.svg").read_text(encoding="utf-8")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()

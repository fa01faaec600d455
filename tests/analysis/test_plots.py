"""Pictures show the numbers that they were given, in both formats, the same bytes each time."""

from pathlib import Path

import numpy as np
import pytest

from fieldctr.analysis.plots import field_map, heatmap, principal, save


def test_a_heatmap_is_its_matrix_under_its_names() -> None:
    matrix = np.array([[0.0, 2.0], [-1.0, 0.5]])
    axes = heatmap(["user", "a<b"], matrix, "w").axes[0]
    image = axes.get_images()[0]
    assert np.array_equal(np.asarray(image.get_array()), matrix)
    assert image.get_clim() == (-2.0, 2.0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["user", "a<b"]


def test_all_zero_and_all_equal_can_be_drawn(tmp_path: Path) -> None:
    save(heatmap(["a"], np.zeros((1, 1)), "w"), tmp_path / "zero")
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


def test_names_are_text_and_equal_figures_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save(field_map(["a<b", "$price$", "年龄"], np.eye(3), "map"), tmp_path / name)
    svg = (tmp_path / "first.svg").read_text(encoding="utf-8")
    assert "a&lt;b" in svg
    assert "$price$" in svg
    assert svg == (tmp_path / "second.svg").read_text(encoding="utf-8")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()

"""The field-pair picture is well-formed and says each value."""

from xml.etree import ElementTree

import numpy as np

from fieldctr.analysis.heatmap import field_pair_heatmap


def test_each_cell_shows_its_pair_value_and_colour() -> None:
    svg = field_pair_heatmap(["user", "a<b"], np.array([[0.0, 2.0], [-1.0, 0.5]]), "w")
    cells = [rect for rect in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect") if len(rect)]
    titles = {rect[0].text: rect.get("fill") for rect in cells}
    assert titles["user - a<b: 2"] == "rgb(178,24,43)"
    assert titles["a<b - user: -1"] == "rgb(144,178,214)"
    assert titles["user - user: 0"] == "rgb(255,255,255)"


def test_all_zero_does_not_divide_by_zero() -> None:
    assert "255,255,255" in field_pair_heatmap(["a"], np.zeros((1, 1)), "w")

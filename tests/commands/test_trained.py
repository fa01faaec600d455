"""A run folder whose weights are damaged or another model's, or whose configuration names code."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fieldctr.commands.trained import fill, load_weights
from fieldctr.errors import UserError
from fieldctr.runs import MODEL


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 4096, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_file_that_is_no_safetensors_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(UserError, match=r"^warm_start=.*model\.safetensors cannot be read"):
        load_weights(tmp_path, key="warm_start")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^run=.*model\.safetensors cannot be read"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, r"weight weight is \(2, 4\) in .* and \(2, 3\) in"),
        ({"weight": torch.zeros(2, 3)}, "weight bias is absent in"),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)},
            r"weight x is \(1,\) in .*absent",
        ),
    ],
)
def test_the_first_weight_of_another_model_is_named(
    weights: dict[str, torch.Tensor], words: str, tmp_path: Path
) -> None:
    save_file(weights, tmp_path / MODEL)
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    with pytest.raises(UserError, match=words):
        fill(model, load_weights(tmp_path), tmp_path)
    assert torch.equal(model.weight, before)
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / MODEL)
    fill(model, load_weights(tmp_path), tmp_path)
    assert torch.equal(model.weight, torch.ones(2, 3))

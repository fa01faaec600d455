"""One learning rate for all widths: FAT and its control."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fieldctr.inputs import Inputs
from fieldctr.schema import Schema
from fieldctr.training.optim import lr_scales

Make = Callable[..., Any]

pytestmark = pytest.mark.filterwarnings("ignore:model.num_bases")


def moved_by_matrices(model: nn.Module, width: int, inputs: Inputs, schema: Schema, *, scaled: bool) -> float:
    """How far logits move, as a root mean square, when the matrices of the width take a step of Adam's size."""
    scales, generator = lr_scales(model, 16), torch.Generator().manual_seed(1)
    emb = 1e-4 * torch.randn(len(inputs.ids), schema.num_fields, width, generator=generator)
    before = model(emb, inputs)
    before.sum().backward()
    with torch.no_grad():
        for weight in model.parameters():
            if id(weight) in scales and weight.grad is not None:
                weight.sub_(3e-4 * (scales[id(weight)] if scaled else 1.0) * weight.grad.sign())
        return float((model(emb, inputs) - before).square().mean().sqrt())


@pytest.mark.parametrize("name", ["fat", "transformer"])
def test_one_rate_moves_narrow_and_wide_models_alike(name: str, backbone: Make, schema: Schema, inputs: Inputs) -> None:
    """Steps of a wide model's matrices add up over its width: all at one rate, its logits leap."""
    step = {
        (width, scaled): moved_by_matrices(
            backbone(name, schema, width, scrambled=False), width, inputs, schema, scaled=scaled
        )
        for width in (16, 256)
        for scaled in (True, False)
    }
    assert step[256, True] < 6 * step[16, True]
    assert step[256, False] > 20 * step[16, False]


def test_what_multiplies_no_width_learns_at_the_rate_itself(backbone: Make, schema: Schema) -> None:
    model = backbone("fat", schema, 8, width=64, output_projection=True)
    scales = lr_scales(model, 16)
    whole = {name for name, weight in model.named_parameters() if scales.get(id(weight), 1.0) == 1.0}
    slow = {name for name, weight in model.named_parameters() if scales.get(id(weight)) == 16 / 64}
    assert {name.partition(".")[0] for name in slow} == {"own", "common", "readout"}
    assert whole >= {"own.0.meta", "own.0.router.q", "widen.weight.token", "field_bias", "pair_weight"}
    assert len(whole) + len(slow) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["fat", "transformer"])
def test_narrow_models_are_left_alone(name: str, backbone: Make, schema: Schema) -> None:
    for width in (8, 16):
        assert set(lr_scales(backbone(name, schema, width), 16).values()) == {1.0}

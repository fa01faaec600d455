"""Layers computed again in the backward pass: the same gradients from fewer kept activations."""

from types import ModuleType
from typing import Any

import pytest
import torch

from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.schema import Field, Schema
from fieldctr.training.recompute import keep_activations, recompute_layers
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Trainer

SCHEMA = Schema(tuple(Field(f"f{i}", size) for i, size in enumerate((40, 12, 7))))
TRANSFORMER: dict[str, Any] = {
    "_target_": "fieldctr.models.transformer.Transformer", "embedding_std": 0.1, "num_layers": 3, "num_heads": 2,
    "ffn_dim": 32, "pooling": "sum", "field_bias_std": 0.5, "dropout": 0.3,
}  # fmt: skip
FM = {"_target_": "fieldctr.models.fm.FM", "embedding_std": 0.1}


def made(node: dict[str, Any]) -> CTRModel:
    return build_model(SCHEMA, dim=8, model=node, enhancer=None, seed=1)


def gradients(model: CTRModel) -> tuple[dict[str, torch.Tensor], int]:
    """Of one batch, and the numbers that were kept for them."""
    torch.manual_seed(4)  # dropout
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.numel()), x)[1], lambda x: x):
        loss = model(Inputs(torch.randint(1, 7, (64, 3), dtype=torch.int32))).logit.square().sum()
    loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}, sum(kept)


def test_gradients_are_equal_and_less_is_kept() -> None:
    plain, thrifty = made(TRANSFORMER), made(TRANSFORMER)
    recompute_layers(thrifty)
    (wanted, much), (found, little) = gradients(plain), gradients(thrifty)
    assert little < much / 3
    assert set(wanted) == set(found)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    keep_activations(thrifty)
    assert gradients(made(TRANSFORMER))[1] == gradients(thrifty)[1] == much


def test_a_fit_ends_with_equal_weights_and_an_ordinary_model(planted: ModuleType, runtime: Runtime) -> None:
    states = []
    for thrifty in (False, True):
        settings = planted.trainer_config(activation_checkpointing=thrifty, max_epochs=1)
        model = made(TRANSFORMER)
        Trainer(settings, planted.optimizer_config(), runtime, seed=3).fit(
            model, planted.split(500, 1), planted.split(200, 2)
        )
        states.append(model.state_dict())
        assert not any("forward" in vars(module) for module in model.modules())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_backbone_without_layers_is_refused() -> None:
    with pytest.raises(UserError, match="FM has no layers to compute again"):
        recompute_layers(made(FM))

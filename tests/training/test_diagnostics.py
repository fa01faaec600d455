"""What is logged of a model's inside: gradients, effective rank, and that looking changes nothing."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.models.hooks import Diagnostics
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.schema import Field, Schema
from fieldctr.training.diagnostics import diagnose, diagnostics, effective_rank, gradient_norms
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Trainer

SCHEMA = Schema(tuple(Field(f"f{i}", size) for i, size in enumerate((40, 12, 7))))
DEEPFM: dict[str, Any] = {
    "_target_": "fieldctr.models.deepfm.DeepFM", "embedding_std": 0.1, "hidden_dims": [8], "dropout": 0.5,
    "batch_norm": False,
}  # fmt: skip


class Talking(nn.Module):
    """A backbone that says something of itself."""

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return (emb.sum(1) * self.weight).sum(1)

    def diagnostics(self, emb: Tensor, inputs: Inputs) -> Diagnostics:
        return Diagnostics({"rows": float(len(emb))}, {"eye": torch.eye(3)}, ["look"])


pytestmark = pytest.mark.usefixtures("trust_tests")
TALKING = {"_target_": f"{__name__}.Talking", "embedding_std": 0.1}


def made(node: dict[str, Any]) -> CTRModel:
    return build_model(SCHEMA, dim=4, model=node, enhancer=None, seed=1)


@pytest.fixture
def batch() -> tuple[Inputs, Tensor]:
    return Inputs(torch.randint(1, 7, (32, 3), dtype=torch.int32)), (torch.rand(32) < 0.5).float()


def test_gradient_norms_are_those_of_a_backward_pass(batch: tuple[Inputs, Tensor]) -> None:
    model = made(DEEPFM).eval()
    found = gradient_norms(model, *batch)
    assert all(weight.grad is None for weight in model.parameters())
    nn.functional.binary_cross_entropy_with_logits(model(batch[0]).logit, batch[1]).backward()
    for part, norm in found.items():
        own = [w.grad.flatten() for name, w in model.named_parameters() if name.startswith(part) and w.grad is not None]
        assert norm == pytest.approx(float(torch.cat(own).norm()), rel=1e-5)
    assert {part.split(".")[0] for part in found} == {"embedding", "backbone"}
    for table in (module for module in model.modules() if isinstance(module, EmbeddingTable)):
        table.sparse = True
    assert gradient_norms(model, *batch) == pytest.approx(found, rel=1e-5)


def test_effective_rank_counts_directions() -> None:
    basis = torch.linalg.qr(torch.randn(8, 8)).Q
    for rank in (1, 3, 8):
        rows = torch.cat([basis[:rank], -basis[:rank]])
        assert effective_rank(rows.unsqueeze(1)) == pytest.approx(rank, abs=1e-3)
    apart = torch.stack([torch.zeros(4, 8), torch.ones(4, 8) * 5], dim=1)
    assert effective_rank(apart) == 0.0  # fields differ, features do not


def test_looking_changes_nothing(batch: tuple[Inputs, Tensor]) -> None:
    model = made(DEEPFM).train()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    assert diagnose(model, *batch) == diagnose(model, *batch)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_what_a_backbone_says_is_logged_at_each_evaluation(
    planted: ModuleType, runtime: Runtime, batch: tuple[Inputs, Tensor]
) -> None:
    model, settings = made(TALKING), planted.trainer_config(max_epochs=1)
    fit = Trainer(settings, planted.optimizer_config(), runtime, seed=3).fit(
        model, planted.split(500, 1), planted.split(200, 2)
    )
    assert all(record["diagnostics/rows"] == 500 for record in fit.history)
    assert "diagnostics/grad_norm/backbone.weight" in fit.history[0]
    found = diagnostics(model, batch[0])
    assert found is not None
    assert found.warnings == ["look"]
    assert diagnostics(made(DEEPFM), batch[0]) is None

"""The costs of a step, counted from shapes: against formulas, and against what a real step keeps."""

from types import ModuleType
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from fieldctr.catalog import conf_dir
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.schema import Field, Schema
from fieldctr.training.costs import Costs, LiveTensors, moment_bytes, step_costs
from fieldctr.training.runtime import Runtime

FIELDS, DIM, BATCH = 8, 16, 256
SCHEMA = Schema(tuple(Field(f"f{i}", 50, width=1 + (i == 2)) for i in range(FIELDS)))


@pytest.fixture(scope="module")
def node() -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose("bench_train", ["model=fat"]), resolve=True)["model"]  # ty: ignore


def costs(node: dict[str, Any], planted: ModuleType, runtime: Runtime, **settings: Any) -> Costs:
    def build() -> CTRModel:
        return build_model(SCHEMA, dim=DIM, model=node, enhancer=None, seed=1)

    return step_costs(
        build,
        SCHEMA,
        planted.trainer_config(**settings),
        runtime,
        optimizer=planted.optimizer_config(),
        batch_size=BATCH,
    )


def test_flops_are_those_of_the_products(node: dict[str, Any], planted: ModuleType, runtime: Runtime) -> None:
    found, layers, bases = costs(node, planted, runtime), node["num_layers"], 4
    matrices = 3 * DIM**2 + 2 * DIM * 4 * DIM
    per_sample = layers * 2 * (FIELDS * matrices + 2 * FIELDS**2 * DIM) + 2 * 2 * DIM  # and the mean of two values
    composing = 2 * FIELDS * bases * matrices + 5 * 2 * FIELDS * node["meta_dim"] * bases
    assert found.forward_flops == BATCH * per_sample + composing
    assert found.flops == 3 * found.forward_flops - BATCH * 4 * DIM  # the mean has no weights to learn


def test_state_is_five_copies_of_the_weights_or_four(
    node: dict[str, Any], planted: ModuleType, runtime: Runtime
) -> None:
    plain = costs(node, planted, runtime, ema_decay=None)
    assert plain.state_mb == pytest.approx(4 * 4 * plain.parameters["total"] / 2**20)
    assert costs(node, planted, runtime).state_mb == pytest.approx(1.25 * plain.state_mb)


def test_moments_are_those_of_each_rule(planted: ModuleType) -> None:
    model = nn.ModuleDict({"table": EmbeddingTable(100, 8, init_std=0.0), "wide": nn.Linear(80, 70, bias=False)})
    model["narrow"] = nn.Linear(80, 8, bias=False)
    numbers = {"table": 800, "wide": 5600, "narrow": 640}
    rules = [({}, 2 * sum(numbers.values())), ({"embedding_rule": "rowwise_adagrad"}, 100 + 2 * (5600 + 640))]
    rules.append(({"matrix_rule": "muon"}, 2 * (800 + 640) + 5600))
    for words, expected in rules:
        assert moment_bytes(model, planted.optimizer_config(**words)) == 4 * expected


def test_layers_computed_again_take_less_memory_and_more_flops(
    node: dict[str, Any], planted: ModuleType, runtime: Runtime
) -> None:
    deep = node | {"num_layers": 8}
    plain, thrifty = costs(deep, planted, runtime), costs(deep, planted, runtime, activation_checkpointing=True)
    assert thrifty.step_mb < 0.4 * plain.step_mb
    assert plain.flops < thrifty.flops < 1.4 * plain.flops


def test_live_tensors_are_counted_until_they_are_freed() -> None:
    with LiveTensors() as live:
        a = torch.zeros(1000)
        b = a * 2
        view = b.view(10, 100)
        a.add_(1)
        assert live.live == live.peak == 8000
        del b, view
        c = a + 1
        assert (live.live, live.peak) == (8000, 8000)
        (c * a).sum()
        assert live.peak == 12_004

"""Five sizes of FAT: their counts are the formula's, to the unit, without ever being in memory."""

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fieldctr.catalog import conf_dir, headline
from fieldctr.models.ctr_model import build_model
from fieldctr.schema import Field, Schema

RUNGS = {"fat_xs": 0.1e6, "fat_s": 1e6, "fat_m": 50e6, "fat_l": 540e6, "fat_xl": 1500e6}


def dense(num_fields: int, dim: int, *, num_layers: int, top_k: int, meta_dim: int) -> int:
    """Bases, meta-embeddings and routers, pair weights, field biases, norms, and the linear head."""
    bases = max(top_k + 1, -(-num_fields // 2))
    matrices = 3 * dim**2 + 2 * dim * 4 * dim
    meta = num_fields * meta_dim + 5 * meta_dim * bases
    return bases * matrices + meta + num_fields**2 + num_fields * dim + num_layers * 4 * dim + dim + 1


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    return node


@pytest.mark.slow
@pytest.mark.parametrize(("name", "about"), RUNGS.items())
def test_the_counts_of_a_rung_are_the_formula_s(name: str, about: float) -> None:
    config = composed(f"model={name}")
    for num_fields in (40, 21):
        schema = Schema(tuple(Field(f"f{i}", 100) for i in range(num_fields)))
        with torch.device("meta"):
            model = build_model(schema, dim=config["embedding_dim"], model=config["model"], enhancer=None, seed=1)
        keys = {key: config["model"][key] for key in ("num_layers", "top_k", "meta_dim")}
        assert model.num_parameters()["dense"] == dense(num_fields, config["embedding_dim"], **keys)
    at_40 = dense(40, config["embedding_dim"], **keys)
    assert abs(at_40 / about - 1) < 0.1
    assert f"({at_40:,})" in headline("model", name)


def test_the_command_line_wins_over_a_rung_s_width() -> None:
    assert composed("model=fat_s", "embedding_dim=32")["embedding_dim"] == 32
    assert composed("model=fat_s")["embedding_dim"] == 64
    assert composed("model=fat")["embedding_dim"] == 16


@pytest.mark.slow
def test_a_rung_differs_from_fat_in_width_heads_and_the_paper_s_depth_and_pooling_only() -> None:
    fat = composed("model=fat", "tuned=none")["model"]
    for name in RUNGS:
        rung = composed(f"model={name}")["model"]
        assert (rung["num_layers"], rung["pooling"]) == (2, "sum")
        assert rung | {key: fat[key] for key in ("num_heads", "num_layers", "pooling")} == fat

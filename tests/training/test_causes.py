"""A numeric field that blows up a fit is named, with its largest value and the cure."""

import warnings
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.schema import Field, Schema
from fieldctr.training.causes import causes
from fieldctr.training.evaluate import evaluate
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Fit, Trainer

SCHEMA = Schema((Field("user", 9), Field("age", 2, numeric=True), Field("income", 2, numeric=True)))
NODES: dict[str, dict[str, Any]] = {
    "lr": {"_target_": "fieldctr.models.lr.LR"},
    "fm": {"_target_": "fieldctr.models.fm.FM", "embedding_std": 1.0},
    "dcnv2": {
        "_target_": "fieldctr.models.dcnv2.DCNv2", "embedding_std": 0.1,
        "num_layers": 3, "hidden_dims": [8], "dropout": 0.0, "batch_norm": False,
    },
}  # fmt: skip


def rows(largest: float, count: int = 600, seed: int = 0) -> Split:
    """Incomes up to `largest`, an eighth of them without one."""
    generator = np.random.default_rng(seed)
    ids = np.stack([generator.integers(0, 9, count), *(generator.integers(0, 8, (2, count)) > 0)], axis=1)
    values = np.stack([generator.normal(size=count), generator.uniform(-1, 1, count) * largest], axis=1)
    values[0, 1], ids[0, 2] = -largest, 1
    label = (generator.random(count) < 0.4).astype(np.float32)
    return Split(ids.astype(np.int32), label, (values * ids[:, 1:]).astype(np.float32))


def model(name: str) -> CTRModel:
    return build_model(SCHEMA, dim=4, model=NODES[name], enhancer=None, seed=1)


def fit(planted: ModuleType, runtime: Runtime, name: str, train: Split, valid: Split) -> Fit:
    settings = planted.trainer_config(batch_size=100, max_epochs=4)
    return Trainer(settings, planted.optimizer_config(), runtime, seed=1).fit(model(name), train, valid)


def complaint(planted: ModuleType, runtime: Runtime, name: str, train: Split, valid: Split) -> str:
    """What the fit says, as an error or as its only warning."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            fit(planted, runtime, name, train, valid)
        except UserError as error:
            return str(error)
    assert len(said) <= 1
    return str(said[0].message) if said else ""


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("largest", [1e5, 5e9, 1e25, 1e38])
def test_an_unscaled_field_is_named(name: str, largest: float, planted: ModuleType, runtime: Runtime) -> None:
    said = complaint(planted, runtime, name, rows(largest), rows(largest, seed=1))
    assert f"numeric field 'income' has values up to {-largest:.3g}: give it scale: standard" in said
    assert "age" not in said.replace("average", "")


@pytest.mark.parametrize("name", NODES)
def test_a_field_that_only_valid_blows_up_is_named(name: str, planted: ModuleType, runtime: Runtime) -> None:
    assert "'income' has values up to -1e+30" in complaint(planted, runtime, name, rows(1.0), rows(1e30, seed=1))


@pytest.mark.parametrize("name", NODES)
def test_scaled_fields_are_not_accused(name: str, planted: ModuleType, runtime: Runtime) -> None:
    assert complaint(planted, runtime, name, rows(3.0), rows(3.0, seed=1)) == ""


def test_evaluation_names_the_field_too(runtime: Runtime) -> None:
    with pytest.raises(UserError, match=r"logits are not finite numbers\. Likely cause: numeric field 'income'"):
        evaluate(model("dcnv2"), rows(1e38), batch_size=64, runtime=runtime)


def test_without_large_numbers_other_causes_are_said() -> None:
    small, split = model("fm"), rows(1e3)
    assert (
        causes(small, split)
        == causes(small, replace(split, values=None))
        == ("Likely causes: optimizer.lr too high, or a large initial scale (model.embedding_std)")
    )
    assert "kind: quantile" in causes(small, rows(1.1e3))

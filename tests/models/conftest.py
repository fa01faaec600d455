"""Tables and batches for the tests of models, and the models' YAML files."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from fieldctr.catalog import conf_dir
from fieldctr.config import build
from fieldctr.inputs import Inputs
from fieldctr.models.contract import batch_of
from fieldctr.models.ctr_model import KINDS, SOURCE
from fieldctr.schema import Field, Schema

FIELDS = (
    Field("user", 9),
    Field("tags", 6, width=3),
    Field("price", 2, numeric=True),
    Field("item", 7),
    Field("hour", 4),
)


@cache
def model_node(name: str, group: str = "model") -> dict[str, Any]:
    """The node `model`, or that of another group, as a command composes it: an option can start from another one."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("bench_train", [f"{group}={name}"]), resolve=True)
    return node[group]


def scramble(module: nn.Module, seed: int = 5) -> None:
    """Give every parameter a visible value, so that no term hides behind a start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)


@pytest.fixture
def schema() -> Schema:
    return Schema(FIELDS)


@pytest.fixture
def inputs(schema: Schema) -> Inputs:
    return batch_of(schema, 12)


@pytest.fixture
def batch() -> Callable[..., Inputs]:
    return batch_of


@pytest.fixture
def node() -> Callable[[str], dict[str, Any]]:
    """The YAML of a model as a mapping."""
    return model_node


@pytest.fixture
def backbone() -> Callable[..., Any]:
    """backbone(name, schema, dim, key=value ...): the model's YAML with some keys replaced, scrambled."""

    def make(
        name: str, schema: Schema, dim: int, *runtime: torch.Tensor, scrambled: bool = True, **options: object
    ) -> Any:
        node = {key: value for key, value in model_node(name).items() if key not in ("embedding_std", *SOURCE)}
        module = build(node | options, "model", schema, dim, *runtime, kind=KINDS["model"])
        if scrambled:
            scramble(module)
        return module.eval()

    return make

"""The datasets of conf/ as nodes."""

from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fieldctr.catalog import conf_dir


@pytest.fixture(scope="session")
def dataset_node() -> Callable[..., dict[str, Any]]:
    """dataset_node(name, key, ...): the composed node of a dataset, with overrides such as dataset.published=null."""

    def node(name: str, *overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config: Any = OmegaConf.to_container(compose("prepare", [f"dataset={name}", *overrides]), resolve=True)
        return config["dataset"]

    return node

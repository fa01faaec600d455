"""An encoder node that needs no download, and values of a few fields."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fieldctr import processor
from fieldctr.catalog import conf_dir
from fieldctr.config import EncoderConfig, parse
from fieldctr.data.values import FieldValues
from fieldctr.llm.encoder import Encoder, load_encoder

NAMES = ["colour", "size", "city"]


@cache
def node(name: str) -> dict[str, Any]:
    """As composed: an option may start from another."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed: Any = OmegaConf.to_container(compose("ssft", [f"encoder={name}"]).encoder)
    return composed


def encoder_config(name: str = "tiny_llama", **changes: Any) -> EncoderConfig:
    config = parse(EncoderConfig, node(name), "encoder")
    tuning = {key: changes.pop(key) for key in list(changes) if key in node(name)["tuning"]}
    return replace(config, **changes, tuning=replace(config.tuning, **tuning))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=[True, False], ids=["native_bf16", "emulated_bf16"])
def native_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor that multiplies bf16 numbers itself, then one that does not, whichever is here."""
    monkeypatch.setattr(processor, "native_bf16", lambda: request.param)
    return request.param


@pytest.fixture
def config() -> Callable[..., EncoderConfig]:
    """config(name, key=value ...): an encoder's YAML with keys of it or of its tuning replaced."""
    return encoder_config


@pytest.fixture
def loaded() -> Callable[[EncoderConfig], Encoder]:
    """An encoder of a kind that needs no conversion, on the CPU."""
    return lambda chosen: load_encoder(chosen, torch.device("cpu"), converted=Path("nowhere"))


@pytest.fixture
def names() -> list[str]:
    return list(NAMES)


@pytest.fixture
def values() -> list[FieldValues]:
    """Colours of ten letters, sizes of digits, cities in capitals; 'x' is a colour and a city."""
    texts = [
        [*(letter * 10 for letter in "abcdefghi"), "x"],
        [str(number * number + 100) for number in range(20)],
        [*(f"{letter}{letter}{letter}" for letter in "ABCDEFGHIJKLMNOPQRS"), "x"],
    ]
    return [FieldValues(own, np.arange(len(own), 0, -1)) for own in texts]

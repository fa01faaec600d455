"""Every model with every enhancer, on fields of all kinds and of each: it takes a step, or is refused in words."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from own_keys import enhancers

from fieldctr.catalog import conf_dir, options
from fieldctr.commands.entity_vectors import drawn_texts
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.config import OptimizerConfig, parse
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import adds_fields, build_model, pretrains, reads_field_embeddings, refuse_misfits
from fieldctr.schema import Field, Schema
from fieldctr.training.loss import batch_loss
from fieldctr.training.optim import Optimizer

Node = Callable[[str], dict[str, Any]]
TEXT = (Field("user", 9), Field("item", 7), Field("hour", 4))
KINDS = {
    "text": TEXT,
    "numeric": (*TEXT, Field("price", 2, numeric=True)),
    "numeric_alone": (Field("price", 2, numeric=True), Field("age", 2, numeric=True)),
    "multi": (*TEXT, Field("tags", 6, width=3)),
    "history": (*TEXT, Field("past", 7, width=3, shares="item")),
    "vector": (*TEXT, Field("image", 5, vector=3)),
    "vector_alone": (Field("image", 5, vector=3), Field("sound", 4, vector=2)),
}
EVERYTHING = tuple(dict.fromkeys(field for kind in ("numeric", "multi", "vector", "history") for field in KINDS[kind]))
NARROW = {  # what takes long at the width of the YAML, or is more than the few fields here have
    "finalmlp": {"first_dims": [32], "second_dims": [32, 32], "gate_dims": [16]},
    "rankmixer": {"num_tokens": 4, "token_dim": 16},
    "xdeepfm": {"cin_dims": [8], "hidden_dims": [32]},
}
ENHANCERS = enhancers()
REPRESENTED = ("fm", "deepfm", "dnn", "dcnv2", "autoint")  # models with what CTRL aligns
WITHOUT_EMBEDDINGS = {"lr": "LR", "ffm": "FFM"}

pytestmark = pytest.mark.filterwarnings("ignore:model.num_bases")  # small tables have as many bases as fields


@cache
def composed(*words: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("bench_train", list(words)), resolve=True)
    return node


def step(model_node: dict[str, Any], enhancer: dict[str, Any] | None, fields: tuple[Field, ...], batch: Any) -> None:
    """Build, and take a step of the default optimizer; all that is computed is finite."""
    schema, heads = Schema(fields), model_node.get("num_heads", 1)
    vectors = torch.randn(schema.num_fields, 12)
    model = build_model(
        schema,
        dim=heads * max(1, 8 // heads),
        model=model_node,
        enhancer=enhancer,
        seed=1,
        field_embeddings={"model": vectors, "enhancer": vectors},
        text_vectors=drawn_texts(schema),
        value_vectors=drawn_values(schema),
    )
    settings = parse(OptimizerConfig, composed()["optimizer"], "optimizer")
    optimizer = Optimizer(model.train(), settings, clip_norm=10.0, ema_decay=0.99)
    inputs: Inputs = batch(schema, 8)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = batch_loss(model(inputs), torch.arange(8) % 2.0)
    loss.backward()
    optimizer.step(0.01)
    assert loss.isfinite()
    assert any(not torch.equal(before[name], value) for name, value in model.named_parameters())
    with torch.no_grad():
        assert model.fold()(inputs).logit.isfinite().all()


def refusals(model: str, pairs: dict[str, Any], batch: Any, node: Node) -> dict[str, str]:
    """By what the model was paired with, in what words it was refused."""
    said = {}
    for name, (enhancer, fields) in pairs.items():
        try:
            step(node(model) | NARROW.get(model, {}), enhancer, fields, batch)
        except UserError as error:
            said[name] = str(error)
    return said


@pytest.mark.parametrize("model", options("model"))
def test_a_model_steps_with_every_enhancer_or_both_are_named(model: str, batch: Any, node: Node) -> None:
    pairs = {name: (composed(f"enhancer={name}")["enhancer"], EVERYTHING) for name in ENHANCERS}
    said = refusals(model, pairs, batch, node)
    adding = {name for name, (enhancer, _) in pairs.items() if adds_fields(enhancer)}
    before = {name for name, (enhancer, _) in pairs.items() if pretrains(enhancer)}
    bare, named = model in WITHOUT_EMBEDDINGS, reads_field_embeddings(node(model), "model")
    unfit = {
        f"works on feature embeddings, and {WITHOUT_EMBEDDINGS.get(model)} has none": bare
        and {*ENHANCERS} - adding - before,
        "adds have none": named and adding,
        r"has no representation\(\)": model not in REPRESENTED and before,
    }
    assert set(said) == {name for names in unfit.values() for name in names or ()}
    for why, names in unfit.items():
        for name in names or ():
            assert re.match(rf"model and enhancer do not fit together: .*{why}\. Take enhancer=none", said[name])
    for name in said:  # before anything is read or made: by the nodes alone, in the words of the call
        with pytest.raises(UserError, match=f"^model={model} and enhancer={name} do not fit together"):
            refuse_misfits(node(model), pairs[name][0], named=f"model={model} and enhancer={name}")


@pytest.mark.parametrize("model", options("model"))
def test_a_model_steps_on_every_kind_of_field_or_says_what_it_needs(model: str, batch: Any, node: Node) -> None:
    said = refusals(model, {kind: (None, fields) for kind, fields in KINDS.items()}, batch, node)
    assert set(said) == (set(KINDS) - {"history"} if model == "din" else set())
    for text in said.values():
        assert "model=din attends from a field to its history, and no field of this table is one" in text


def test_rankmixer_at_the_width_of_its_yaml_needs_a_number_for_each_token(batch: Any, node: Node) -> None:
    with pytest.raises(UserError, match=r"model\.num_tokens=8 exceeds the 6 numbers of all fields; lower it"):
        build_model(Schema(TEXT), dim=2, model=node("rankmixer"), enhancer=None, seed=1)

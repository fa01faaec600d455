"""What holds for every YAML in conf/model and conf/enhancer: the contract that `fieldctr check` runs, and more."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from own_keys import enhancers
from torch.testing import assert_close

from fieldctr.catalog import conf_dir, headline, options
from fieldctr.commands.entity_vectors import drawn_texts
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.contract import CONTRACTS, Contract, Make
from fieldctr.models.ctr_model import SOURCE, CTRModel, build_model
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.schema import Field, Schema
from fieldctr.training.diagnostics import diagnose
from fieldctr.training.first_bias import log_odds, start_at_click_rate

# A YAML with an embedding_dim is another model at a size of its own, too large to train here.
FILES = sorted((conf_dir() / "model").glob("*.yaml"))
NAMES = [path.stem for path in FILES if "embedding_dim:" not in path.read_text(encoding="utf-8")]
WIDTH = 32  # at most, here: as wide as their YAML says some take 2 to 18 s each
every_model = pytest.mark.parametrize("name", NAMES)
every_contract = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
Node = Callable[[str], dict[str, Any]]

pytestmark = pytest.mark.filterwarnings("ignore:model.num_bases")  # small tables have as many bases as fields


@pytest.fixture
def schema(schema: Schema) -> Schema:
    """With a history, which some models need, and two fields with one table."""
    return Schema((*schema.fields, Field("past", 7, width=3, shares="item"), Field("last", 7, shares="item")))


def made(
    node: dict[str, Any], schema: Schema, *, dim: int = 8, seed: int = 1, enhancer: dict[str, Any] | None = None
) -> CTRModel:
    vectors = torch.randn(schema.num_fields, 12, generator=torch.Generator().manual_seed(9))
    both = {"model": vectors, "enhancer": vectors}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        texts, values = drawn_texts(schema), drawn_values(schema)
    return build_model(
        schema,
        dim=dim,
        model=node,
        enhancer=enhancer,
        seed=seed,
        field_embeddings=both,
        text_vectors=texts,
        value_vectors=values,
    )


def maker(node: dict[str, Any], enhancer: dict[str, Any] | None = None) -> Make:
    return lambda schema, seed: made(node, schema, seed=seed, enhancer=enhancer)


def narrow(value: Any) -> Any:
    """A node with smaller whole numbers."""
    if isinstance(value, dict):
        return {key: narrow(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [narrow(inner) for inner in value]
    return min(value, WIDTH) if isinstance(value, int) and not isinstance(value, bool) else value


def test_there_are_models_and_enhancers() -> None:
    assert len(NAMES) > 15
    assert len(enhancers()) > 5


@every_model
def test_the_list_command_has_a_line_with_a_source(name: str) -> None:
    assert name in options("model")
    assert "arXiv:" in headline("model", name) or "doi:" in headline("model", name)


@pytest.mark.slow
@every_contract
@every_model
def test_a_model_keeps_its_contract(name: str, contract: Contract, node: Node) -> None:
    assert contract.broken(maker(narrow(node(name)))) == ""


@pytest.mark.slow
@every_contract
@pytest.mark.parametrize("name", enhancers())
def test_an_enhancer_keeps_its_contract(name: str, contract: Contract, node: Node) -> None:
    assert contract.broken(maker(node("fm"), node(name, "enhancer"))) == ""


@every_model
def test_a_stray_key_and_a_wrong_value_are_named(name: str, node: Node, schema: Schema) -> None:
    with pytest.raises(UserError, match=r"model\.surprise"):
        made(node(name) | {"surprise": 1}, schema)
    for key in set(node(name)) - {"_target_", *SOURCE}:  # the command checks where field embeddings come from
        with pytest.raises(UserError, match=rf"model\.{key}="):
            made(node(name) | {key: "surprise"}, schema)


@every_model
@pytest.mark.parametrize("rate", [0.003, 0.9])
def test_it_starts_at_the_click_rate_of_train(
    name: str, node: Node, schema: Schema, inputs: Inputs, rate: float
) -> None:
    rows = len(inputs.ids) * math.ceil(2000 / len(inputs.ids))
    values = None if inputs.values is None else inputs.values.numpy()
    label = (np.arange(rows) < rate * rows).astype(np.float32)
    train = Split(np.resize(inputs.ids.numpy(), (rows, inputs.ids.shape[1])), label, values)
    model = made(node(name), schema).eval()
    with torch.no_grad():
        drawn = model(inputs).logit
        start = start_at_click_rate(model, train)
        assert_close(model(inputs).logit, drawn + (start or 0), rtol=1e-4, atol=1e-4)
    assert start in (None, log_odds(train))  # None where its paper has no such bias
    assert log_odds(train) == pytest.approx(math.log(rate / (1 - rate)), abs=0.3)


@every_model
def test_a_table_of_one_field_is_refused_in_words_or_gives_finite_numbers(name: str, node: Node) -> None:
    schema = Schema((Field("user", 9),))
    try:
        model = made(node(name), schema)
    except UserError as error:
        if "no field of this table" not in str(error):
            raise
        return
    inputs = Inputs(torch.randint(9, (12, 1), dtype=torch.int32))
    numbers = diagnose(model, inputs, torch.arange(12) % 2.0)
    assert model(inputs).logit.isfinite().all()
    assert all(map(math.isfinite, numbers.values())), numbers


@every_model
def test_a_larger_vocabulary_adds_table_rows_only(name: str, node: Node, schema: Schema) -> None:
    wider = Schema((Field("user", 1009), *schema.fields[1:]))
    small, large = (made(node(name), s) for s in (schema, wider))
    assert small.num_parameters()["dense"] == large.num_parameters()["dense"]
    width = sum(table.weight.shape[1] for table in small.modules() if isinstance(table, EmbeddingTable))
    assert width > 0
    assert large.num_parameters()["embedding"] - small.num_parameters()["embedding"] == 1000 * width
    assert large.num_parameters()["total"] == sum(parameter.numel() for parameter in large.parameters())


@every_model
def test_every_weight_with_a_row_per_feature_is_a_table(name: str, node: Node, schema: Schema) -> None:
    model = made(node(name), schema)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, EmbeddingTable)}
    tall = [p for p in model.parameters() if p.ndim and p.shape[0] in (schema.vocab_size, schema.unshared().vocab_size)]
    assert {id(parameter) for parameter in tall} == tables

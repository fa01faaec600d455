"""What holds for every YAML in conf/model: it builds, is seeded, saves, and finds a planted pair of fields."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

from fieldctr.catalog import conf_dir, headline, options
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import SOURCE, CTRModel, build_model
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.schema import Field, Schema
from fieldctr.training.diagnostics import diagnose

# A YAML with an embedding_dim is another model at a size of its own, too large to train here.
FILES = sorted((conf_dir() / "model").glob("*.yaml"))
NAMES = [path.stem for path in FILES if "embedding_dim:" not in path.read_text(encoding="utf-8")]
NARROW = {  # as wide as their YAML says they take 2 to 18 s each
    "autoint": {"head_dim": 8},
    "dcnv2": {"hidden_dims": [32]},
    "din": {"attention_dims": [16], "hidden_dims": [32, 32]},
    "dnn": {"hidden_dims": [32, 32]},
    "finalmlp": {"first_dims": [32], "second_dims": [32, 32], "gate_dims": [16]},
    "hiformer": {"value_rank": 8},
    "rankmixer": {"num_tokens": 4, "token_dim": 16},
    "xdeepfm": {"cin_dims": [8], "hidden_dims": [32]},
}
FIRST_ORDER = ("lr", "fm", "fmfm", "deepfm", "ffm", "xdeepfm")  # models with one more weight per feature
REFUSES = {"din": "no field of this table is one"}  # a table of one field
every_model = pytest.mark.parametrize("name", NAMES)
Node = Callable[[str], dict[str, Any]]

pytestmark = pytest.mark.filterwarnings("ignore:model.num_bases")  # small tables have as many bases as fields


@pytest.fixture
def schema(schema: Schema) -> Schema:
    """With a history, which some models need, and two fields with one table."""
    return Schema((*schema.fields, Field("past", 7, width=3, shares="item"), Field("last", 7, shares="item")))


def made(node: dict[str, Any], schema: Schema, *, dim: int = 8, seed: int = 1) -> CTRModel:
    vectors = torch.randn(schema.num_fields, 12, generator=torch.Generator().manual_seed(9))
    return build_model(schema, dim=dim, model=node, enhancer=None, seed=seed, field_embeddings={"model": vectors})


def test_there_are_models() -> None:
    assert set(NAMES) >= {"lr", "fm", "fwfm", "fmfm", "deepfm", "transformer", "fat", "finalmlp", "wukong", *NARROW}


@every_model
def test_the_list_command_has_a_line_with_a_source(name: str) -> None:
    assert name in options("model")
    assert "arXiv:" in headline("model", name) or "doi:" in headline("model", name)


@every_model
def test_a_stray_key_and_a_wrong_value_are_named(name: str, node: Node, schema: Schema) -> None:
    with pytest.raises(UserError, match=r"model\.surprise"):
        made(node(name) | {"surprise": 1}, schema)
    for key in set(node(name)) - {"_target_", *SOURCE}:  # the command checks where field embeddings come from
        with pytest.raises(UserError, match=rf"model\.{key}="):
            made(node(name) | {key: "surprise"}, schema)


@every_model
def test_one_finite_logit_per_sample(name: str, node: Node, schema: Schema, inputs: Inputs) -> None:
    output = made(node(name), schema)(inputs)
    assert output.logit.shape == (len(inputs.ids),)
    assert output.logit.isfinite().all()
    assert output.penalty.shape == ()


@every_model
def test_a_table_of_one_field_is_refused_in_words_or_gives_finite_numbers(name: str, node: Node) -> None:
    schema = Schema((Field("user", 9),))
    if name in REFUSES:
        with pytest.raises(UserError, match=REFUSES[name]):
            made(node(name), schema)
        return
    model = made(node(name), schema)
    inputs = Inputs(torch.randint(9, (12, 1), dtype=torch.int32))
    numbers = diagnose(model, inputs, torch.arange(12) % 2.0)
    assert model(inputs).logit.isfinite().all()
    assert all(map(math.isfinite, numbers.values())), numbers


@every_model
def test_gradients_reach_every_parameter(name: str, node: Node, schema: Schema, inputs: Inputs) -> None:
    model = made(node(name) | ({"dropout": 0.0} if "dropout" in node(name) else {}), schema)
    (model(inputs).logit * torch.randn(len(inputs.ids))).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@every_model
def test_the_seed_decides_the_weights_and_leaves_no_trace(name: str, node: Node, schema: Schema) -> None:
    torch.manual_seed(11)
    first, state = made(node(name), schema).state_dict(), torch.get_rng_state()
    torch.manual_seed(11)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    again, other = made(node(name), schema).state_dict(), made(node(name), schema, seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    if name != "lr":  # starts at zero
        assert any(not torch.equal(first[key], other[key]) for key in first)


@every_model
def test_saved_weights_give_identical_logits(
    name: str, node: Node, schema: Schema, inputs: Inputs, tmp_path: Path
) -> None:
    model, other = made(node(name), schema).eval(), made(node(name), schema, seed=2).eval()
    with torch.no_grad():
        other(inputs)  # what a model remembers between evaluations must not survive the loading
        save_file(model.state_dict(), tmp_path / "weights.safetensors")
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        assert torch.equal(model(inputs).logit, other(inputs).logit)


@every_model
def test_the_folded_form_gives_the_same_logits(name: str, node: Node, schema: Schema, inputs: Inputs) -> None:
    model = made(node(name), schema).eval()
    with torch.no_grad():
        before = model(inputs).logit
        assert_close(model.fold()(inputs).logit, before, atol=1e-6, rtol=1e-6)


@every_model
def test_samples_do_not_see_each_other(name: str, node: Node, schema: Schema, inputs: Inputs) -> None:
    model, order = made(node(name), schema).eval(), torch.randperm(len(inputs.ids))
    shuffled = Inputs(inputs.ids[order], None if inputs.values is None else inputs.values[order])
    assert_close(model(shuffled).logit, model(inputs).logit[order], atol=1e-6, rtol=1e-5)


@every_model
def test_under_autocast_logits_keep_single_precision(name: str, node: Node, schema: Schema, inputs: Inputs) -> None:
    """Else logits of three digits tie in the AUC."""
    model = made(node(name), schema).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logit = model(inputs).logit
    assert logit.dtype == torch.float32
    assert (logit != logit.bfloat16()).all()


@every_model
def test_a_larger_vocabulary_adds_table_rows_only(name: str, node: Node, schema: Schema) -> None:
    wider = Schema((Field("user", 1009), *schema.fields[1:]))
    small, large = (made(node(name), s).num_parameters() for s in (schema, wider))
    assert small["dense"] == large["dense"]
    width = {"lr": 0, "ffm": 8 * (schema.num_fields - 1)}.get(name, 8) + (name in FIRST_ORDER)
    assert large["embedding"] - small["embedding"] == 1000 * width
    assert large["total"] == large["embedding"] + large["dense"]


@every_model
def test_every_weight_with_a_row_per_feature_is_a_table(name: str, node: Node, schema: Schema) -> None:
    model = made(node(name), schema)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, EmbeddingTable)}
    tall = [p for p in model.parameters() if p.ndim and p.shape[0] in (schema.vocab_size, schema.unshared().vocab_size)]
    assert {id(parameter) for parameter in tall} == tables


@pytest.mark.slow
@every_model
def test_a_planted_pair_is_found(name: str, node: Node) -> None:
    """The click is the XOR of two fields' parities; no field alone says anything about it."""
    plain = [Field(field, 9) for field in ("a", "noise", "b", "more")]
    schema = Schema((*plain, *([Field("past", 9, width=2, shares="more")] if name == "din" else [])))
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(1, 9, (2048, schema.num_columns), generator=generator, dtype=torch.int32)
    label = ((ids[:, 0] + ids[:, 2]) % 2).float()
    model, fresh = made(node(name) | NARROW.get(name, {}), schema), slice(1536, None)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in itertools.islice(itertools.cycle(range(6)), 200):
        rows = slice(256 * step, 256 * step + 256)
        adam.zero_grad()
        binary_cross_entropy_with_logits(model(Inputs(ids[rows])).logit, label[rows]).backward()
        adam.step()
    with torch.no_grad():
        found = auc(model.eval()(Inputs(ids[fresh])).logit, label[fresh])
    assert abs(found - 0.5) < 0.06 if name == "lr" else found > 0.9


def auc(logit: Tensor, label: Tensor) -> float:
    """Share of (click, no click) pairs in the right order, ties half."""
    gap = logit[label == 1].unsqueeze(1) - logit[label == 0].unsqueeze(0)
    return float(((gap > 0).double() + 0.5 * (gap == 0).double()).mean())

"""Vector fields in every model: a linear map in the place of a table, beside fields of all other kinds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

from fieldctr.catalog import conf_dir
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import CTRModel, build_model, flops_per_sample
from fieldctr.nn.embedding import EmbeddingTable, FeatureEmbedding, LinearTerm
from fieldctr.schema import Field, Schema
from fieldctr.training.costs import batch as blank_batch
from fieldctr.training.warm_start import match_tables, take_over

IMAGE, FACE = Field("image.v1", 9, vector=5), Field("type", 3, vector=2)  # names that no module may have
PLAIN = (
    Field("user", 6),
    Field("price", 2, numeric=True),
    Field("tags", 6, width=3),
    Field("item", 7),
    Field("age", 2, numeric=True),
    Field("past", 7, width=3, shares="item"),
)
MIXED = Schema((PLAIN[0], PLAIN[1], IMAGE, *PLAIN[2:5], FACE, PLAIN[5]))
NAMES = sorted(
    path.stem
    for path in (conf_dir() / "model").glob("*.yaml")
    if "embedding_dim:" not in path.read_text(encoding="utf-8")
)

pytestmark = pytest.mark.filterwarnings("ignore:model.num_bases")


def mixed_batch(schema: Schema, rows: int = 10) -> Inputs:
    generator = torch.Generator().manual_seed(3)
    ids = [torch.randint(f.vocab_size, (rows, f.width), generator=generator, dtype=torch.int32) for f in schema.fields]
    present = [own for own, field in zip(ids, schema.fields, strict=True) if field.numeric]
    values = [torch.randn(rows, 1, generator=generator) * own for own in present]
    values += [torch.randn(rows, field.vector, generator=generator) for field in schema.fields if field.vector]
    return Inputs(torch.cat(ids, 1), torch.cat(values, 1))


def made(node: dict[str, Any], schema: Schema = MIXED, seed: int = 1) -> CTRModel:
    vectors = torch.randn(schema.num_fields, 12, generator=torch.Generator().manual_seed(9))
    return build_model(schema, dim=8, model=node, enhancer=None, seed=seed, field_embeddings={"model": vectors})


def twin(embedding: FeatureEmbedding, schema: Schema, inputs: Inputs) -> list[list[Tensor]]:
    """Sample by sample and field by field, from `table.weight` and the maps."""
    assert inputs.values is not None
    rows, numbers = [], [field.name for field in schema.fields if field.numeric]
    maps = dict(zip([f.name for f in schema.fields if f.vector], embedding.maps.values(), strict=True))
    for ids, values in zip(inputs.ids.tolist(), inputs.values, strict=True):
        row, behind = [], len(numbers)
        for field, start, offset in zip(schema.fields, schema.column_offsets, schema.row_offsets, strict=True):
            own = [i for i in ids[start : start + field.width] if i]
            if field.vector:
                weight = maps[field.name].weight
                row.append(sum(weight[:, k] * values[behind + k] for k in range(field.vector)))
                behind += field.vector
            elif own:
                factor = values[numbers.index(field.name)] if field.numeric else 1.0
                row.append(sum(embedding.table.weight[offset + i] for i in own) / len(own) * factor)
            else:
                row.append(embedding.table.weight[offset])
        rows.append(row)
    return rows


@pytest.mark.parametrize("schema", [MIXED, Schema((IMAGE, FACE)), Schema((*PLAIN, IMAGE))])
def test_an_embedding_is_its_plain_twin(schema: Schema) -> None:
    torch.manual_seed(1)
    embedding, inputs = FeatureEmbedding(schema, 4, init_std=1.0), mixed_batch(schema)
    emb = embedding(inputs)
    assert_close(emb, torch.stack([torch.stack(row) for row in twin(embedding, schema, inputs)]))
    assert embedding.columns(inputs).shape == (10, schema.num_columns, 4)
    emb.sum().backward()
    assert all(parameter.grad is not None for parameter in embedding.maps.parameters())


def test_a_vector_field_has_no_rows_and_one_matrix_without_a_bias() -> None:
    embedding = FeatureEmbedding(MIXED, 4, init_std=1.0)
    assert len(embedding.table.weight) == MIXED.vocab_size == 6 + 2 + 6 + 7 + 2
    assert [tuple(parameter.shape) for parameter in embedding.maps.parameters()] == [(4, 5), (4, 2)]
    zeros = Inputs(*(torch.zeros_like(part) for part in mixed_batch(MIXED)))
    emb = embedding(zeros)
    assert not emb[:, [2, 6]].any()  # what has no vector says nothing
    linear = LinearTerm(MIXED)
    assert [tuple(parameter.shape) for parameter in linear.weight.maps.parameters()] == [(1, 5), (1, 2)]
    assert not linear(mixed_batch(MIXED)).any()


def test_tables_without_vectors_are_drawn_and_named_as_before() -> None:
    schema = Schema(PLAIN)
    torch.manual_seed(1)
    embedding = FeatureEmbedding(schema, 4, init_std=1.0)
    torch.manual_seed(1)
    assert_close(embedding.table.weight.detach(), torch.empty(schema.vocab_size, 4).normal_(std=1.0))
    assert list(embedding.state_dict()) == ["table.weight"]
    assert "vector" not in str(schema._record())


@pytest.mark.parametrize("name", NAMES)
def test_every_model_builds_steps_and_counts_with_fields_of_all_kinds(
    name: str, node: Callable[[str], dict[str, Any]]
) -> None:
    model, inputs = made(node(name)), mixed_batch(MIXED)
    drawn = {key: value.clone() for key, value in model.state_dict().items() if ".maps." in key}
    assert drawn
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    for _ in range(3):  # a first-order weight starts at zero, and an embedding that meets it learns after it
        output = model(inputs)
        assert output.logit.shape == (10,)
        loss = binary_cross_entropy_with_logits(output.logit, torch.arange(10) % 2 * 1.0)
        optimizer.zero_grad()
        (loss + output.penalty).backward()
        optimizer.step()
    assert any(not torch.equal(model.state_dict()[key], value) for key, value in drawn.items())
    tables = sum(module.weight.numel() for module in model.modules() if isinstance(module, EmbeddingTable))
    assert model.num_parameters()["embedding"] == tables
    assert flops_per_sample(model, MIXED) > flops_per_sample(made(node(name), Schema(PLAIN)), Schema(PLAIN))
    assert model(blank_batch(MIXED, 4)[0]).logit.shape == (4,)


@pytest.mark.parametrize("name", ["lr", "deepfm", "fat"])
def test_the_numbers_of_a_vector_change_the_logit_and_its_id_does_not(
    name: str, node: Callable[[str], dict[str, Any]]
) -> None:
    model, inputs = made(node(name)).eval(), mixed_batch(MIXED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        logit = model(inputs).logit
        ids, values = inputs.ids.clone(), inputs.values
        assert values is not None
        ids[:, MIXED.column_offsets[2]] = 0
        assert_close(model(Inputs(ids, values)).logit, logit)
        values = values.clone()
        values[:, 2:7] += 1
        assert (model(Inputs(inputs.ids, values)).logit != logit).all()


def test_a_warm_start_keeps_the_maps_of_fields_that_were_there(node: Callable[[str], dict[str, Any]]) -> None:
    before, now = Schema((PLAIN[0], IMAGE, PLAIN[3])), Schema((FACE, PLAIN[3], IMAGE, PLAIN[0]))
    texts = {f.name: [str(i) for i in range(f.vocab_size - 1)] for f in now.fields}
    matched = match_tables(
        now,
        before,
        values=[texts[field.name] for field in now.fields],
        values_before=[texts[field.name] for field in before.fields],
    )
    assert matched.fields.tolist() == [-1, 2, 1, 0]

    def build(schema: Schema, seed: int = 1) -> CTRModel:
        return made(node("fm") | {"embedding_std": 0.5}, schema, seed)

    finished, model = build(before, 5), build(now)
    face = model.embedding.maps["of_type"].weight.detach().clone()
    take_over(model, finished.state_dict(), matched, now, build)
    image = "of_image%2Ev1"
    assert_close(model.embedding.maps[image].weight, finished.embedding.maps[image].weight)
    assert_close(model.embedding.maps["of_type"].weight.detach(), face)
    assert_close(model.embedding.table.weight[:7], finished.embedding.table.weight[6:])

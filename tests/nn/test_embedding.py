"""Field embeddings against loops over samples, fields and ids."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fieldctr.inputs import Inputs
from fieldctr.nn.embedding import EmbeddingTable, FeatureEmbedding, LinearTerm, NoEmbedding
from fieldctr.schema import Field, Schema

PLAIN = Field("user", 7)
MIXED = Schema((PLAIN, Field("tags", 5, width=3), Field("age", 2, numeric=True), Field("price", 2, numeric=True),
                Field("words", 4, width=2), Field("hour", 3)))  # fmt: skip
ONLY_PLAIN = Schema((PLAIN, Field("item", 5), Field("hour", 3)))
HISTORY = Schema(
    (
        Field("past", 5, width=3, shares="item"),
        PLAIN,
        Field("item", 5),
        Field("hour", 3),
        Field("last", 5, shares="item"),
    )
)


def inputs_of(schema: Schema, num_rows: int) -> Inputs:
    generator = torch.Generator().manual_seed(3)
    columns = [
        torch.randint(field.vocab_size, (num_rows, field.width), generator=generator, dtype=torch.int32)
        for field in schema.fields
    ]
    ids = torch.cat(columns, dim=1)
    present = torch.cat(
        [c for c, field in zip(columns, schema.fields, strict=True) if field.numeric] or [ids[:, :0]], 1
    )
    return Inputs(ids, torch.randn(present.shape, generator=generator) * (present > 0))


def looped(schema: Schema, weight: Tensor, inputs: Inputs) -> Tensor:
    samples = []
    for b in range(len(inputs.ids)):
        vectors, value = [], 0
        for field, start, column in zip(schema.fields, schema.row_offsets, schema.column_offsets, strict=True):
            ids = [int(i) for i in inputs.ids[b, column : column + field.width]]
            if field.width > 1:
                ids = [i for i in ids if i] or [0]
            vector = sum((weight[start + i] for i in ids), torch.zeros(weight.shape[1])) / len(ids)
            if field.numeric:
                assert inputs.values is not None
                vector = vector * inputs.values[b, value] if ids[0] else vector
                value += 1
            vectors.append(vector)
        samples.append(torch.stack(vectors))
    return torch.stack(samples)


@pytest.mark.parametrize("schema", [MIXED, ONLY_PLAIN, HISTORY], ids=["mixed", "plain", "history"])
def test_each_kind_of_field_follows_its_rule(schema: Schema) -> None:
    embedding, inputs = FeatureEmbedding(schema, 4, init_std=1.0), inputs_of(schema, 64)
    assert_close(embedding(inputs), looped(schema, embedding.table.weight, inputs))


def test_gradients_of_the_table_equal_those_of_the_loops() -> None:
    embedding, inputs = FeatureEmbedding(MIXED, 4, init_std=1.0), inputs_of(MIXED, 64)
    weight = embedding.table.weight
    fast = torch.autograd.grad(embedding(inputs).square().sum(), weight)
    slow = torch.autograd.grad(looped(MIXED, weight, inputs).square().sum(), weight)
    assert_close(fast, slow)


def test_a_multi_valued_field_ignores_padding_and_the_order_of_its_ids() -> None:
    embedding = FeatureEmbedding(Schema((Field("tags", 5, width=3),)), 4, init_std=1.0)
    ids = torch.tensor([[1, 2, 0], [2, 0, 1], [0, 0, 0]], dtype=torch.int32)
    emb = embedding(Inputs(ids))
    assert_close(emb[0], emb[1])
    assert_close(emb[2, 0], embedding.table.weight[0])


def test_a_missing_number_is_row_zero_whatever_the_value_column_holds() -> None:
    embedding = FeatureEmbedding(Schema((Field("price", 2, numeric=True),)), 4, init_std=1.0)
    emb = embedding(Inputs(torch.tensor([[0], [1]], dtype=torch.int32), torch.tensor([[9.0], [0.0]])))
    assert_close(emb[:, 0], torch.stack([embedding.table.weight[0], torch.zeros(4)]))


def test_the_first_order_term_is_the_sum_of_weights_and_bias() -> None:
    term, inputs = LinearTerm(MIXED), inputs_of(MIXED, 16)
    assert term(inputs).eq(0).all()
    torch.nn.init.normal_(term.weight.table.weight)
    assert term.bias is not None
    torch.nn.init.constant_(term.bias, 0.5)
    assert_close(term(inputs), looped(MIXED, term.weight.table.weight, inputs).sum((1, 2)) + 0.5)


def test_a_sparse_gradient_is_the_dense_one_on_the_rows_of_the_batch() -> None:
    table, rows = EmbeddingTable(50, 4, init_std=1.0), torch.tensor([3, 7, 3])
    (dense,) = torch.autograd.grad(table(rows).square().sum(), table.weight)
    table.sparse = True
    (sparse,) = torch.autograd.grad(table(rows).square().sum(), table.weight)
    assert sparse.is_sparse
    assert_close(sparse.to_dense(), dense)
    assert set(sparse.coalesce().indices().flatten().tolist()) == {3, 7}


def test_no_embedding_has_no_parameters() -> None:
    nothing = NoEmbedding(MIXED)
    assert nothing(inputs_of(MIXED, 5)).shape == (5, 6, 0)
    assert not list(nothing.parameters())

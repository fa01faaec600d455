"""The loss of one small batch under weights that do not depend on a generator: by a model and by its twin."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fieldctr.analysis.parity.reference_models import Batch, loss
from fieldctr.data.dataset import Dataset
from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.schema import Schema

ROWS = 64
DIM = 8  # of the embeddings
STD = 0.2  # of all weights: a change of a logit by 1 % is seen in the loss, and no logit saturates


def losses(name: str, node: Mapping[str, Any], schema: Schema, batch: Batch) -> tuple[float, float]:
    """The losses of the model that the YAML node describes, with seeded weights, and of its reference model."""
    model = build_model(schema, dim=DIM, model=node, enhancer=None, seed=1).eval()
    fill(model)
    ids, values, label = (torch.from_numpy(array) for array in batch)
    with torch.no_grad():
        logit = model(Inputs(ids, values if schema.num_numeric else None)).logit
        found = float(binary_cross_entropy_with_logits(logit, label))
    weights = {key: value.double().numpy() for key, value in model.state_dict().items()}
    return found, loss(name, weights, schema, batch)


def fill(model: CTRModel) -> None:
    """Normal weights that depend on names and shapes alone, not on torch's generator."""
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.from_numpy(rng.normal(0, STD, tuple(parameter.shape))))


def first_rows(dataset: Dataset) -> tuple[Schema, Batch]:
    """The first rows of train, with vocabularies of no more features than they have: the same function, small."""
    train, fields, columns = dataset.train, [], []
    ids = np.asarray(train.ids_of(slice(ROWS)))
    column_of = zip(dataset.schema.fields, dataset.schema.column_offsets, strict=True)
    blocks = {field.name: ids[:, start : start + field.width] for field, start in column_of}
    for field in dataset.schema.fields:
        own, owner = blocks[field.name], field.shares or field.name
        table = [blocks[other.name] for other in dataset.schema.fields if owner in (other.name, other.shares)]
        known = np.setdiff1d(np.concatenate(table, 1), 0)
        fields.append(field if field.numeric else replace(field, vocab_size=len(known) + 1))
        columns.append(own if field.numeric else np.where(own > 0, np.searchsorted(known, own) + 1, 0))
    values = np.empty((len(ids), 0), np.float32) if train.values is None else np.asarray(train.values[:ROWS])
    return Schema(tuple(fields)), Batch(np.concatenate(columns, 1).astype(np.int32), values, train.label[:ROWS])


def made_rows(schema: Schema) -> tuple[Schema, Batch]:
    """Rows of the schema, with vocabularies cut to a few features."""
    small = Schema(tuple(replace(field, vocab_size=min(field.vocab_size, ROWS)) for field in schema.fields))
    rng = np.random.default_rng(1)
    ids = np.stack([rng.integers(0, field.vocab_size, ROWS) for field in small.fields], 1).astype(np.int32)
    numbers = [small.index(field.name) for field in small.fields if field.numeric]
    values = rng.normal(size=(ROWS, len(numbers))) * ids[:, numbers]
    return small, Batch(ids, values.astype(np.float32), rng.integers(0, 2, ROWS).astype(np.float32))

"""The users, the items or the whole rows of a prepared table: which there are, and what is known of each.

An entity is what the fields that describe it say: samples with equal ids and numbers in these fields have the same one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.dataset import Dataset, Split
from fieldctr.data.encoding import Encoding
from fieldctr.data.table import CHUNK
from fieldctr.schema import Schema

AND = " and "  # between the features of a multi-valued field


class Entities(NamedTuple):
    """The different entities of a table, in the order of their keys."""

    columns: list[int]  # what a key is made of: id columns of a sample, and behind all S of these its value columns
    keys: np.ndarray  # (n, columns) int32, ids as they are and float32 numbers by their bits; no two are equal


def entities_of(dataset: Dataset, fields: Sequence[int]) -> Entities:
    """The entities that the fields at these positions describe, of all splits; no label is read.

    Memory: the different keys.
    """
    columns = key_columns(dataset.schema, fields)
    found = pl.from_numpy(np.empty((0, len(columns)), np.int32))
    for split in (dataset.train, dataset.valid, dataset.test):
        for keys in _keys(split, columns, dataset.schema.num_columns):
            found = pl.concat([found, pl.from_numpy(keys)]).unique()
    return Entities(columns, found.sort(found.columns).to_numpy().astype(np.int32, copy=False))


def key_columns(schema: Schema, fields: Sequence[int]) -> list[int]:
    """The id columns of some fields, and S + their value columns."""
    ids = [schema.column_offsets[i] + k for i in fields for k in range(schema.fields[i].width)]
    numbers = [sum(field.numeric for field in schema.fields[:i]) for i in fields if schema.fields[i].numeric]
    return [*ids, *(schema.num_columns + number for number in numbers)]


def feature_texts(dataset: Dataset, entities: Entities, fields: Sequence[int]) -> list[list[str]]:
    """Per field, what each entity has in it as a text: '' for what is missing, unseen in train, or hashed."""
    encoding, schema = Encoding.load(dataset.folder), dataset.schema
    place = {column: position for position, column in enumerate(entities.columns)}
    found: list[list[str]] = []
    for i in fields:
        field = schema.fields[i]
        start = place[schema.column_offsets[i]]
        ids = entities.keys[:, start : start + field.width]
        if field.numeric:
            column = schema.num_columns + sum(other.numeric for other in schema.fields[:i])
            scale, bits = encoding.scales[field.name], np.ascontiguousarray(entities.keys[:, place[column]])
            numbers = bits.view(np.float32).astype(np.float64) * scale.sd + scale.mean  # ty: ignore
            found.append([f"{number:.4g}" if known else "" for number, known in zip(numbers, ids[:, 0], strict=True)])
            continue
        words = encoding.vocabularies.get(field.shares or field.name)
        texts = np.array(["", *([] if words is None or field.vector else words["value"].to_list())], object)
        known = texts.take(ids, mode="clip") if len(texts) > 1 else np.full(ids.shape, "", object)
        found.append([AND.join(str(text) for text in row if text) for row in known.tolist()])
    return found


def _keys(split: Split, columns: Sequence[int], num_columns: int) -> Iterator[np.ndarray]:
    """Some rows at a time: (rows, columns) int32."""
    ids = [column for column in columns if column < num_columns]
    numbers = [column - num_columns for column in columns if column >= num_columns]
    for start in range(0, len(split), CHUNK):
        rows = slice(start, start + CHUNK)
        keys = split.ids_of(rows)[:, ids].astype(np.int32, copy=False)
        if numbers and split.values is not None:
            bits = np.ascontiguousarray(split.values[rows][:, numbers]).view(np.int32)
            keys = np.concatenate([keys, bits], axis=1)
        yield np.unique(keys, axis=0)

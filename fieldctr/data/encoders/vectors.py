"""Fields of vectors: what is known of each value from elsewhere, such as an embedding of an item's image, as numbers.

They come from a file beside the raw table and are never trained; a model maps them to its width. The prepared table
holds one copy, float32 and memory-mapped, and per row the number of its key: batches gather what they need. All rows of
the file are kept, also those whose key no row of the table has: new rows may have it.
Memory while preparing: the keys, not the vectors.

A .npy file has a row per line of the text file `keys`. A Parquet file has the keys in a column, and the numbers in a
column of lists, or in several.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fieldctr.data.columns import column
from fieldctr.data.coverage import Coverage
from fieldctr.data.encoders.encoder import Columns, Learned, Loading, Training
from fieldctr.data.fields.kinds import Spec, VectorSpec, vector_specs
from fieldctr.data.fields.spelling import value_texts
from fieldctr.data.lookups import vectors_file
from fieldctr.data.npy import NpyWriter
from fieldctr.data.shards import Block
from fieldctr.data.shards.dictionary import VOCABULARY, ids_of_texts
from fieldctr.data.shards.reader import require
from fieldctr.data.table import SPLITS
from fieldctr.errors import UserError
from fieldctr.schema import Field

CHUNK_VECTORS = 1 << 14  # in memory at a time
Part = tuple[pl.Series, np.ndarray]  # keys (n,) as they are spelled, and vectors (n, width)


@dataclass(frozen=True)
class Vectors:
    """The fields of kind vector."""

    specs: list[VectorSpec]
    fields: dict[str, Learned]
    ids: dict[str, list[np.ndarray]]  # per shard (codes,) int32
    coverages: dict[str, list[Coverage]]

    @classmethod
    def fit(cls, specs: tuple[Spec, ...], training: Training) -> "Vectors":
        """Copy the vectors into the prepared folder, and look the values of all rows up among their keys."""
        own, fields, ids, coverages = vector_specs(specs), {}, {}, {}
        rows = training.shards.row_counts.rows
        for i, spec in enumerate(own):
            keys, width = _copy(spec, training.raw_dir, training.shards.work / vectors_file(i))
            ids[spec.name], counted = [], np.zeros((len(SPLITS), 1 + len(keys)), np.int64)
            blank = np.zeros(len(SPLITS), np.int64)
            for texts, counts in training.shards.texts(spec.name):
                of_codes, given = ids_of_texts(texts, keys), texts.is_not_null().to_numpy()
                ids[spec.name].append(of_codes)
                blank += counts[:, ~given].sum(1)
                for total, more in zip(counted, counts[:, given], strict=True):
                    np.add.at(total, of_codes[given], more)
            vocabulary = keys.with_columns(count=pl.Series(counted[0, 1:])).select(*VOCABULARY)
            field = Field(spec.name, 1 + len(keys), text=spec.text, vector=width)
            fields[spec.name] = Learned(field, vocabulary, facts={"width": width})
            totals = zip(rows, blank, counted.sum(1), counted[:, 0], strict=True)
            coverages[spec.name] = [Coverage(*map(int, of_split)) for of_split in totals]
        return cls(own, fields, ids, coverages)

    @classmethod
    def load(cls, specs: tuple[Spec, ...], loading: Loading) -> "Vectors":
        own, ids, coverages = vector_specs(specs), {}, {}
        for spec in own:
            texts, counts = loading.rows.texts[spec.name], loading.rows.counts[spec.name]
            of_codes = ids_of_texts(texts, loading.saved.vocabularies[spec.name])
            blank = texts.is_null().to_numpy()
            unseen = int(counts[~blank & (of_codes == 0)].sum())
            ids[spec.name] = [of_codes]
            missing, values = int(counts[blank].sum()), int(counts[~blank].sum())
            coverages[spec.name] = [Coverage(len(loading.rows.block), missing, values, unseen)]
        return cls(own, {}, ids, coverages)

    def apply(self, block: Block) -> dict[str, Columns]:
        by_field = ((spec.name, self.ids[spec.name][block.shard]) for spec in self.specs)
        return {name: Columns(ids.take(block.codes[name], mode="clip")[None]) for name, ids in by_field}

    def learned(self) -> dict[str, Learned]:
        return self.fields

    def coverage(self) -> dict[str, list[Coverage]]:
        return self.coverages

    def save(self, folder: Path) -> None:
        """Nothing: the vectors were copied into the folder while their keys were read."""


def _copy(spec: VectorSpec, raw_dir: Path, target: Path) -> tuple[pl.DataFrame, int]:
    """Copy the file's vectors to `target`; gives the keys with their ids, and the vectors' width.

    UserError for what is no table of different keys with finite vectors.
    """
    width, parts = _from_npy(spec, raw_dir) if spec.file.endswith(".npy") else _from_parquet(spec, raw_dir)
    texts: list[pl.Series] = []
    rows = 0
    with NpyWriter(target, dtype=np.float32, columns=width) as file:
        file.append(np.zeros((1, width), np.float32))
        for keys, numbers in parts:
            with np.errstate(over="ignore"):  # what no float32 holds becomes infinite, and is refused
                vectors = np.asarray(numbers).astype(np.float32)
            if len(bad := np.flatnonzero(~np.isfinite(vectors).all(1))):
                held = "holds a number that is missing or not finite"
                raise UserError(f"{_where(spec)}: row {rows + bad[0] + 1:,} {held}")
            if keys.null_count():
                raise UserError(f"{_where(spec)}: row {rows + keys.is_null().arg_true()[0] + 1:,} has no key")
            file.append(vectors)
            texts.append(keys.rename("value"))
            rows += len(keys)
    if not rows:
        raise UserError(f"{_where(spec)} has no rows: expected a vector for each key")
    keys = pl.concat(texts)
    if not (different := keys.is_first_distinct()).all():
        repeated = keys.filter(~different)[0]
        raise UserError(f"{_where(spec)}: key '{repeated}' stands there twice. Keys are spelled as values: 7.0 is 7")
    return keys.to_frame().with_row_index("id", offset=1).cast({"id": VOCABULARY["id"]}), width


def _from_npy(spec: VectorSpec, raw_dir: Path) -> tuple[int, Iterator[Part]]:
    try:
        vectors = np.load(raw_dir / spec.file, mmap_mode="r")
        text = (raw_dir / str(spec.keys)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{_where(spec)}: {spec.keys} is no text in UTF-8: {error.reason}") from error
    except (ValueError, EOFError) as error:
        raise UserError(f"{_where(spec)} cannot be read as .npy: {error}") from error
    if not isinstance(vectors, np.ndarray):
        raise UserError(f"{_where(spec)} holds several arrays, expected one")
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise UserError(
            f"{_where(spec)} holds {vectors.dtype} of shape {vectors.shape}, expected numbers (keys, width)"
        )
    lines = text.removesuffix("\n").split("\n")  # not splitlines: a key may hold what ends a line elsewhere
    if len(lines) != len(vectors):
        raise UserError(f"{_where(spec)} has {len(vectors):,} rows, and {spec.keys} {len(lines):,} lines")
    pieces = (slice(start, start + CHUNK_VECTORS) for start in range(0, len(lines), CHUNK_VECTORS))
    parts = ((pl.DataFrame({"key": lines[piece]}, {"key": pl.String}), vectors[piece]) for piece in pieces)
    return vectors.shape[1], ((_spelled(keys, "key"), numbers) for keys, numbers in parts)


def _from_parquet(spec: VectorSpec, raw_dir: Path) -> tuple[int, Iterator[Part]]:
    try:
        frame = pl.scan_parquet(raw_dir / spec.file)
        schema = frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{_where(spec)} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    key = spec.key or spec.column
    names = spec.vector or tuple(name for name in schema if name != key)
    try:
        require(schema, (key, *names))
    except UserError as error:
        raise UserError(f"{_where(spec)}: {error}") from error
    nested = len(names) == 1 and isinstance(schema[names[0]], pl.List | pl.Array)
    if not names or not all(_holds_numbers(schema[name], nested=nested) for name in names):
        held = ", ".join(f"'{name}' {schema[name]}" for name in names) or "no column besides the key"
        raise UserError(f"{_where(spec)} holds {held}: expected numbers in each column, or one column of lists of them")
    width = _width(spec, frame, names[0]) if nested else len(names)
    batches = frame.select(key, *names).collect_batches(chunk_size=CHUNK_VECTORS, maintain_order=True)
    return width, ((_spelled(part, key), _numbers(spec, part, names, width, nested=nested)) for part in batches)


def _holds_numbers(dtype: pl.DataType, *, nested: bool) -> bool:
    inner = dtype.inner if nested and isinstance(dtype, pl.List | pl.Array) else dtype
    return inner.is_numeric()


def _width(spec: VectorSpec, frame: pl.LazyFrame, name: str) -> int:
    first = frame.select(column(name)).head(1).collect().to_series().cast(pl.List(pl.Float64))
    width = 0 if first.null_count() == len(first) else int(first.list.len()[0])
    if not width:
        raise UserError(f"{_where(spec)}: column '{name}' has no vector in its first row")
    return width


def _numbers(spec: VectorSpec, part: pl.DataFrame, names: tuple[str, ...], width: int, *, nested: bool) -> np.ndarray:
    """(n, width), NaN where null."""
    if not nested:
        return part.select(column(name).cast(pl.Float64) for name in names).to_numpy()
    lists = part[names[0]].cast(pl.List(pl.Float64))
    sizes = lists.list.len().fill_null(0)
    if (sizes != width).any():
        odd = (sizes != width).arg_true()[0]
        raise UserError(f"{_where(spec)}: key '{part[part.columns[0]][odd]}' has {sizes[odd]} numbers, others {width}")
    return lists.explode().to_numpy().reshape(-1, width)


def _spelled(frame: pl.DataFrame, name: str) -> pl.Series:
    return frame.select(value_texts(column(name), frame.schema[name], null_words=False)).to_series()


def _where(spec: VectorSpec) -> str:
    return f"dataset.fields.{spec.name}.file={spec.file}"

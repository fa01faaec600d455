"""Fields of texts: an id for each value that train knows, or the bucket of its hash.

A value's id is its rank by descending train count, then by text; 0 is missing, unseen in train, or rarer than
min_count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from fieldctr.data.budget import Budget
from fieldctr.data.coverage import Coverage
from fieldctr.data.encoders.encoder import Columns, FittedTexts, Learned, Loading, Training
from fieldctr.data.fields.kinds import FieldSpec, Spec, text_specs
from fieldctr.data.hashing import hashed
from fieldctr.data.shards import Block, Shards
from fieldctr.data.shards.dictionary import (
    VOCABULARY,
    MergedTexts,
    bucket_codes,
    bucket_names,
    ids_of_texts,
    merge_buckets,
    merge_texts,
    merge_vocabularies,
    rank_texts,
)
from fieldctr.data.shards.ragged import Codes, Ragged
from fieldctr.data.shards.reader import GROUP
from fieldctr.schema import Field


@dataclass(frozen=True)
class Texts:
    """The fields of kind categorical, multi, log_square, datetime and cross."""

    specs: list[FieldSpec]
    fitted: dict[str, FittedTexts]  # by field, and by column that a statistic or history is of

    @classmethod
    def fit(cls, specs: tuple[Spec, ...], training: Training) -> "Texts":
        """Vocabularies; and the hashes of the columns that a statistic is of.

        Fields that share a vocabulary are merged at the same time, all others one after the other: of the texts of the
        whole table, no more are in memory than one vocabulary needs. UserError where that is more than the budget.
        """
        fields, hashes = text_specs(specs), _hashed(specs)
        names = {spec.name for spec in fields}
        others = [[name] for name in training.shards.reader.texts if name in hashes and name not in names]
        held_bytes = 0
        for family in [*_families(fields), *others]:
            fitted = _fit_family(training.shards, family, hashes, training.budget.less(held_bytes))
            held_bytes += sum(array.nbytes for texts in fitted.values() for array in (*texts.ids, *texts.hashes))
            training.texts.update(fitted)
        return cls(fields, training.texts)

    @classmethod
    def load(cls, specs: tuple[Spec, ...], loading: Loading) -> "Texts":
        fields, hashes, rows = text_specs(specs), _hashed(specs), len(loading.rows.block)
        for name in dict.fromkeys((*(spec.name for spec in fields), *hashes)):
            spec = loading.rows.reader.texts[name]
            texts, counts = loading.rows.texts[name], loading.rows.counts[name]
            if spec.num_buckets:
                vocabulary, ids = None, bucket_codes(texts, spec.num_buckets)
                names = bucket_names(ids)
            else:
                vocabulary, names = loading.saved.vocabularies.get(name, pl.DataFrame(schema=VOCABULARY)), texts
                ids = ids_of_texts(texts, vocabulary)
            blank = texts.is_null().to_numpy()
            unseen = 0 if vocabulary is None else int(counts[~blank & (ids == 0)].sum())
            coverage = Coverage(rows, int(counts[blank].sum()), int(counts[~blank].sum()), unseen)
            hash_of = [hashed(names)] if name in hashes else []
            loading.texts[name] = FittedTexts(vocabulary, [ids], hash_of, [coverage])
        return cls(fields, loading.texts)

    def apply(self, block: Block) -> dict[str, Columns]:
        by_field = ((spec, self.fitted[spec.name].ids[block.shard]) for spec in self.specs)
        return {spec.name: Columns(_ids_of_codes(ids, block.codes[spec.name], spec.width)) for spec, ids in by_field}

    def learned(self) -> dict[str, Learned]:
        return {spec.name: _learned(spec, self.fitted[spec.name]) for spec in self.specs}

    def coverage(self) -> dict[str, list[Coverage]]:
        return {spec.name: self.fitted[spec.name].coverage for spec in self.specs}

    def save(self, folder: Path) -> None:
        """Nothing: vocabulary.parquet has the vocabularies."""


def numbered(shards: Shards, name: str, budget: Budget) -> tuple[pl.Series, list[np.ndarray]]:
    """The distinct texts of an entry of `Reader.texts`, ascending, and per shard the number (codes,) int32 of each.

    They are numbered from 1; 0 is a row without a text.
    """
    merged = _merge(shards, name, budget)
    names = merged.names()
    ranks = names.rank("dense").fill_null(0).cast(pl.Int32).to_numpy()
    return names.drop_nulls().sort(), [ranks[code_map] for code_map in merged.code_maps]


def _hashed(specs: Sequence[Spec]) -> dict[str, None]:
    """The fields and columns that a statistic is of."""
    return dict.fromkeys(name for spec in specs for name in spec.crosses)


def _learned(spec: FieldSpec, fitted: FittedTexts) -> Learned:
    size = len(fitted.vocabulary) if fitted.vocabulary is not None else spec.num_buckets or 0
    field = Field(spec.name, size + 1, spec.width, text=spec.text, shares=spec.shares)
    return Learned(field, fitted.vocabulary, facts={} if fitted.filled is None else {"filled": fitted.filled})


def _ids_of_codes(ids: np.ndarray, codes: Codes, width: int) -> np.ndarray:
    """(W, n) the ids of codes; a list's known values stand first: an unseen one leaves no hole."""
    if isinstance(codes, Ragged):
        lists = codes._replace(values=ids.take(codes.values, mode="clip"))
        return lists.kept(lists.values > 0).padded(width)
    return ids.take(codes, mode="clip")[None]  # 2x the speed of ids[codes]


def _families(specs: Sequence[FieldSpec]) -> list[list[str]]:
    """The names of the fields, those together that share a vocabulary."""
    owners: dict[str, list[str]] = {}
    for spec in specs:
        owners.setdefault(spec.shares or spec.name, []).append(spec.name)
    return list(owners.values())


def _fit_family(shards: Shards, family: list[str], hashes: dict[str, None], budget: Budget) -> dict[str, FittedTexts]:
    specs = [shards.reader.texts[name] for name in family]
    merged = [_merge(shards, name, budget) for name in family]
    vocabulary, ids = _ids(specs, merged)
    rows = shards.row_counts.rows
    return {
        name: _fitted(vocabulary, texts, ids_of_field, rows, with_hashes=name in hashes)
        for name, texts, ids_of_field in zip(family, merged, ids, strict=True)
    }


def _ids(specs: list[FieldSpec], merged: list[MergedTexts]) -> tuple[pl.DataFrame | None, list[np.ndarray]]:
    """The one vocabulary of the specs, and for each the id of every code."""
    if specs[0].num_buckets:
        return None, [np.arange(texts.counts.shape[1], dtype=np.int32) for texts in merged]
    ranked = [
        rank_texts(texts.names(), texts.counts[0], spec.min_count) for spec, texts in zip(specs, merged, strict=True)
    ]
    if len(ranked) > 1:
        vocabulary = merge_vocabularies([one.select(*VOCABULARY) for one in ranked]).select(*VOCABULARY)
        return vocabulary, [ids_of_texts(texts.names(), vocabulary) for texts in merged]
    ids = np.zeros(merged[0].counts.shape[1], np.int32)
    ids[ranked[0]["code"]] = ranked[0]["id"]
    return ranked[0].select(*VOCABULARY), [ids]


def _merge(shards: Shards, name: str, budget: Budget) -> MergedTexts:
    spec, texts = shards.reader.texts[name], shards.texts(name)
    what = f"column '{spec.column}'"
    if spec.num_buckets:
        check = partial(budget.refuse, f"{what}: {spec.num_buckets:,} buckets", "Give the field fewer num_buckets")
        return merge_buckets(texts, spec.num_buckets, check)
    cure = "Group by another column" if name == GROUP else "Give the field num_buckets, which need no vocabulary"
    return merge_texts(texts, partial(budget.refuse, f"{what}: its different values", cure))


def _fitted(
    vocabulary: pl.DataFrame | None, merged: MergedTexts, ids: np.ndarray, rows: np.ndarray, *, with_hashes: bool
) -> FittedTexts:
    hash_of = hashed(merged.names()) if with_hashes else None
    unseen = merged.unseen(merged.counts[0] > 0 if vocabulary is None else ids > 0)
    counts = zip(rows, merged.counts[:, 0], merged.counts[:, 1:].sum(1), unseen, strict=True)
    return FittedTexts(
        vocabulary,
        ids=[ids[code_map] for code_map in merged.code_maps],
        hashes=[] if hash_of is None else [hash_of[code_map] for code_map in merged.code_maps],
        coverage=[Coverage(*map(int, of_split)) for of_split in counts],
        filled=merged.filled() if vocabulary is None else None,
    )

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
from fieldctr.data.encoders.encoder import Columns, Known, Learned, Loading, Training
from fieldctr.data.hashing import hashed
from fieldctr.data.kinds import FieldSpec, Spec, text_specs
from fieldctr.data.lexicon import (
    WORDS,
    Merged,
    bucket_codes,
    bucket_names,
    lookup,
    merged,
    merged_buckets,
    merged_words,
    vocabulary,
)
from fieldctr.data.ragged import Codes, Ragged
from fieldctr.data.reader import GROUP
from fieldctr.data.shards import Block, Shards
from fieldctr.schema import Field


@dataclass(frozen=True)
class Texts:
    """The fields of kind categorical, multi, log_square, datetime and cross."""

    specs: list[FieldSpec]
    known: dict[str, Known]

    @classmethod
    def fit(cls, specs: tuple[Spec, ...], work: Training) -> "Texts":
        """Vocabularies; and the hashes of the columns that a statistic is of.

        Fields that share a vocabulary are merged at the same time, all others one after the other: of the texts of the
        whole table, no more are in memory than one vocabulary needs. UserError where that is more than the budget.
        """
        own, hashes = text_specs(specs), _hashed(specs)
        others = [[name] for name in work.shards.reader.texts if name in hashes and name not in {s.name for s in own}]
        held = 0
        for family in [*_families(own), *others]:
            found = _family(work.shards, family, hashes, work.budget.less(held))
            held += sum(part.nbytes for known in found.values() for part in (*known.ids, *known.hashes))
            work.known.update(found)
        return cls(own, work.known)

    @classmethod
    def load(cls, specs: tuple[Spec, ...], work: Loading) -> "Texts":
        own, hashes, rows = text_specs(specs), _hashed(specs), len(work.rows.block)
        for name in dict.fromkeys((*(spec.name for spec in own), *hashes)):
            spec = work.rows.reader.texts[name]
            texts, counts = work.rows.texts[name], work.rows.counts[name]
            if spec.num_buckets:
                words, ids = None, bucket_codes(texts, spec.num_buckets)
                said = bucket_names(ids)
            else:
                words, said = work.saved.words.get(name, pl.DataFrame(schema=WORDS)), texts
                ids = lookup(texts, words)
            blank = texts.is_null().to_numpy()
            unseen = 0 if words is None else int(counts[~blank & (ids == 0)].sum())
            coverage = Coverage(rows, int(counts[blank].sum()), int(counts[~blank].sum()), unseen)
            work.known[name] = Known(words, [ids], [hashed(said)] if name in hashes else [], [coverage])
        return cls(own, work.known)

    def apply(self, block: Block) -> dict[str, Columns]:
        found = ((spec, self.known[spec.name].ids[block.shard]) for spec in self.specs)
        return {spec.name: Columns(_look_up(ids, block.codes[spec.name], spec.width)) for spec, ids in found}

    def learned(self) -> dict[str, Learned]:
        return {spec.name: _learned(spec, self.known[spec.name]) for spec in self.specs}

    def coverage(self) -> dict[str, list[Coverage]]:
        return {spec.name: self.known[spec.name].coverage for spec in self.specs}

    def save(self, folder: Path) -> None:
        """Vocabularies are all."""


def numbered(shards: Shards, name: str, budget: Budget) -> tuple[pl.Series, list[np.ndarray]]:
    """The distinct texts of an entry of `Reader.texts`, ascending, and per shard the place (codes,) int32 of each.

    Places count from 1; 0 is a row without a text.
    """
    every = _merged(shards, name, budget)
    names = every.names()
    ranks = names.rank("dense").fill_null(0).cast(pl.Int32).to_numpy()
    return names.drop_nulls().sort(), [ranks[places] for places in every.places]


def _hashed(specs: Sequence[Spec]) -> dict[str, None]:
    """The fields and columns that a statistic is of."""
    return dict.fromkeys(name for spec in specs for name in spec.crosses)


def _learned(spec: FieldSpec, known: Known) -> Learned:
    size = len(known.words) if known.words is not None else spec.num_buckets or 0
    field = Field(spec.name, size + 1, spec.width, text=spec.text, shares=spec.shares)
    return Learned(field, known.words, facts={} if known.filled is None else {"filled": known.filled})


def _look_up(ids: np.ndarray, codes: Codes, width: int) -> np.ndarray:
    """(W, n) the ids of codes; of a list the known ones first: an unseen value leaves no hole."""
    if isinstance(codes, Ragged):
        found = codes._replace(values=ids.take(codes.values, mode="clip"))
        return found.kept(found.values > 0).padded(width)
    return ids.take(codes, mode="clip")[None]  # 2x the speed of ids[codes]


def _families(specs: Sequence[FieldSpec]) -> list[list[str]]:
    """The names of the fields, those together that share a vocabulary."""
    owners: dict[str, list[str]] = {}
    for spec in specs:
        owners.setdefault(spec.shares or spec.name, []).append(spec.name)
    return list(owners.values())


def _family(shards: Shards, family: list[str], hashes: dict[str, None], budget: Budget) -> dict[str, Known]:
    specs = [shards.reader.texts[name] for name in family]
    every = [_merged(shards, name, budget) for name in family]
    words, ids = _ids(specs, every)
    rows = shards.tally.rows
    return {
        name: _known(words, each, own, rows, with_hashes=name in hashes)
        for name, each, own in zip(family, every, ids, strict=True)
    }


def _ids(specs: list[FieldSpec], every: list[Merged]) -> tuple[pl.DataFrame | None, list[np.ndarray]]:
    """The one vocabulary of the specs, and for each the id of every code."""
    if specs[0].num_buckets:
        return None, [np.arange(each.counts.shape[1], dtype=np.int32) for each in every]
    known = [vocabulary(each.names(), each.counts[0], spec.min_count) for spec, each in zip(specs, every, strict=True)]
    if len(known) > 1:
        words = merged([own.select(*WORDS) for own in known]).select(*WORDS)
        return words, [lookup(each.names(), words) for each in every]
    ids = np.zeros(every[0].counts.shape[1], np.int32)
    ids[known[0]["code"]] = known[0]["id"]
    return known[0].select(*WORDS), [ids]


def _merged(shards: Shards, name: str, budget: Budget) -> Merged:
    spec, words = shards.reader.texts[name], shards.words(name)
    what = f"column '{spec.column}'"
    if spec.num_buckets:
        check = partial(budget.refuse, f"{what}: {spec.num_buckets:,} buckets", "Give the field fewer num_buckets")
        return merged_buckets(words, spec.num_buckets, check)
    cure = "Group by another column" if name == GROUP else "Give the field num_buckets, which need no vocabulary"
    return merged_words(words, partial(budget.refuse, f"{what}: its different values", cure))


def _known(words: pl.DataFrame | None, every: Merged, ids: np.ndarray, rows: np.ndarray, *, with_hashes: bool) -> Known:
    hash_of = hashed(every.names()) if with_hashes else None
    unseen = every.unseen(every.counts[0] > 0 if words is None else ids > 0)
    counts = zip(rows, every.counts[:, 0], every.counts[:, 1:].sum(1), unseen, strict=True)
    return Known(
        words,
        [ids[places] for places in every.places],
        [] if hash_of is None else [hash_of[places] for places in every.places],
        [Coverage(*map(int, of_split)) for of_split in counts],
        every.filled() if words is None else None,
    )

"""What is known of the texts of each field once pass one is through: its vocabulary, and an id for every code."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.budget import Budget
from fieldctr.data.hashing import hashed
from fieldctr.data.lexicon import WORDS, Merged, lookup, merged, merged_buckets, merged_words, vocabulary
from fieldctr.data.shards import Shards
from fieldctr.data.specs import FieldSpec
from fieldctr.data.table import SPLITS


class Known(NamedTuple):
    """Of one field, or of another column that was read."""

    words: pl.DataFrame | None  # the vocabulary; None for a number and for a hash
    ids: list[np.ndarray]  # per shard (codes,) int32
    hashes: list[np.ndarray]  # per shard (codes,) uint64, if a statistic is of it
    missing: np.ndarray  # (3,) rows without a value, per split
    values: np.ndarray  # (3,) values, known or not
    unseen: np.ndarray  # (3,) share of the values without an id; of buckets, in those without a train row
    filled: float | None = None  # share of the buckets with a train row


def known_texts(shards: Shards, fields: int, hashes: set[str], budget: Budget) -> list[Known]:
    """What is known of the first `fields` of the reader's specs, and of those behind them that are in `hashes`.

    Fields that share a vocabulary are merged at the same time, all others one after the other: of the texts of the
    whole table, no more are in memory than one vocabulary needs. UserError where that is more than the budget.
    """
    specs, blanks = shards.reader.specs, iter(shards.blanks())
    others = [[i] for i, spec in enumerate(specs[fields:], fields) if spec.name in hashes and not spec.numeric]
    found: dict[int, Known] = {}
    held = 0
    for family in [*_families(specs[:fields]), *others]:
        own = _family(shards, family, hashes, budget.less(held))
        held += sum(part.nbytes for known in own for part in (*known.ids, *known.hashes))
        found |= zip(family, own, strict=True)
    for i, spec in enumerate(specs):
        if spec.numeric:
            found[i] = Known(None, [], [], next(blanks), np.zeros(len(SPLITS)), np.zeros(len(SPLITS)))
    return [found[i] for i in sorted(found)]


def numbered(shards: Shards, spec: FieldSpec, budget: Budget) -> tuple[pl.Series, list[np.ndarray]]:
    """The distinct texts of a spec of the reader, ascending, and per shard the place (codes,) int32 of each, from 1.

    0 is a row without one.
    """
    every = _merged(shards, spec, budget)
    names = every.names()
    ranks = names.rank("dense").fill_null(0).cast(pl.Int32).to_numpy()
    return names.drop_nulls().sort(), [ranks[places] for places in every.places]


def _families(specs: Sequence[FieldSpec]) -> list[list[int]]:
    """The positions of the specs with texts, those together that share a vocabulary."""
    owners: dict[str, list[int]] = {}
    for i, spec in enumerate(specs):
        if not spec.numeric:
            owners.setdefault(spec.shares or spec.name, []).append(i)
    return list(owners.values())


def _family(shards: Shards, family: list[int], hashes: set[str], budget: Budget) -> list[Known]:
    specs = [shards.reader.specs[i] for i in family]
    every = [_merged(shards, spec, budget) for spec in specs]
    words, ids = _ids(specs, every)
    return [_known(words, each, own, spec.name in hashes) for spec, each, own in zip(specs, every, ids, strict=True)]


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


def _merged(shards: Shards, spec: FieldSpec, budget: Budget) -> Merged:
    what, words = f"column '{spec.column}'", shards.words(shards.reader.places[spec])
    if spec.num_buckets:
        check = partial(budget.refuse, f"{what}: {spec.num_buckets:,} buckets", "Give the field fewer num_buckets")
        return merged_buckets(words, spec.num_buckets, check)
    cure = "Give the field num_buckets, which need no vocabulary" if spec.name else "Group by another column"
    return merged_words(words, partial(budget.refuse, f"{what}: its different values", cure))


def _known(words: pl.DataFrame | None, every: Merged, ids: np.ndarray, with_hashes: bool) -> Known:
    hash_of = hashed(every.names()) if with_hashes else None
    return Known(
        words,
        [ids[places] for places in every.places],
        [] if hash_of is None else [hash_of[places] for places in every.places],
        every.counts[:, 0],
        every.counts[:, 1:].sum(1),
        every.unseen(every.counts[0] > 0 if words is None else ids > 0),
        every.filled() if words is None else None,
    )

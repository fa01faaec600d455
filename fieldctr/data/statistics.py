"""What the train rows say about a value, or a cross of values, as one number per row.

target_mean: (clicks + smoothing * rate) / (rows + smoothing) over the value's rows, `rate` being that of all rows:
Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes in classification and prediction
problems", SIGKDD Explorations 2001, with its lambda = n / (n + smoothing).
count: log(1 + the value's share of the rows, times the rows of train).

Rows of valid, test and predict see all of train. A train row must not see its own label: it sees the folds that it is
not in; or, where folds are cut by time, the earlier ones, as in ordered statistics (Prokhorenkova et al., "CatBoost:
unbiased boosting with categorical features", NeurIPS 2018, section 3.2).
Differs: a fold of time is a slice of many rows, because CatBoost's order row by row would need a sort of the table. So
do servers that refresh their statistics now and then.

Between the passes of `fieldctr.data.encode`, codes and labels of train become counts, and counts numbers; from there on
a statistic is what a field of kind value or quantile is. Memory: 24 bytes per statistic, distinct value and fold of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data import npy
from fieldctr.data.blocks import Block, blocks
from fieldctr.data.counts import FOLD, Counting, Counts
from fieldctr.data.hashing import mixed, row_places
from fieldctr.data.npy import read_blocks
from fieldctr.data.numbers import Binning, fit_bins
from fieldctr.data.ragged import Codes, Ragged
from fieldctr.data.reader import Reader
from fieldctr.data.shards import Shards
from fieldctr.data.specs import Spec, StatisticSpec
from fieldctr.data.table import SPLITS
from fieldctr.errors import UserError

STATISTICS_FILE = "statistics.parquet"
Hashes = Mapping[str, list[np.ndarray]]  # by field or column, per shard the hash of each of its codes
ALL = np.zeros(1, np.uint64)  # the key under which every row counts; as the key of a value: it is missing


class Cross(NamedTuple):
    """The inputs of a statistic: per input the place of its codes, and per shard the hash of each of its codes."""

    parts: list[tuple[int, list[np.ndarray]]]

    def keys(self, codes: Sequence[Codes], shard: int = 0) -> Ragged:
        """Codes to keys without folds: one per value of a multi-valued input, else one; ALL where one is missing."""
        lengths, rows = _values_per_row([codes[place] for place, _ in self.parts])
        key, missing = np.zeros(1, np.uint64), np.zeros(1, bool)
        for place, hashes in self.parts:
            part = codes[place]
            own = hashes[shard][part.values if isinstance(part, Ragged) else part[rows]]
            key, missing = mixed(key + own), missing | (own == 0)  # a text that says nothing has no hash either
        return Ragged(np.where(missing, ALL, key & ~FOLD), lengths)


class Statistic(NamedTuple):
    """What was learned from train."""

    spec: StatisticSpec
    cross: Cross
    whole: Counts  # by value
    sight: Counts | None = None  # what train rows may see, by value and fold
    slices: Binning | None = None  # of time, that make the folds

    def numbers(
        self, codes: Sequence[Codes], fold: np.ndarray | None = None, shard: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The numbers (n,) of rows with these codes, means over their values; NaN where no value or row is seen.

        And counts (4,): rows without a number, rows, values without a row, values. Rows of train have a fold (n,).
        """
        found = self.cross.keys(codes, shard)
        keys, of_row, num_rows = found.values, found.rows, len(found.lengths)
        known = keys != ALL
        if fold is None or self.sight is None:
            (rows, clicks), (all_rows, all_clicks) = self.whole.find(keys), self.whole.find(ALL)
        else:
            (rows, clicks), everything = self.sight.find(keys | fold[of_row]), self.sight.find(ALL | fold)
            all_rows, all_clicks = (part[of_row] for part in everything)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.spec.kind == "count":
                value = np.log1p(rows * (self.whole.find(ALL)[0] / all_rows))
            else:
                rate, weight = all_clicks / all_rows, rows + self.spec.smoothing
                value = np.where(weight > 0, (clicks + self.spec.smoothing * rate) / weight, rate)
            sums = np.bincount(of_row, np.where(known, value, 0.0), minlength=num_rows)
            mean = sums / np.bincount(of_row, known, minlength=num_rows)
        return mean, np.array([np.isnan(mean).sum(), len(mean), (known & (rows == 0)).sum(), known.sum()])


class Seen(NamedTuple):
    """Per statistic and split, the share of rows without a number, and of values that no train row in sight has.

    Per history the share of rows without an event, and of events without an id.
    """

    missing: np.ndarray  # (T, 3)
    unseen: np.ndarray  # (T, 3)

    def followed_by(self, more: "Seen") -> "Seen":
        """Both."""
        return Seen(*map(np.concatenate, zip(self, more, strict=True)))


def times(specs: tuple[Spec, ...]) -> tuple[tuple[str, str], ...]:
    """The columns, with units, by which statistics order the train rows."""
    timed = (spec for spec in specs if isinstance(spec, StatisticSpec))
    return tuple(dict.fromkeys((spec.time, spec.unit) for spec in timed if spec.time))


def learn(specs: tuple[Spec, ...], shards: Shards, hashes: Hashes) -> list[Statistic]:
    """The statistics of train, from the codes, times and labels of pass one."""
    own = [spec for spec in specs if isinstance(spec, StatisticSpec)]
    slices, inputs = [_slices(spec, shards) for spec in own], _crosses(own, shards.reader, hashes)
    counting = [Counting() for _ in own]
    for block in blocks(shards, "train") if own else ():
        clicks = block.label.astype(np.int64)
        for spec, cut, cross, each in zip(own, slices, inputs, counting, strict=True):
            keys, fold = cross.keys(block.codes, block.shard), _folds(spec, cut, shards.reader, block)
            known, rows = keys.values != ALL, keys.rows
            each.add((keys.values | fold[rows])[known], clicks[rows][known])
            each.add(ALL | fold, clicks)
    counts = [each.counts() for each in counting]
    sight = [part.earlier() if cut else part.others() for part, cut in zip(counts, slices, strict=True)]
    return list(map(Statistic, own, inputs, [part.whole() for part in counts], sight, slices))


def fill(statistics: list[Statistic], shards: Shards, folder: Path) -> Seen:
    """Write the statistics of each split's rows, in the order of its blocks: see `numbers`."""
    found = np.zeros((len(statistics), len(SPLITS), 4))
    for s, split in enumerate(SPLITS if statistics else ()):
        with (folder / f"{split}.statistics").open("wb") as file:
            for block in blocks(shards, split):
                lines = []
                for i, statistic in enumerate(statistics):
                    fold = _folds(statistic.spec, statistic.slices, shards.reader, block) if split == "train" else None
                    line, counts = statistic.numbers(block.codes, fold, block.shard)
                    lines.append(line)
                    found[i, s] += counts
                npy.save(file, np.array(lines))
    missing, rows, unseen, values = np.moveaxis(found, 2, 0)
    return Seen(missing / np.maximum(rows, 1), unseen / np.maximum(values, 1))


def numbers(shards: Shards, folder: Path, split: str) -> Iterator[np.ndarray]:
    """The numbers (Q, n) of the blocks of a split: those of the fields, then what `fill` wrote."""
    cut, path = shards.reader.num_numeric, folder / f"{split}.statistics"
    filled = read_blocks(path) if path.exists() else repeat(None)
    for block in shards.column(split, "numbers"):
        lines = next(filled)
        yield block[:cut] if lines is None else np.concatenate([block[:cut], lines])


def new_numbers(statistics: list[Statistic], codes: Sequence[Codes], rows: int) -> np.ndarray:
    """Codes of `rows` rows that are not of train to numbers (T, n)."""
    lines = [statistic.numbers(codes)[0] for statistic in statistics]
    return np.array(lines).reshape(len(lines), rows)


def save(statistics: list[Statistic], folder: Path) -> None:
    """What new rows need: the counts of whole train."""
    tables = [
        pl.DataFrame(statistic.whole._asdict()).select(pl.lit(statistic.spec.name).alias("field"), pl.all())
        for statistic in statistics
    ]
    if tables:
        pl.concat(tables).write_parquet(folder / STATISTICS_FILE)


def load(specs: tuple[Spec, ...], reader: Reader, hashes: Hashes, folder: Path) -> list[Statistic]:
    """What `save` wrote, for the codes of a reader of other rows."""
    own = [spec for spec in specs if isinstance(spec, StatisticSpec)]
    tables = pl.read_parquet(folder / STATISTICS_FILE).partition_by("field", as_dict=True) if own else {}
    entries = [tables[spec.name,].select(Counts._fields).get_columns() for spec in own]
    counts = [Counts(*map(pl.Series.to_numpy, entry)) for entry in entries]
    return list(map(Statistic, own, _crosses(own, reader, hashes), counts))


def used(specs: tuple[Spec, ...]) -> set[str]:
    """The fields and columns that a statistic is of."""
    return {name for spec in specs if isinstance(spec, StatisticSpec) for name in spec.of}


def _values_per_row(codes: Sequence[Codes]) -> tuple[np.ndarray, np.ndarray]:
    """Per row (n,) how many values it has, and per value its row: those of the one input that is multi-valued."""
    for part in codes:
        if isinstance(part, Ragged):
            return part.lengths, part.rows
    rows = np.arange(len(codes[0]))
    return np.ones(len(rows), np.int64), rows


def _crosses(specs: list[StatisticSpec], reader: Reader, hashes: Hashes) -> list[Cross]:
    """The inputs of each statistic, for the codes of `reader`."""
    parts = {spec.name: (i, hashes[spec.name]) for i, spec in enumerate(reader.specs) if spec.name in hashes}
    return [Cross([parts[name] for name in spec.of]) for spec in specs]


def _slices(spec: StatisticSpec, shards: Shards) -> Binning | None:
    """The edges that cut the train rows into `folds` slices of time of about equal size."""
    if spec.time is None:
        return None
    line = shards.reader.num_numeric + shards.reader.times.index((spec.time, spec.unit))
    times = (block[line] for block in shards.column("train", "numbers"))
    slices = fit_bins((_without_blanks(time, spec) for time in times), spec.folds)
    if not slices.edges:
        raise UserError(f"field '{spec.name}': all train rows have one time in column '{spec.time}': none is earlier")
    return slices


def _without_blanks(time: np.ndarray, spec: StatisticSpec) -> np.ndarray:
    if np.isnan(time).any():
        raise UserError(
            f"field '{spec.name}': column '{spec.time}' is blank in a train row, which is then neither earlier nor "
            "later than another. Leave such rows out, or the key time."
        )
    return time


def _folds(spec: StatisticSpec, slices: Binning | None, reader: Reader, block: Block) -> np.ndarray:
    """(n,) uint64 from 1: by time, or by a hash of the row's position among the train rows."""
    if slices is not None and spec.time is not None:
        return slices.ids(block.times[reader.times.index((spec.time, spec.unit))]).astype(np.uint64)
    rows = np.arange(block.start, block.start + len(block.label))
    return (row_places(rows, spec.seed) * spec.folds).astype(np.uint64) + np.uint64(1)

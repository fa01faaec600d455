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

Between the passes of `fieldctr.data.encode`, codes and labels of train become counts, and counts numbers, which are
added to those of the shards; from there on a statistic is what a field of kind value or quantile is.
Memory: 24 bytes per statistic, distinct value and fold of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from fieldctr.data.counts import FOLD, Counting, Counts
from fieldctr.data.coverage import Coverage
from fieldctr.data.encoders.encoder import Columns, FittedTexts, Learned, Loading, Training
from fieldctr.data.encoders.numbers import encoded, fit_numbers, load_numbers
from fieldctr.data.fields.kinds import Spec, StatisticSpec, statistic_specs
from fieldctr.data.hashing import mixed, unit_interval_of_rows
from fieldctr.data.numbers import Binning, fit_bins
from fieldctr.data.shards import Block, Shards
from fieldctr.data.shards.ragged import Codes, Ragged
from fieldctr.data.table import SPLITS
from fieldctr.errors import UserError

STATISTICS_FILE = "statistics.parquet"
ALL = np.zeros(1, np.uint64)  # the key under which every row counts; as the key of a value: it is missing


class Cross(NamedTuple):
    """The inputs of a statistic: by field or column, per shard the hash of each of its codes."""

    inputs: Mapping[str, list[np.ndarray]]

    def keys(self, block: Block) -> Ragged:
        """Codes to keys without folds: one per value of a multi-valued input, else one; ALL where one is missing."""
        lengths, rows = _values_per_row([block.codes[name] for name in self.inputs])
        key, missing = np.zeros(1, np.uint64), np.zeros(1, bool)
        for name, hashes in self.inputs.items():
            codes = block.codes[name]
            hash_of_value = hashes[block.shard][codes.values if isinstance(codes, Ragged) else codes[rows]]
            key = mixed(key + hash_of_value)
            missing = missing | (hash_of_value == 0)  # a text that says nothing has no hash either
        return Ragged(np.where(missing, ALL, key & ~FOLD), lengths)


class Seen(NamedTuple):
    """What rows of train are seen."""

    rows: np.ndarray
    clicks: np.ndarray


class Statistic(NamedTuple):
    """What was learned from train."""

    spec: StatisticSpec
    cross: Cross
    totals: Counts  # by value
    out_of_fold: Counts | None = None  # what train rows may see, by value and fold
    slices: Binning | None = None  # of time, that make the folds

    def numbers(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """The numbers (n,) of rows, means over their values; NaN where no value or row is seen.

        And counts (4,), as Coverage has them: rows, those without a number, values, those that no row seen has.
        """
        lists = self.cross.keys(block)
        keys, of_row, num_rows = lists.values, lists.rows, len(lists.lengths)
        known = keys != ALL
        if block.split != "train" or self.out_of_fold is None:
            (rows, clicks), (all_rows, all_clicks) = self.totals.find(keys), self.totals.find(ALL)
        else:
            fold = _folds(self.spec, self.slices, block)
            (rows, clicks), of_all = self.out_of_fold.find(keys | fold[of_row]), self.out_of_fold.find(ALL | fold)
            all_rows, all_clicks = (counts[of_row] for counts in of_all)
        value = _numbers(self.spec, Seen(rows, clicks), Seen(all_rows, all_clicks), self.totals.find(ALL)[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            sums = np.bincount(of_row, np.where(known, value, 0.0), minlength=num_rows)
            mean = sums / np.bincount(of_row, known, minlength=num_rows)
        return mean, np.array([len(mean), np.isnan(mean).sum(), known.sum(), (known & (rows == 0)).sum()])


@dataclass(frozen=True)
class Statistics:
    """The fields of kind target_mean and count."""

    statistics: list[Statistic]
    fields: dict[str, Learned]
    coverages: dict[str, list[Coverage]]

    @classmethod
    def fit(cls, specs: tuple[Spec, ...], training: Training) -> "Statistics":
        statistics = _count(statistic_specs(specs), training.shards, training.texts)
        counts = np.zeros((len(SPLITS), len(statistics), 4), np.int64)
        names = [statistic.spec.name for statistic in statistics]
        if statistics:
            lines = {split: _lines(statistics, training.shards, split, counts[s]) for s, split in enumerate(SPLITS)}
            training.shards.add_numbers(names, lines)
        fields = {
            statistic.spec.name: fit_numbers(statistic.spec, lambda name=name: training.shards.numbers("train", name))
            for name, statistic in zip(names, statistics, strict=True)
        }
        by_field = zip(names, counts.swapaxes(0, 1).tolist(), strict=True)
        coverages = {name: [Coverage(*of_split) for of_split in of_splits] for name, of_splits in by_field}
        return cls(statistics, fields, coverages)

    @classmethod
    def load(cls, specs: tuple[Spec, ...], loading: Loading) -> "Statistics":
        own, totals = statistic_specs(specs), load_totals(loading.folder, specs)
        statistics = [Statistic(spec, _cross(spec, loading.texts), totals[spec.name]) for spec in own]
        return cls(statistics, {spec.name: load_numbers(spec, loading) for spec in own}, {})

    def apply(self, block: Block) -> dict[str, Columns]:
        columns = {}
        for statistic in self.statistics:
            name, numbers = statistic.spec.name, block.numbers.get(statistic.spec.name)
            if numbers is None:  # of a new row
                numbers, counts = statistic.numbers(block)
                self.coverages[name] = [Coverage(*counts.tolist())]
            columns[name] = encoded(self.fields[name], numbers)
        return columns

    def learned(self) -> dict[str, Learned]:
        return self.fields

    def coverage(self) -> dict[str, list[Coverage]]:
        return self.coverages

    def save(self, folder: Path) -> None:
        """What new rows need: the counts of whole train."""
        tables = [
            pl.DataFrame(statistic.totals._asdict()).select(pl.lit(statistic.spec.name).alias("field"), pl.all())
            for statistic in self.statistics
        ]
        if tables:
            pl.concat(tables).write_parquet(folder / STATISTICS_FILE)


def numbers_of(spec: StatisticSpec, totals: Counts) -> tuple[np.ndarray, np.ndarray, float]:
    """What a row after train sees: keys (n,) ascending, the number of each, and that of a key without an entry."""
    everything = Seen(*totals.find(ALL))
    known = _numbers(spec, Seen(totals.rows, totals.clicks), everything, everything.rows)
    (unseen,) = _numbers(spec, Seen(np.zeros(1), np.zeros(1)), everything, everything.rows)
    return totals.keys, known, float(unseen)


def _numbers(spec: StatisticSpec, own: Seen, everything: Seen, train_rows: np.ndarray) -> np.ndarray:
    """The number of each value (n,), of which `own` rows are seen, as are `everything` of all values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if spec.kind == "count":
            return np.log1p(own.rows * (train_rows / everything.rows))
        rate, weight = everything.clicks / everything.rows, own.rows + spec.smoothing
        return np.where(weight > 0, (own.clicks + spec.smoothing * rate) / weight, rate)


def load_totals(folder: Path, specs: Sequence[Spec]) -> dict[str, Counts]:
    """By statistic the counts of whole train, as `save` wrote them."""
    own = statistic_specs(specs)
    tables = pl.read_parquet(folder / STATISTICS_FILE).partition_by("field", as_dict=True) if own else {}
    entries = {spec.name: tables[spec.name,].select(Counts._fields).get_columns() for spec in own}
    return {name: Counts(*map(pl.Series.to_numpy, entry)) for name, entry in entries.items()}


def _count(specs: list[StatisticSpec], shards: Shards, texts: Mapping[str, FittedTexts]) -> list[Statistic]:
    """The statistics of train, from the codes, times and labels of pass one."""
    slices, inputs = [_slices(spec, shards) for spec in specs], [_cross(spec, texts) for spec in specs]
    counting = [Counting() for _ in specs]
    for block in shards.blocks("train") if specs else ():
        clicks = block.label.astype(np.int64)
        for spec, cut, cross, counter in zip(specs, slices, inputs, counting, strict=True):
            keys, fold = cross.keys(block), _folds(spec, cut, block)
            valued, rows = keys.values != ALL, keys.rows
            counter.add((keys.values | fold[rows])[valued], clicks[rows][valued])
            counter.add(ALL | fold, clicks)
    counts = [counter.counts() for counter in counting]
    out_of_fold = [own.earlier_folds() if cut else own.other_folds() for own, cut in zip(counts, slices, strict=True)]
    return list(map(Statistic, specs, inputs, [own.all_folds() for own in counts], out_of_fold, slices))


def _lines(statistics: list[Statistic], shards: Shards, split: str, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers (statistics, n) of a split, block by block; what they count is added to `counts` (statistics, 4)."""
    for block in shards.blocks(split):
        lines = []
        for statistic, total in zip(statistics, counts, strict=True):
            line, more = statistic.numbers(block)
            lines.append(line)
            np.add(total, more, out=total)
        yield np.array(lines)


def _values_per_row(codes: Sequence[Codes]) -> tuple[np.ndarray, np.ndarray]:
    """Per row (n,) how many values it has, and per value its row: those of the one input that is multi-valued."""
    for column in codes:
        if isinstance(column, Ragged):
            return column.lengths, column.rows
    rows = np.arange(len(codes[0]))
    return np.ones(len(rows), np.int64), rows


def _cross(spec: StatisticSpec, texts: Mapping[str, FittedTexts]) -> Cross:
    return Cross({name: texts[name].hashes for name in spec.of})


def _slices(spec: StatisticSpec, shards: Shards) -> Binning | None:
    """The edges that cut the train rows into `folds` slices of time of about equal size."""
    if spec.time is None:
        return None
    times = (times[spec.time, spec.unit] for _, times in shards.lines("train"))
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


def _folds(spec: StatisticSpec, slices: Binning | None, block: Block) -> np.ndarray:
    """(n,) uint64 from 1: by time, or by a hash of the row's position among the train rows."""
    if slices is not None and spec.time is not None:
        return slices.ids(block.times[spec.time, spec.unit]).astype(np.uint64)
    rows = np.arange(block.start, block.start + len(block))
    return (unit_interval_of_rows(rows, spec.seed) * spec.folds).astype(np.uint64) + np.uint64(1)

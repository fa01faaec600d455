"""Fields of numbers: the bin of each number, or the number itself, scaled."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fieldctr.data.coverage import Coverage
from fieldctr.data.encoders.encoder import Columns, Learned, Loading, Training
from fieldctr.data.kinds import FieldSpec, Spec, StatisticSpec, number_specs
from fieldctr.data.lexicon import WORDS
from fieldctr.data.numbers import Binning, Scaling, fit_bins, fit_scaling
from fieldctr.data.shards import Block
from fieldctr.schema import Field

Stream = Callable[[], Iterator[np.ndarray]]  # the numbers of train, as often as they are asked for


@dataclass(frozen=True)
class Numbers:
    """The fields of kind quantile and value."""

    found: dict[str, Learned]
    missing: dict[str, list[Coverage]]

    @classmethod
    def fit(cls, specs: tuple[Spec, ...], work: Training) -> "Numbers":
        own, blanks, rows = number_specs(specs), work.shards.blanks(), work.shards.tally.rows
        found = {spec.name: fitted(spec, lambda name=spec.name: work.shards.numbers("train", name)) for spec in own}
        missing = {spec.name: [*map(_coverage, rows.tolist(), blanks[spec.name].tolist())] for spec in own}
        return cls(found, missing)

    @classmethod
    def load(cls, specs: tuple[Spec, ...], work: Loading) -> "Numbers":
        own, block = number_specs(specs), work.rows.block
        found = {spec.name: loaded(spec, work) for spec in own}
        blanks = {spec.name: int(np.isnan(block.numbers[spec.name]).sum()) for spec in own}
        return cls(found, {name: [_coverage(len(block), blank)] for name, blank in blanks.items()})

    def apply(self, block: Block) -> dict[str, Columns]:
        return {name: encoded(own, block.numbers[name]) for name, own in self.found.items()}

    def learned(self) -> dict[str, Learned]:
        return self.found

    def coverage(self) -> dict[str, list[Coverage]]:
        return self.missing

    def save(self, folder: Path) -> None:
        """Bins and scales are all."""


def fitted(spec: FieldSpec | StatisticSpec, train: Stream) -> Learned:
    """Bins or a scale for the numbers of a field, from those of train."""
    if spec.kind == "value" and spec.scale == "none":
        return _learned(spec, Scaling(0.0, 1.0))
    if spec.kind == "value" or spec.bins is None:
        return _learned(spec, fit_scaling(train()))
    bins = fit_bins(train(), spec.bins)
    texts = bins.texts()
    counts = np.zeros(len(texts) + 1, np.int64)
    for numbers in train():
        counts += np.bincount(bins.ids(numbers), minlength=len(counts))
    ids = np.arange(1, len(texts) + 1)
    return _learned(spec, bins, pl.DataFrame({"value": texts, "id": ids, "count": counts[ids]}, schema=WORDS))


def loaded(spec: FieldSpec | StatisticSpec, work: Loading) -> Learned:
    """What `fitted` found when the table was prepared."""
    return _learned(spec, work.saved.scales[spec.name], work.saved.words.get(spec.name))


def encoded(learned: Learned, numbers: np.ndarray) -> Columns:
    """The columns of numbers (n,), NaN where there is none."""
    assert learned.scale is not None
    ids, values = learned.scale.encoded(numbers)
    return Columns(ids.astype(np.int32)[None], values)


def _learned(spec: FieldSpec | StatisticSpec, scale: Binning | Scaling, words: pl.DataFrame | None = None) -> Learned:
    size = 2 if words is None else len(words) + 1
    return Learned(Field(spec.name, size, numeric=scale.numeric, text=spec.text), words, scale)


def _coverage(rows: int, missing: int) -> Coverage:
    return Coverage(rows, missing, rows - missing, 0)

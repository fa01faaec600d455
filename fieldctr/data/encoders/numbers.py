"""Fields of numbers: the bin of each number, or the number itself, scaled."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fieldctr.data.coverage import Coverage
from fieldctr.data.encoders.encoder import Columns, Learned, Loading, Training
from fieldctr.data.fields.kinds import FieldSpec, Spec, StatisticSpec, number_specs
from fieldctr.data.numbers import Binning, Scaling, fit_bins, fit_scaling
from fieldctr.data.shards import Block
from fieldctr.data.shards.dictionary import VOCABULARY
from fieldctr.schema import Field

Stream = Callable[[], Iterator[np.ndarray]]  # the numbers of train, as often as they are asked for


@dataclass(frozen=True)
class Numbers:
    """The fields of kind quantile and value."""

    fields: dict[str, Learned]
    coverages: dict[str, list[Coverage]]

    @classmethod
    def fit(cls, specs: tuple[Spec, ...], training: Training) -> "Numbers":
        own, blanks, rows = number_specs(specs), training.shards.blanks(), training.shards.row_counts.rows
        fields = {
            spec.name: fit_numbers(spec, lambda name=spec.name: training.shards.numbers("train", name)) for spec in own
        }
        coverages = {spec.name: [*map(_coverage, rows.tolist(), blanks[spec.name].tolist())] for spec in own}
        return cls(fields, coverages)

    @classmethod
    def load(cls, specs: tuple[Spec, ...], loading: Loading) -> "Numbers":
        own, block = number_specs(specs), loading.rows.block
        fields = {spec.name: load_numbers(spec, loading) for spec in own}
        blanks = {spec.name: int(np.isnan(block.numbers[spec.name]).sum()) for spec in own}
        return cls(fields, {name: [_coverage(len(block), blank)] for name, blank in blanks.items()})

    def apply(self, block: Block) -> dict[str, Columns]:
        return {name: encoded(learned, block.numbers[name]) for name, learned in self.fields.items()}

    def learned(self) -> dict[str, Learned]:
        return self.fields

    def coverage(self) -> dict[str, list[Coverage]]:
        return self.coverages

    def save(self, folder: Path) -> None:
        """Nothing: encoding.json has bins and scales."""


def fit_numbers(spec: FieldSpec | StatisticSpec, train: Stream) -> Learned:
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
    return _learned(spec, bins, pl.DataFrame({"value": texts, "id": ids, "count": counts[ids]}, schema=VOCABULARY))


def load_numbers(spec: FieldSpec | StatisticSpec, loading: Loading) -> Learned:
    """What `fit_numbers` gave when the table was prepared."""
    return _learned(spec, loading.saved.scales[spec.name], loading.saved.vocabularies.get(spec.name))


def encoded(learned: Learned, numbers: np.ndarray) -> Columns:
    """The columns of numbers (n,), NaN where there is none."""
    assert learned.scale is not None
    ids, values = learned.scale.encoded(numbers)
    return Columns(ids.astype(np.int32)[None], values)


def _learned(spec: FieldSpec | StatisticSpec, scale: Binning | Scaling, bins: pl.DataFrame | None = None) -> Learned:
    size = 2 if bins is None else len(bins) + 1
    return Learned(Field(spec.name, size, numeric=scale.numeric, text=spec.text), bins, scale)


def _coverage(rows: int, missing: int) -> Coverage:
    return Coverage(rows, missing, rows - missing, 0)

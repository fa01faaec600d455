"""What a field is: read from a raw column (FieldSpec), learned from what train says about others (StatisticSpec), made
of what a user did before (HistorySpec), or looked up in a file of vectors (VectorSpec).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

from fieldctr.config import Between, Positive, Weight
from fieldctr.data.columns import OWN

Kind = Literal["categorical", "multi", "quantile", "log_square", "value", "datetime", "cross"]
StatisticKind = Literal["target_mean", "count"]
HistoryKind = Literal["history"]
VectorKind = Literal["vector"]
Part = Literal["minute", "hour", "weekday", "is_weekend", "day", "month", "year"]
STATISTICS = get_args(StatisticKind)
DERIVED = (*STATISTICS, *get_args(HistoryKind))  # read from no column of their own
MAX_FOLDS = 255  # see fieldctr.data.counts
MAX_BUCKETS = 2**31 - 2  # ids are int32
Time = tuple[str, str]  # a column, and its unit
LATER: dict[str, object] = {"keep": "first", "padding": ()}  # keys that say nothing, and are left out of records


@dataclass(frozen=True)
class FieldSpec:
    """One field: where it is read and how it is encoded. `min_count` is the frequency a value needs in train."""

    name: str
    column: str
    kind: Kind = "categorical"
    min_count: Positive = 1
    missing: str = ""  # categorical, log_square: one encoded value that means missing, such as -1
    null_words: bool = True  # nan, NULL, None and their like mean missing: fieldctr.data.fields.spelling.NULL_WORDS
    separator: str = ","  # multi; a list column needs none
    max_length: Positive = 8  # multi: values kept per row
    shares: str = ""  # this categorical field's vocabulary and table. multi: a history of its values; repeats stay
    bins: Positive = 16  # quantile
    scale: Literal["standard", "none"] = "standard"  # value
    part: Part = "hour"  # datetime; weekday counts from Monday = 1
    unit: str = "s"  # datetime: s | ms | us since 1970 in UTC, iso, or a format such as %d/%m/%Y
    text: str = ""  # what a language model reads
    synonym: str = ""  # the same in other words: to see whether a gain depends on the wording
    columns: tuple[str, ...] = ()  # cross, multi: a value of each makes one value, or a list; `column` is the first
    bucket: int = 0  # categorical, when schema=split: only values of this hash bucket, the others are missing
    buckets: int = 1
    num_buckets: Annotated[int, Between(1, MAX_BUCKETS)] | None = None  # id = 1 + hash % num_buckets; no vocabulary
    keep: Literal["first", "last"] = "first"  # multi: which values of a longer list; last where `shares` is set
    padding: tuple[str, ...] = ()  # multi: values, spelled so, that fill up lists and mean nothing

    times = times_of_new_rows = crosses = files = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The raw columns that it needs."""
        return self.columns or (self.column,)

    def sources(self, specs: Sequence["Spec"]) -> list["FieldSpec"]:
        """What has to be read for it, `specs` being all of the table."""
        return [self]

    @property
    def what(self) -> str:
        """What it encodes, for a message."""
        return f"column '{self.column}'"

    @property
    def width(self) -> int:
        """How many id columns it has."""
        return self.max_length if self.kind == "multi" else 1

    @property
    def numeric(self) -> bool:
        """Whether the raw value itself, not only a code for it, is needed to encode."""
        return self.kind in ("quantile", "value")


@dataclass(frozen=True)
class StatisticSpec:
    """A field that says how often train rows like this one were seen, or clicked: fieldctr.data.encoders.statistics."""

    name: str
    kind: StatisticKind
    of: tuple[str, ...]  # fields, or raw columns where no field is called so; several are crossed
    smoothing: Weight = 20.0  # target_mean: rows at the global rate that are added to those of each value
    folds: Annotated[int, Between(2, MAX_FOLDS)] = 5
    seed: Annotated[int, Between(0)] = 1  # of the folds
    time: str | None = None  # column; cuts the folds by time, and a train row sees the earlier ones only
    unit: str = "s"  # of time, as in a datetime field
    bins: Positive | None = None  # null: a standardised number
    text: str = ""
    synonym: str = ""

    width = 1
    numeric = True
    shares = ""
    num_buckets = None
    times_of_new_rows = files = ()  # new rows see all of train
    scale = "standard"  # where there are no bins

    @property
    def times(self) -> tuple[Time, ...]:
        """The times that order the rows of train."""
        return ((self.time, self.unit),) if self.time else ()

    @property
    def what(self) -> str:
        """What it encodes, for a message."""
        return " x ".join(self.of)

    def renamed(self, names: Mapping[str, str]) -> "StatisticSpec":
        """The spec, of fields that have other names now."""
        return replace(self, of=tuple(names.get(name, name) for name in self.of))

    @property
    def crosses(self) -> tuple[str, ...]:
        """The fields and columns whose values it tells apart by a hash."""
        return self.of

    def sources(self, specs: Sequence["Spec"]) -> list[FieldSpec]:
        """What has to be read for it: raw columns that are no field."""
        fields = {spec.name for spec in specs}
        return [FieldSpec(name, name) for name in self.of if name not in fields]


@dataclass(frozen=True)
class HistorySpec:
    """A field that says what the user did before, from earlier rows of the table: fieldctr.data.encoders.histories.

    Where each row brings its history in a column, that is a field of kind multi with the key shares.
    """

    name: str
    of: str  # categorical field: one vocabulary, one table
    by: str  # categorical field or cross, or a raw column where no field is called so: whose history it is
    time: str  # column: only strictly earlier rows are seen
    kind: HistoryKind = "history"
    unit: str = "s"  # of time, as in a datetime field
    clicked: bool = True  # only rows with label 1; false: every row
    max_length: Positive = 20  # the latest values that a row sees
    num_buckets: int | None = None  # its owner's
    text: str = ""
    synonym: str = ""

    numeric = False
    crosses = files = ()

    @property
    def shares(self) -> str:
        """The field whose vocabulary and table it has."""
        return self.of

    @property
    def width(self) -> int:
        """How many id columns it has."""
        return self.max_length

    @property
    def times(self) -> tuple[Time, ...]:
        """The time that orders the rows."""
        return ((self.time, self.unit),)

    times_of_new_rows = times

    @property
    def what(self) -> str:
        """What it encodes, for a message."""
        return f"{self.of} by {self.by}"

    def renamed(self, names: Mapping[str, str]) -> "HistorySpec":
        """The spec, of fields that have other names now."""
        return replace(self, of=names.get(self.of, self.of), by=names.get(self.by, self.by))

    def sources(self, specs: Sequence["Spec"]) -> list[FieldSpec]:
        """What has to be read for it: the users."""
        return [self.user(specs)]

    def user(self, specs: Sequence["Spec"]) -> FieldSpec:
        """How `by` is read: each value by itself, also where the field is hashed."""
        field = next((spec for spec in raw_specs(specs) if spec.name == self.by), None)
        if field and field.num_buckets:
            return replace(field, name=f"{OWN}{self.by}", num_buckets=None)
        return field or FieldSpec(self.by, self.by)


@dataclass(frozen=True)
class VectorSpec:
    """A field that says what is known of a value from elsewhere, as numbers: fieldctr.data.encoders.vectors."""

    name: str
    column: str  # whose values are looked up
    file: str  # below the dataset's raw_dir: .npy, whose rows are those of `keys`, or Parquet
    kind: VectorKind = "vector"
    keys: str | None = None  # text file with a key per line, of a .npy
    key: str | None = None  # column of the keys, of Parquet; null: called as `column`
    vector: tuple[str, ...] = ()  # column of lists, or several of numbers, of Parquet; none: all but the key
    null_words: bool = True  # as of a categorical field
    text: str = ""
    synonym: str = ""

    width = 1
    numeric = False
    shares = ""
    num_buckets = None
    times = times_of_new_rows = crosses = ()

    @property
    def what(self) -> str:
        """What it encodes, for a message."""
        return f"column '{self.column}'"

    @property
    def files(self) -> tuple[str, ...]:
        """Below raw_dir, besides those of the source."""
        return (self.file, self.keys) if self.keys else (self.file,)

    def renamed(self, names: Mapping[str, str]) -> "VectorSpec":
        """The spec itself: it is of a column, and of no field."""
        return self

    def sources(self, specs: Sequence["Spec"]) -> list[FieldSpec]:
        """What has to be read for it: its column, as a categorical field reads it."""
        return [FieldSpec(self.name, self.column, null_words=self.null_words)]


Spec = FieldSpec | VectorSpec | StatisticSpec | HistorySpec


def spec_type(kind: str) -> Callable[..., Spec]:
    """The class of the specs of a kind."""
    derived = {"vector": VectorSpec, "history": HistorySpec, "target_mean": StatisticSpec, "count": StatisticSpec}
    return derived.get(kind, FieldSpec)


def raw_specs(specs: Sequence[Spec]) -> list[FieldSpec]:
    """The specs of fields that are read from the raw table."""
    return [spec for spec in specs if isinstance(spec, FieldSpec)]


def derived_specs(specs: Sequence[Spec]) -> list[VectorSpec | StatisticSpec | HistorySpec]:
    """The specs of fields that are made of others, or looked up: all that `raw_specs` leaves."""
    return [spec for spec in specs if not isinstance(spec, FieldSpec)]


def text_specs(specs: Sequence[Spec]) -> list[FieldSpec]:
    """The specs of fields that are read as texts."""
    return [spec for spec in raw_specs(specs) if not spec.numeric]


def number_specs(specs: Sequence[Spec]) -> list[FieldSpec]:
    """The specs of fields that are read as numbers."""
    return [spec for spec in raw_specs(specs) if spec.numeric]


def statistic_specs(specs: Sequence[Spec]) -> list[StatisticSpec]:
    """The specs of statistics."""
    return [spec for spec in specs if isinstance(spec, StatisticSpec)]


def history_specs(specs: Sequence[Spec]) -> list[HistorySpec]:
    """The specs of histories."""
    return [spec for spec in specs if isinstance(spec, HistorySpec)]


def vector_specs(specs: Sequence[Spec]) -> list[VectorSpec]:
    """The specs of vectors."""
    return [spec for spec in specs if isinstance(spec, VectorSpec)]

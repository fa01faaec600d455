"""Raw rows to id matrices in one pass over the raw table, with memory that does not grow with its rows.

Pass one cuts the table into shards (fieldctr.data.shards): polars turns each column into codes, which are counted and
written to disk. The encoders (fieldctr.data.encoders), one for each kind of field, learn from the train rows of the
shards. Pass two lets them encode all rows.
Joins on the raw table, the obvious way, cost twice as much.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import polars as pl

from fieldctr.data.bad_lines import explained, refuse_bad_lines
from fieldctr.data.budget import Budget, Limits
from fieldctr.data.coverage import Coverage
from fieldctr.data.dataset import FACTS_FILE, SCHEMA_FILE, Split, refuse_other_rows
from fieldctr.data.encoders.encoder import Encoder, Learned, Loading, Training
from fieldctr.data.encoders.histories import Histories
from fieldctr.data.encoders.numbers import Numbers
from fieldctr.data.encoders.statistics import Statistics
from fieldctr.data.encoders.texts import Texts, numbered
from fieldctr.data.encoders.vectors import Vectors
from fieldctr.data.encoding import Encoding
from fieldctr.data.facts import attainable, field_facts, without_group
from fieldctr.data.fields.kinds import Spec
from fieldctr.data.fields.specs import refuse_duplicates
from fieldctr.data.fields.spelling import number
from fieldctr.data.matrices import Groups, matrices, write_split
from fieldctr.data.reading import Reading
from fieldctr.data.shards import Shards, gaps, refuse_gaps, write_shards
from fieldctr.data.shards.in_memory import NewBlock
from fieldctr.data.shards.lists import resolved
from fieldctr.data.shards.ray_engine import Recipe, write_with_ray
from fieldctr.data.shards.reader import GROUP, Reader
from fieldctr.data.shards.row_counts import weight_facts
from fieldctr.data.shards.samples import row_columns
from fieldctr.data.table import LABEL, PCTR, SPLITS, Table, labels_explained
from fieldctr.disk import write_json
from fieldctr.schema import Schema

T = TypeVar("T")
SHARDS = "shards"  # folder of pass one
# Texts tell the others of their codes.
ENCODERS: tuple[type[Encoder], ...] = (Texts, Numbers, Vectors, Statistics, Histories)


def encode(
    table: Table,
    specs: tuple[Spec, ...],
    folder: Path,
    *,
    group: str | None,
    weight: str | None = None,
    work: Path | None = None,
    max_memory_gb: float | None = None,
    limits: Limits | None = None,
    source: Callable[[], Table] | None = None,
    raw_dir: Path = Path(),
) -> None:
    """Write the table into `folder`: per split ids (R, S), label (R,) and what else it has; schema, vocabulary, facts.

    `group` names the column whose values group the samples for gAUC, `weight` that of the sample
    weights. UserError for a table that cannot be trained on.
    Shards that lie in `work` from an earlier call are not read again. Without it they live in `folder`.
    A table that needs more than `max_memory_gb` is refused; None allows half of what the machine has left. `limits` of
    what is in memory at a time follow from it, unless they are given.
    With `source`, which gives the table once more, the workers of Ray make the shards. `raw_dir` is where the files of
    fields lie.
    """
    budget = Budget.of(max_memory_gb)
    shards_folder = work or folder / SHARDS
    with explained(table.files, table.separator):
        specs = resolved(specs, list(table.frame.collect_schema()))
    refuse_duplicates(specs)
    reader = Reader.of(specs, group)
    recipe = Recipe(source or (lambda: table), reader, group, weight, shards_folder.resolve(), limits)
    block_rows = recipe.limits_of(budget).block_rows
    rows_read, counts = _pass_one(table, recipe, budget, with_ray=source is not None)
    shards = Shards.of(reader, shards_folder, folder, block_rows)
    row_counts = shards.row_counts
    refuse_gaps(shards_folder, row_counts, rows_read)
    with labels_explained(table):
        row_counts.refuse_degenerate()
    facts: dict[str, Any] = row_counts.facts()
    if weight:
        facts["weight"] = weight_facts(weight, shards.weights(), row_counts.rows)

    encoders = fit(specs, Training(shards, budget, raw_dir, {}))
    learned = _all(encoder.learned() for encoder in encoders)
    groups = Groups(group, *numbered(shards, GROUP, budget)) if group else None
    for split, rows in zip(SPLITS, row_counts.rows.tolist(), strict=True):
        write_split(shards, specs, encoders, groups, folder / split)
        shards.drop_numbers(split)
        refuse_other_rows(folder, split, rows)

    _save(specs, learned, encoders, folder)
    coverage = _all(encoder.coverage() for encoder in encoders)
    facts |= {"fields": field_facts(specs, learned, coverage, shards), **table.facts}
    shutil.rmtree(folder / SHARDS, ignore_errors=True)
    if counts:
        facts["counts"] = counts
    if groups:
        facts["group"] = groups.facts() | {"blank": without_group(folder)}
    if PCTR in table.frame.collect_schema():
        facts |= attainable(folder)
    write_json(folder / FACTS_FILE, facts)


def fit(specs: tuple[Spec, ...], training: Training) -> list[Encoder]:
    """All encoders, fitted to the train rows one after the other."""
    return [encoder.fit(specs, training) for encoder in ENCODERS]


class Encoded(NamedTuple):
    """New rows as ids and values, and how much of each field the table knows."""

    split: Split
    coverage: dict[str, Coverage]


def encode_rows(frame: pl.LazyFrame, folder: Path, *, files: Mapping[Path, Reading | None] | None = None) -> Encoded:
    """New raw rows as the prepared `folder` would have encoded them. Without LABEL labels are NaN.

    Histories come from the prepared rows: the new rows do not see each other. `files`, and how they are read, are for
    messages.
    """
    saved, schema = Encoding.load(folder), Schema.load(folder / SCHEMA_FILE)
    readings = {path: reading for path, reading in (files or {}).items() if reading}
    with explained(files or (), readings=readings):
        columns = frame.collect_schema()
        label = number(pl.col(LABEL), columns[LABEL]) if LABEL in columns else pl.lit(float("nan"))
        rows = NewBlock.read(Reader.of_new_rows(saved.specs), frame, label)
    if rows is None:
        return Encoded(Split.empty(schema), {})
    loading = Loading(folder, saved, rows, {})
    encoders = [encoder.load(saved.specs, loading) for encoder in ENCODERS]
    split = Split.of(folder, schema, label=rows.block.label, **matrices(saved.specs, encoders, rows.block))
    coverage = _all(encoder.coverage() for encoder in encoders)
    return Encoded(split, {spec.name: coverage[spec.name][0] for spec in saved.specs})


def _all(of_encoders: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """What the encoders say of their fields, by field."""
    return dict(pair for by_field in of_encoders for pair in by_field.items())


def _save(specs: tuple[Spec, ...], learned: Mapping[str, Learned], encoders: list[Encoder], folder: Path) -> None:
    Schema(tuple(learned[spec.name].field for spec in specs)).save(folder / SCHEMA_FILE)
    vocabularies = {name: field.vocabulary for name, field in learned.items() if field.vocabulary is not None}
    scales = {name: field.scale for name, field in learned.items() if field.scale is not None}
    Encoding(specs, vocabularies, scales).save(folder)
    for encoder in encoders:
        encoder.save(folder)


def _pass_one(table: Table, recipe: Recipe, budget: Budget, *, with_ray: bool) -> tuple[int, dict[str, int]]:
    """Make the shards that are missing; gives how many rows there are, and what the source counted besides."""
    with explained(table.files, readings=table.written), labels_explained(table):
        for path, reading in table.written.items():
            refuse_bad_lines(path, reading)
        rows = write_with_ray(recipe, budget.gb) if with_ray else _write_here(table.frame, recipe, budget)
        numbers = pl.collect_all(table.counts.values())  # in one pass over what they share
        return rows, {what: int(number.item()) for what, number in zip(table.counts, numbers, strict=True)}


def _write_here(frame: pl.LazyFrame, recipe: Recipe, budget: Budget) -> int:
    """The shards one after the other; polars uses all cores for each. Gives how many rows there are."""
    limits = recipe.limits_of(budget)
    extra = row_columns(frame.collect_schema(), recipe.group, recipe.weight)
    end = 0
    for first, rows in list(gaps(recipe.folder)):
        part = frame.slice(first, rows) if first or rows else frame
        end = first + write_shards(recipe.reader, part, extra, recipe.folder, first=first, limits=limits)
    return end

"""Raw rows to id matrices in one pass over the raw table, with memory that does not grow with its rows.

Pass one cuts the table into shards (fieldctr.data.shards): polars turns each column into codes, which are counted and
written to disk. The codes of all shards give vocabularies, statistics and histories. Pass two turns codes into ids
through one look-up table per field and shard. A value's id is its rank by descending train count, then by text; 0 is
missing, unseen in train, or rarer than min_count. Bins keep their order.
Joins on the raw table, the obvious way, cost twice as much.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fieldctr.data import histories, statistics
from fieldctr.data.bad_lines import explained, refuse_bad_lines
from fieldctr.data.budget import Budget
from fieldctr.data.coverage import Coverage
from fieldctr.data.dataset import FACTS_FILE, SCHEMA_FILE, Split, refuse_other_rows
from fieldctr.data.distributed import Recipe, write_with_ray
from fieldctr.data.encoding import Encoding, Rule, apply
from fieldctr.data.facts import attainable, field_facts, without_group
from fieldctr.data.hashing import hashed
from fieldctr.data.lexicon import WORDS, bucket_codes, bucket_names
from fieldctr.data.lists import resolved
from fieldctr.data.npy import NpyWriter
from fieldctr.data.numbers import Binning, Scaling, fit_bins, fit_scaling
from fieldctr.data.ragged import joined, part, values_of
from fieldctr.data.reader import NO_CODES, Reader
from fieldctr.data.reading import Reading
from fieldctr.data.shards import SCALARS, Block, Shards, finite, gaps, refuse_gaps, row_columns, write_shards
from fieldctr.data.specs import FieldSpec, HistorySpec, Spec, StatisticSpec, refuse_twins
from fieldctr.data.spelling import number
from fieldctr.data.table import LABEL, PCTR, SPLITS, Table, labels_explained
from fieldctr.data.tally import weight_facts
from fieldctr.data.vocabularies import Known, known_texts, numbered
from fieldctr.disk import write_json

SHARDS = "shards"  # folder of pass one
CELLS = 1 << 23  # ids that pass two has in memory at a time


def encode(
    table: Table,
    specs: tuple[Spec, ...],
    folder: Path,
    *,
    group: str | None,
    weight: str | None = None,
    work: Path | None = None,
    max_memory_gb: float | None = None,
    source: Callable[[], Table] | None = None,
) -> None:
    """Write the table into `folder`: per split ids (R, S), label (R,) and what else it has; schema, vocabulary, facts.

    `group` names the column whose values group the samples for gAUC, `weight` that of the sample
    weights. UserError for a table that cannot be trained on.
    Shards that lie in `work` from an earlier call are not read again. Without it they live in `folder`.
    A table that needs more than `max_memory_gb` is refused; None allows half of what the machine has left.
    With `source`, which gives the table once more, the workers of Ray make the shards.
    """
    budget = Budget.of(max_memory_gb)
    parts = work or folder / SHARDS
    with explained(table.files, table.separator):
        specs = resolved(specs, list(table.frame.collect_schema()))
    refuse_twins(specs)
    times = dict.fromkeys((*statistics.times(specs), *histories.times(specs)))
    reader = Reader.of(specs, tuple(times), group)
    recipe = Recipe(source or (lambda: table), reader, group, weight, parts.resolve())
    rows_read, counts = _pass_one(table, recipe, budget, with_ray=source is not None)
    shards = Shards.of(reader, parts)
    tally = shards.tally()
    refuse_gaps(parts, tally, rows_read)
    with labels_explained(table):
        tally.refuse_degenerate()
    weights = {"weight": weight_facts(weight, shards.weights(), tally.rows)} if weight else {}

    fields = sum(isinstance(spec, FieldSpec) for spec in specs)
    known = known_texts(shards, fields, statistics.used(specs), budget)
    learned = statistics.learn(specs, shards, {s.name: k.hashes for s, k in zip(reader.specs, known, strict=False)})
    seen = statistics.fill(learned, shards, folder)
    encoding = _learn(specs, known[:fields], shards, folder)
    items = {spec.name: own.ids for spec, own in zip(specs, known[:fields], strict=False)}
    seen = seen.followed_by(histories.write(specs, shards, items, budget, folder))
    cut = dict(zip((spec.name for spec in reader.lists), shards.cut(), strict=True))
    fields_told = field_facts(specs, encoding.schema(), known, tally, seen, unread=shards.unread(), cut=cut)
    facts: dict[str, Any] = tally.facts() | weights | {"fields": fields_told, **table.facts}
    if counts:
        facts["counts"] = counts
    grouping: list[np.ndarray] = []  # per shard the group (codes,) of each code
    if group:
        texts, grouping = numbered(shards, reader.specs[-1], budget)
        facts |= {"group": {"column": group, "groups": len(texts)}}
    rules = _rules(encoding, known, len(shards.folders))
    for split, rows in zip(SPLITS, tally.rows.tolist(), strict=True):
        _write_ids(encoding, rules, grouping, shards, folder / split)
        refuse_other_rows(folder, split, rows)
    encoding.schema().save(folder / SCHEMA_FILE)
    encoding.save(folder)
    statistics.save(learned, folder)
    shutil.rmtree(folder / SHARDS, ignore_errors=True)
    if group:
        facts["group"]["blank"] = without_group(folder)
    if PCTR in table.frame.collect_schema():
        facts |= attainable(folder)
    write_json(folder / FACTS_FILE, facts)


class Encoded(NamedTuple):
    """New rows, and per field what the table knows of them."""

    split: Split
    coverage: dict[str, Coverage]


def encode_rows(frame: pl.LazyFrame, folder: Path, *, files: Mapping[Path, Reading | None] | None = None) -> Encoded:
    """New raw rows as the prepared `folder` would have encoded them. Without LABEL labels are NaN.

    Their histories are what the prepared rows tell of their users; they are no events of each other's. `files`, and how
    they are read, are for messages.
    """
    encoding = Encoding.load(folder)
    reader = Reader.of(encoding.specs, histories.times(encoding.specs))
    readings = {path: reading for path, reading in (files or {}).items() if reading}
    with explained(files or (), readings=readings):
        schema = frame.collect_schema()
        label = number(pl.col(LABEL), schema[LABEL]) if LABEL in schema else pl.lit(float("nan"))
        lexicons, chunks = reader.lexicons(), []
        for chunk in reader.chunks(frame, {"label": label}):
            columns, _ = reader.codes(lexicons, chunk.texts)
            reader.count(lexicons, 0, columns)
            chunks.append((columns, finite(chunk.numbers), chunk.extra["label"]))
        texts = [lexicon.texts() for lexicon in lexicons]
    if not chunks:
        return Encoded(_no_rows(encoding), {})
    columns, numbers, labels = zip(*chunks, strict=True)
    codes = reader.aligned([joined(parts) for parts in zip(*columns, strict=True)])
    numbers = np.concatenate(numbers, axis=1)
    hashes = _hashes(reader, texts, statistics.used(encoding.specs))
    learned = statistics.load(encoding.specs, reader, hashes, folder)
    plain = reader.num_numeric
    windows, past = histories.new_windows(encoding.specs, reader, texts, codes, numbers[plain:], folder=folder)
    numbers = np.concatenate([numbers[:plain], statistics.new_numbers(learned, codes, numbers.shape[1])])
    rules = encoding.rules(texts)
    ids, values = apply(rules, encoding.stored, codes, numbers)
    label = pl.concat(labels).cast(pl.Float32).to_numpy(writable=True)
    split = Split(ids, label, values if values.shape[1] else None, windows=windows, past=past)
    counts = [lexicon.counts[0, : lexicon.size] for lexicon in lexicons]
    return Encoded(split, _coverage(encoding, rules, list(zip(texts, counts, strict=True)), numbers, split))


def _no_rows(encoding: Encoding) -> Split:
    values = np.empty((0, encoding.schema().num_numeric), np.float32)
    return Split(np.empty((0, sum(spec.width for spec in encoding.stored)), np.int32), np.empty(0, np.float32), values)


def _coverage(
    encoding: Encoding,
    rules: Sequence[Rule],
    words: Sequence[tuple[pl.Series, np.ndarray]],
    numbers: np.ndarray,
    split: Split,
) -> dict[str, Coverage]:
    """Of each field: `words` are texts (codes,) and how often each stands, `numbers` (Q, n) the rest."""
    rows, found = len(split), dict[str, Coverage]()
    counted, lines = iter(words), iter(numbers)
    for spec, rule in zip(encoding.stored, rules, strict=True):
        if isinstance(rule, np.ndarray):
            texts, counts = next(counted)
            blank = texts.is_null().to_numpy()
            known = int(counts[~blank].sum())
            unseen = 0 if spec.num_buckets else int(counts[~blank & (rule == 0)].sum())
            found[spec.name] = Coverage(rows, int(counts[blank].sum()), known, unseen)
        else:
            missing = int(np.isnan(next(lines)).sum())
            found[spec.name] = Coverage(rows, missing, rows - missing, 0)
    for h, spec in enumerate(encoding.specs[len(encoding.stored) :]):
        assert split.windows is not None
        empty = int((split.windows[:, h] == split.windows[:, h + split.windows.shape[1] // 2]).sum())
        found[spec.name] = Coverage(rows, empty, rows - empty, 0)
    return found


def _pass_one(table: Table, recipe: Recipe, budget: Budget, *, with_ray: bool) -> tuple[int, dict[str, int]]:
    """Make the shards that are missing; gives how many rows there are, and what the source counted besides."""
    with explained(table.files, readings=table.written), labels_explained(table):
        for path, reading in table.written.items():
            refuse_bad_lines(path, reading)
        rows = write_with_ray(recipe, budget.gb) if with_ray else _write_here(table.frame, recipe, budget)
        found = pl.collect_all(table.counts.values())  # of one pass over what they share
        return rows, {what: int(number.item()) for what, number in zip(table.counts, found, strict=True)}


def _write_here(frame: pl.LazyFrame, recipe: Recipe, budget: Budget) -> int:
    """The shards one after the other; polars uses all cores for each. Gives how many rows there are."""
    limits = budget.limits(recipe.reader.num_columns)
    extra = row_columns(frame.collect_schema(), recipe.group, recipe.weight)
    end = 0
    for first, rows in list(gaps(recipe.folder)):
        part = frame.slice(first, rows) if first or rows else frame
        end = first + write_shards(recipe.reader, part, extra, recipe.folder, first=first, limits=limits)
    return end


def _learn(specs: tuple[Spec, ...], known: list[Known], shards: Shards, folder: Path) -> Encoding:
    """Vocabularies, bins and scales from the train rows; hashed fields learn nothing."""
    words: list[pl.DataFrame | None] = []
    scales: list[Binning | Scaling | None] = []
    line = 0  # of the numeric field among the numbers
    for i, spec in enumerate(specs):
        scale = _fit(spec, shards, folder, line) if not isinstance(spec, HistorySpec) and spec.numeric else None
        scales.append(scale)
        owner = [other.name for other in specs].index(spec.of) if isinstance(spec, HistorySpec) else i
        own = known[owner].words if owner < len(known) else None
        words.append(_bin_words(scale, shards, folder, line) if isinstance(scale, Binning) else own)
        line += spec.numeric
    return Encoding(specs, tuple(words), tuple(scales))


def _fit(spec: FieldSpec | StatisticSpec, shards: Shards, folder: Path, line: int) -> Binning | Scaling:
    stream = (block[line] for block in statistics.numbers(shards, folder, "train"))
    if isinstance(spec, StatisticSpec):
        return fit_scaling(stream) if spec.bins is None else fit_bins(stream, spec.bins)
    if spec.kind == "quantile":
        return fit_bins(stream, spec.bins)
    return fit_scaling(stream) if spec.scale == "standard" else Scaling(0.0, 1.0)


def _bin_words(bins: Binning, shards: Shards, folder: Path, line: int) -> pl.DataFrame:
    """The bins as a vocabulary, in ascending order."""
    texts = bins.texts()
    counts = np.zeros(len(texts) + 1, np.int64)
    for block in statistics.numbers(shards, folder, "train"):
        counts += np.bincount(bins.ids(block[line]), minlength=len(counts))
    ids = np.arange(1, len(texts) + 1)
    return pl.DataFrame({"value": texts, "id": ids, "count": counts[ids]}, schema=WORDS)


def _rules(encoding: Encoding, known: list[Known], num_shards: int) -> list[list[Rule]]:
    """Per shard, what turns each field's codes in it, or its number, into ids."""
    stored = len(encoding.stored)
    return [
        [known[i].ids[shard] if scale is None else scale for i, scale in enumerate(encoding.scales[:stored])]
        for shard in range(num_shards)
    ]


def _write_ids(
    encoding: Encoding, rules: list[list[Rule]], grouping: list[np.ndarray], shards: Shards, place: Path
) -> None:
    """Pass two: codes and numbers of a split to its ids and values, the other columns as they are, in `place`.*.npy."""
    folder, split = place.parent, place.name
    schema, scalars = encoding.schema(), [name for name in SCALARS if shards.has(name)]
    with ExitStack() as stack:

        def npy(name: str, dtype: type, columns: int | None = None) -> NpyWriter:
            return stack.enter_context(NpyWriter(folder / f"{split}.{name}.npy", dtype=dtype, columns=columns))

        id_file = npy("ids", np.int32, sum(spec.width for spec in encoding.stored))
        value_file = npy("values", np.float32, schema.num_numeric) if schema.num_numeric else None
        group_file = npy("group", np.int32) if grouping else None
        for block, numbers in _pieces(shards, folder, split, schema.num_columns):
            ids, values = apply(rules[block.shard], encoding.stored, block.codes, numbers)
            id_file.append(ids)
            if value_file:
                value_file.append(values)
            if group_file:
                group_file.append(grouping[block.shard][values_of(block.codes[-1])])
        for name in scalars:
            file = npy(name, SCALARS[name])
            for part in shards.column(split, name):
                file.append(part)
    (folder / f"{split}.statistics").unlink(missing_ok=True)


def _pieces(shards: Shards, folder: Path, split: str, columns: int) -> Iterator[tuple[Block, np.ndarray]]:
    """The blocks of a split, with its numbers (Q, n), in pieces of at most CELLS ids."""
    rows = max(CELLS // columns, 1)
    for block, numbers in zip(shards.blocks(split), statistics.numbers(shards, folder, split), strict=True):
        for start in range(0, numbers.shape[1], rows):
            codes = [each if each is NO_CODES else part(each, start, start + rows) for each in block.codes]
            own = numbers[:, start : start + rows]
            yield Block(block.shard, codes, own), own


def _hashes(reader: Reader, texts: list[pl.Series], used: set[str]) -> dict[str, list[np.ndarray]]:
    """What the statistics need to know of the codes of new rows."""
    return {
        spec.name: [hashed(bucket_names(bucket_codes(said, spec.num_buckets)) if spec.num_buckets else said)]
        for spec, said in zip(reader.texts, texts, strict=True)
        if spec.name in used
    }

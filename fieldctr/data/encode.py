"""Raw rows to id matrices in one pass over the raw table, with memory that does not grow with its rows.

Pass one reads the table in chunks; polars turns each column into codes (order of appearance), which are counted and
appended to disk. Statistics and histories come from these codes and the labels. Then codes become ids through one
look-up table per field. A value's id is its rank by descending train count, then by text; 0 is missing, unseen in
train, or rarer than min_count. Bins keep their order.
Joins on the raw table, the obvious way, cost twice as much.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl

from fieldctr.artifacts import write_json
from fieldctr.data import histories, statistics
from fieldctr.data.dataset import FACTS_FILE, SCHEMA_FILE, Split
from fieldctr.data.encoding import Encoding, Rule, apply
from fieldctr.data.facts import Tally, attainable, field_facts
from fieldctr.data.lexicon import WORDS, Lexicon, merged, vocabulary
from fieldctr.data.npy import NpyWriter, read_blocks, read_chunks
from fieldctr.data.numbers import Binning, Scaling, fit_bins, fit_scaling
from fieldctr.data.reader import Reader, require
from fieldctr.data.specs import FieldSpec, HistorySpec, Spec, StatisticSpec, number, refuse_twins, spelled
from fieldctr.data.table import SPLITS, Table, explained, refuse_short_lines
from fieldctr.errors import UserError

SCALARS = {"label": np.float32, "group": np.int32, "pctr": np.float32}  # one number per row
BLOCKS = ("codes", "numbers")  # files between the passes
NO_SPLIT = -1


def encode(table: Table, specs: tuple[Spec, ...], folder: Path, *, group: str | None) -> None:
    """Write the table into `folder`: per split ids (R, S), label (R,) and what else it has; schema, vocabulary, facts.

    `group` names the column whose values group the samples for gAUC. UserError for a table that cannot be trained on.
    """
    refuse_twins(specs)
    times = dict.fromkeys((*statistics.times(specs), *histories.times(specs)))
    reader, groups = Reader.of(specs, tuple(times)), Lexicon() if group else None
    with explained(table.files, table.separator):
        if table.separator:
            for path in table.files:
                refuse_short_lines(path, table.separator)
        extra = _extra(table.frame.collect_schema(), group, groups)
        tally = _read(reader, groups, table.frame, extra, folder)
        reader.finish()
        counts = {what: int(frame.collect().item()) for what, frame in table.counts.items()}
    tally.refuse_degenerate()

    learned = statistics.learn(specs, reader, folder)
    seen = statistics.fill(learned, reader, folder)
    encoding = _learn(specs, reader, folder / "train.numbers")
    rules = encoding.rules(reader)
    seen = seen.followed_by(histories.write(encoding, reader, rules, folder))
    for split in SPLITS:
        _write_ids(encoding, rules, folder, split)
    encoding.schema().save(folder / SCHEMA_FILE)
    encoding.save(folder)
    statistics.save(learned, folder)

    facts = tally.facts() | {"fields": field_facts(reader, encoding, rules, tally, seen), **table.facts}
    if counts:
        facts["counts"] = counts
    if groups:
        facts["group"] = {"column": group, "groups": _write_groups(groups, folder)}
    if "pctr" in extra:
        facts |= attainable(folder)
    write_json(folder / FACTS_FILE, facts)


def encode_rows(frame: pl.LazyFrame, folder: Path) -> Split:
    """New raw rows as the prepared `folder` would have encoded them. Without a column `label` labels are NaN.

    Their histories are what the prepared rows tell of their users; they are no events of each other's.
    """
    encoding = Encoding.load(folder)
    reader = Reader.of(encoding.specs, histories.times(encoding.specs))
    chunks = []
    with explained(()):
        schema = frame.collect_schema()
        label = number("label", schema["label"]) if "label" in schema else pl.lit(float("nan"))
        for chunk in reader.chunks(frame, {"label": label}):
            reader.count(0, chunk.codes, chunk.numbers)
            chunks.append(chunk)
        reader.finish()
    if not chunks:
        raise UserError("no rows to encode")
    codes, numbers = (np.concatenate([chunk[part] for chunk in chunks], axis=1) for part in range(2))
    learned = statistics.load(encoding.specs, reader, folder)
    plain = len(numbers) - len(reader.times)
    windows, past = histories.new_windows(encoding.specs, reader, folder, codes, numbers[plain:])
    numbers = np.concatenate([numbers[:plain], statistics.new_numbers(learned, codes)])
    ids, values = apply(encoding.rules(reader), encoding.stored, codes, numbers)
    labels = pl.concat([chunk.extra["label"] for chunk in chunks]).cast(pl.Float32).to_numpy(writable=True)
    return Split(ids, labels, values if values.shape[1] else None, windows=windows, past=past)


def _extra(schema: pl.Schema, group: str | None, groups: Lexicon | None) -> dict[str, pl.Expr]:
    """What is read besides the fields."""
    require(schema, ["label", "split", *([group] if group else [])])
    # Not replace_strict: polars 2.1 collects the whole table for it.
    place = pl.col("split").cast(pl.String).cast(pl.Enum(SPLITS), strict=False)
    split = place.to_physical().cast(pl.Int8).fill_null(NO_SPLIT)
    extra = {"label": number("label", schema["label"]).fill_null(float("nan")), "split": split}
    if group and groups:
        extra["group"] = groups.code(spelled(pl.col(group), schema[group]))
    return extra | {name: pl.col(name) for name in ("drop", "pctr") if name in schema}


def _read(
    reader: Reader, groups: Lexicon | None, frame: pl.LazyFrame, extra: dict[str, pl.Expr], folder: Path
) -> Tally:
    """Pass one: append codes, numbers, labels, groups and pCTR to the files of their split."""
    tally = Tally()
    with ExitStack() as stack:
        blocks = {
            (split, name): stack.enter_context((folder / f"{split}.{name}").open("wb"))
            for split in SPLITS
            for name in BLOCKS
        }
        files = {
            (split, name): stack.enter_context(NpyWriter(folder / f"{split}.{name}.npy", dtype=kind))
            for split in SPLITS
            for name, kind in SCALARS.items()
            if name in extra
        }
        for chunk in reader.chunks(frame, extra):
            for s, rows in enumerate(_rows_of_splits(chunk.extra, frame, tally)):
                codes, numbers = (np.take(part, rows, axis=1) for part in (chunk.codes, chunk.numbers))
                scalars = {name: chunk.extra[name].to_numpy()[rows] for name in SCALARS if name in extra}
                reader.count(s, codes, numbers)
                tally.add(s, scalars["label"])
                if groups:
                    groups.count(s, scalars["group"])
                np.save(blocks[SPLITS[s], "codes"], codes)
                np.save(blocks[SPLITS[s], "numbers"], numbers)
                for name, array in scalars.items():
                    files[SPLITS[s], name].append(array)
    return tally


def _rows_of_splits(extra: pl.DataFrame, frame: pl.LazyFrame, tally: Tally) -> list[np.ndarray]:
    """Per split, which rows of the chunk it keeps; the reasons for the others are counted."""
    kept = np.ones(len(extra), bool)
    if "drop" in extra.columns:
        kept = extra["drop"].is_null().to_numpy()
        tally.dropped.update(extra["drop"].drop_nulls().to_list())
    split, label = extra["split"].to_numpy(), extra["label"].to_numpy()
    if (split[kept] == NO_SPLIT).any():
        found = frame.select(pl.col("split").unique().sort()).collect().to_series().to_list()
        raise UserError(f"column split holds {found}, expected only {', '.join(SPLITS)}")
    strange = np.unique(label[kept & (label != 0) & (label != 1)])
    if len(strange):
        found = ", ".join("a blank" if np.isnan(y) else f"{y:g}" for y in strange[:5])
        raise UserError(f"label is not binary: found {found}, expected 0 and 1. Give the source a label rule.")
    return [np.flatnonzero(kept & (split == s)) for s in range(len(SPLITS))]


def _learn(specs: tuple[Spec, ...], reader: Reader, numbers: Path) -> Encoding:
    """Vocabularies, bins and scales from the train rows; hashed fields learn nothing."""
    words: list[pl.DataFrame | None] = []
    scales: list[Binning | Scaling | None] = []
    lexicons = iter(reader.lexicons)  # of the fields first, in their order
    line = 0  # of the numeric field among the numbers
    for spec in specs:
        lexicon = next(lexicons) if isinstance(spec, FieldSpec) else None
        scale = None if lexicon or isinstance(spec, HistorySpec) else _fit(spec, numbers, line)
        scales.append(scale)
        if isinstance(spec, FieldSpec) and isinstance(lexicon, Lexicon):
            words.append(vocabulary(lexicon.texts(), lexicon.counts[0, : lexicon.size], spec.min_count))
        else:
            words.append(_bin_words(scale, numbers, line) if isinstance(scale, Binning) else None)
        line += spec.numeric
    return Encoding(specs, tuple(_shared(specs, words)), tuple(scales))


def _shared(specs: tuple[Spec, ...], words: list[pl.DataFrame | None]) -> list[pl.DataFrame | None]:
    """The same vocabularies, but one for a field and its histories, of the values that any of them keeps."""
    owners = [spec.shares or spec.name for spec in specs]
    parts = {
        name: [known for own, known in zip(owners, words, strict=True) if own == name and known is not None]
        for name in owners
    }
    one = {name: merged(own) if len(own) > 1 else own[0] for name, own in parts.items() if own}
    return [one.get(name) for name in owners]


def _fit(spec: FieldSpec | StatisticSpec, numbers: Path, line: int) -> Binning | Scaling:
    stream = (block[line] for block in read_blocks(numbers))
    if isinstance(spec, StatisticSpec):
        return fit_scaling(stream) if spec.bins is None else fit_bins(stream, spec.bins)
    if spec.kind == "quantile":
        return fit_bins(stream, spec.bins)
    return fit_scaling(stream) if spec.scale == "standard" else Scaling(0.0, 1.0)


def _bin_words(bins: Binning, numbers: Path, line: int) -> pl.DataFrame:
    """The bins as a vocabulary, in ascending order."""
    texts = bins.texts()
    counts = np.zeros(len(texts) + 1, np.int64)
    for block in read_blocks(numbers):
        counts += np.bincount(bins.ids(block[line]), minlength=len(counts))
    ids = np.arange(1, len(texts) + 1)
    return pl.DataFrame({"value": texts, "id": ids, "count": counts[ids]}, schema=WORDS)


def _write_ids(encoding: Encoding, rules: list[Rule], folder: Path, split: str) -> None:
    """Pass two: codes and numbers of a split to its ids and values."""
    codes, numbers = (folder / f"{split}.{name}" for name in BLOCKS)
    columns, num_numeric = sum(spec.width for spec in encoding.stored), encoding.schema().num_numeric
    with (
        NpyWriter(folder / f"{split}.ids.npy", dtype=np.int32, columns=columns) as id_file,
        NpyWriter(folder / f"{split}.values.npy", dtype=np.float32, columns=num_numeric) as value_file,
    ):
        for code_block, number_block in zip(read_blocks(codes), read_blocks(numbers), strict=True):
            ids, values = apply(rules, encoding.stored, code_block, number_block)
            id_file.append(ids)
            value_file.append(values)
    for path in (codes, numbers, *([] if num_numeric else [value_file.path])):
        path.unlink()


def _write_groups(groups: Lexicon, folder: Path) -> int:
    """Group codes, 1 to the number of groups (returned), in the order of their texts; 0 is a row without a group."""
    known = groups.texts().rank("dense").fill_null(0).cast(pl.Int32).to_numpy()
    for split in SPLITS:
        seen = folder / f"{split}.group.npy"
        codes = seen.rename(folder / f"{split}.codes.npy")
        with NpyWriter(seen, dtype=np.int32) as file:
            for chunk in read_chunks(codes):
                file.append(known[chunk])
        codes.unlink()
    return int(known.max())

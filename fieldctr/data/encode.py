"""Raw rows to id matrices in one pass over the raw table, with memory that does not grow with its rows.

Pass one reads the table in chunks; polars turns each column into codes (order of appearance), which are counted and
appended to disk. Then codes become ids through one look-up table per field. A value's id is its rank by descending
train count, then by text; 0 is missing, unseen in train, or rarer than min_count. Bins keep their order.
Joins on the raw table, the obvious way, cost twice as much.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl

from fieldctr.artifacts import write_json
from fieldctr.data.dataset import FACTS_FILE, SCHEMA_FILE, Split
from fieldctr.data.encoding import Encoding, Rule, apply
from fieldctr.data.facts import Tally, attainable, field_facts
from fieldctr.data.lexicon import WORDS, Lexicon, vocabulary
from fieldctr.data.npy import NpyWriter, read_chunks
from fieldctr.data.numbers import Binning, Scaling, fit_bins, fit_scaling
from fieldctr.data.reader import Reader, require
from fieldctr.data.specs import FieldSpec, number, refuse_twins, spelled
from fieldctr.data.table import SPLITS, Table, explained, refuse_short_lines
from fieldctr.errors import UserError

SCALARS = {"label": np.float32, "group": np.int32, "pctr": np.float32}  # one number per row
NO_SPLIT = -1


def encode(table: Table, specs: tuple[FieldSpec, ...], folder: Path, *, group: str | None) -> None:
    """Write the table into `folder`: per split ids (R, S), label (R,) and what else it has; schema, vocabulary, facts.

    `group` names the column whose values group the samples for gAUC. UserError for a table that cannot be trained on.
    """
    refuse_twins(specs)
    reader, groups = Reader.of(specs), Lexicon() if group else None
    with explained(table.files, table.separator):
        for path in table.files if table.separator else ():
            refuse_short_lines(path, table.separator)
        extra = _extra(table.frame.collect_schema(), group, groups)
        tally = _read(reader, table.frame, extra, folder)
    tally.refuse_degenerate()

    encoding = _learn(reader, folder / "train.numbers.npy")
    rules = encoding.rules(reader)
    for split in SPLITS:
        _write_ids(encoding, rules, folder, split)
    encoding.schema().save(folder / SCHEMA_FILE)
    encoding.save(folder)

    facts = tally.facts() | {"fields": field_facts(reader, encoding, rules, tally), **table.facts}
    if groups:
        facts["group"] = {"column": group, "groups": _write_groups(groups, folder)}
    if "pctr" in extra:
        facts["attainable"] = {
            split: attainable(*(np.load(folder / f"{split}.{name}.npy") for name in ("pctr", "label")))
            for split in SPLITS
        }
    write_json(folder / FACTS_FILE, facts)


def encode_rows(frame: pl.LazyFrame, folder: Path) -> Split:
    """New raw rows as the prepared `folder` would have encoded them. Without a column `label` labels are NaN."""
    encoding = Encoding.load(folder)
    reader = Reader.of(encoding.specs)
    schema = frame.collect_schema()
    label = number("label", schema["label"]) if "label" in schema else pl.lit(float("nan"))
    chunks = list(reader.chunks(frame, {"label": label}))
    if not chunks:
        raise UserError("no rows to encode")
    codes, numbers = (np.concatenate([chunk[part] for chunk in chunks]) for part in range(2))
    ids, values = apply(encoding.rules(reader), encoding.specs, codes, numbers)
    labels = pl.concat([chunk.extra["label"] for chunk in chunks]).cast(pl.Float32).to_numpy()
    return Split(ids, labels, values if values.shape[1] else None)


def _extra(schema: pl.Schema, group: str | None, groups: Lexicon | None) -> dict[str, pl.Expr]:
    """What is read besides the fields."""
    require(schema, ["label", "split", *([group] if group else [])])
    split = (
        pl.col("split").cast(pl.String).replace_strict(list(SPLITS), [0, 1, 2], default=NO_SPLIT, return_dtype=pl.Int8)
    )
    extra = {"label": number("label", schema["label"]).fill_null(float("nan")), "split": split}
    if group and groups:
        extra["group"] = groups.code(spelled(pl.col(group), schema[group]))
    return extra | {name: pl.col(name) for name in ("drop", "pctr") if name in schema}


def _read(reader: Reader, frame: pl.LazyFrame, extra: dict[str, pl.Expr], folder: Path) -> Tally:
    """Pass one: append codes, numbers, labels, groups and pCTR to the files of their split."""
    tally = Tally(np.zeros((len(SPLITS), len(reader.specs)), np.int64))
    layout = {"codes": (np.int32, reader.num_columns), "numbers": (np.float64, reader.num_numbers)}
    layout |= {name: (kind, None) for name, kind in SCALARS.items() if name in extra}
    with ExitStack() as stack:
        files = {
            (split, name): stack.enter_context(NpyWriter(folder / f"{split}.{name}.npy", dtype=kind, columns=columns))
            for name, (kind, columns) in layout.items()
            for split in SPLITS
        }
        for chunk in reader.chunks(frame, extra):
            arrays = {"codes": chunk.codes, "numbers": chunk.numbers}
            arrays |= {name: chunk.extra[name].to_numpy() for name in SCALARS if name in extra}
            for s, rows in enumerate(_rows_of_splits(chunk.extra, frame, tally)):
                part = {name: array[rows] for name, array in arrays.items()}
                reader.count(s, part["codes"])
                tally.add(s, part["label"], reader.missing(part["codes"], part["numbers"]))
                for name, array in part.items():
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


def _learn(reader: Reader, numbers: Path) -> Encoding:
    """Vocabularies, bins and scales from the train rows."""
    words: list[pl.DataFrame | None] = []
    scales: list[Binning | Scaling | None] = []
    column = 0
    for spec, lexicon in zip(reader.specs, reader.lexicons, strict=True):
        if lexicon is not None:
            words.append(vocabulary(lexicon.texts(), lexicon.counts[0], spec.min_count))
            scales.append(None)
            continue
        if spec.kind == "quantile":
            bins = fit_bins((chunk[:, column] for chunk in read_chunks(numbers)), spec.bins)
            counts = sum(
                np.bincount(bins.ids(chunk[:, column]), minlength=spec.bins + 1) for chunk in read_chunks(numbers)
            )
            texts = bins.texts()
            ids = np.arange(1, len(texts) + 1)
            words.append(pl.DataFrame({"value": texts, "id": ids, "count": counts[ids]}, schema=WORDS))
            scales.append(bins)
        else:
            words.append(None)
            scaled = spec.scale == "standard"
            scales.append(
                fit_scaling(chunk[:, column] for chunk in read_chunks(numbers)) if scaled else Scaling(0.0, 1.0)
            )
        column += 1
    return Encoding(reader.specs, tuple(words), tuple(scales))


def _write_ids(encoding: Encoding, rules: list[Rule], folder: Path, split: str) -> None:
    """Pass two: codes and numbers of a split to its ids and values."""
    schema, codes, numbers = encoding.schema(), *(folder / f"{split}.{name}.npy" for name in ("codes", "numbers"))
    with (
        NpyWriter(folder / f"{split}.ids.npy", dtype=np.int32, columns=schema.num_columns) as id_file,
        NpyWriter(folder / f"{split}.values.npy", dtype=np.float32, columns=schema.num_numeric) as value_file,
    ):
        for code_rows, number_rows in zip(read_chunks(codes), read_chunks(numbers), strict=True):
            ids, values = apply(rules, encoding.specs, code_rows, number_rows)
            id_file.append(ids)
            value_file.append(values)
    codes.unlink()
    numbers.unlink()
    if not schema.num_numeric:
        value_file.path.unlink()


def _write_groups(groups: Lexicon, folder: Path) -> int:
    """Group codes in the order of their texts, so that they do not depend on the order of rows; returns how many there are."""
    known = groups.texts().rank("dense").fill_null(0).cast(pl.Int32).to_numpy()  # 0: rows without a group
    for split in SPLITS:
        seen = folder / f"{split}.group.npy"
        codes = seen.rename(folder / f"{split}.codes.npy")
        with NpyWriter(seen, dtype=np.int32) as file:
            for chunk in read_chunks(codes):
                file.append(known[chunk])
        codes.unlink()
    return int(known.max())

"""The sparse text formats of libsvm, libfm and libffm: a label, then what is not zero.

Lines of `label field:index:value` give per field F the columns `F`, its indices, and `F:value`, their values. Lines of
`label index:value` give `indices` and `values`, and where no more than DENSE different indices occur, per index I the
column `I`, its value, null where the line has none. Several in one cell are joined by commas: kind multi reads them
(for the indices), categorical and value read cells with one. The first column is `label`.
A table of one entry per field, always in the same order, is best read as text: format: csv, separator: " ", header.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from fieldctr.data.lines import Text
from fieldctr.data.reading import Reading
from fieldctr.data.streams import streamed
from fieldctr.errors import UserError

DENSE = 1000  # indices that get columns of their own
BLOCK = 1 << 20
LABEL, INDICES, VALUES = "label", "indices", "values"
AT = "line"


def scan_libsvm(path: Path, reading: Reading, packing: str, row: str | None = None) -> pl.LazyFrame:
    """The file's rows, all cells texts. It is read once more for its fields or indices."""
    text = Text(path, reading, packing, b"\n")
    wide, names = _names(text)
    columns = [part for name in names for part in (name, f"{name}:value")] if wide else list(names)
    schema = pl.Schema(dict.fromkeys([LABEL, *([] if wide else [INDICES, VALUES]), *columns], pl.String))

    def batches(_: list[str] | None) -> Iterator[pl.DataFrame]:
        for labels, entries in _entries(text):
            yield _table(labels, entries, wide, schema)

    return streamed(schema, batches, row)


def _names(text: Text) -> tuple[bool, list[str]]:
    """Whether entries name a field, and the fields; or the indices, if there are few."""
    wide, names = None, set[str]()
    for _, entries in _entries(text):
        three = entries["value"].is_not_null()
        if wide is None and len(three):
            wide = bool(three[0])
        if (three != wide).any():
            raise UserError(f"{text.path}: some entries are field:index:value and some index:value")
        if wide or len(names) <= DENSE:
            names |= set(entries["first"].unique())
    if not wide and len(names) > DENSE:
        names.clear()
    return bool(wide), sorted(names, key=lambda name: (len(name), name) if name.isdigit() else (1 << 30, name))


def _entries(text: Text) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Per block its lines, with AT and LABEL, and its entries: AT, first, second, and value, null if there are two."""
    before = 0
    for block in text.blocks(BLOCK):
        lines = pl.DataFrame({"text": block.text.decode().splitlines()}).with_row_index(AT)
        cells = lines.select(
            AT,
            cells=pl.col("text")
            .str.replace(r"\s*#.*$", "")
            .str.strip_chars()
            .str.replace_all(r"\s+", " ")
            .str.split(" "),
        )
        labels = cells.select(AT, pl.col("cells").list.first().alias(LABEL))
        parts = cells.select(AT, cell=pl.col("cells").list.slice(1)).explode("cell").drop_nulls()
        parts = parts.with_columns(pl.col("cell").str.splitn(":", 3).alias("parts")).unnest("parts")
        parts = parts.rename({"field_0": "first", "field_1": "second", "field_2": "value"})
        bad = parts.filter(pl.col("second").is_null() | (pl.col("first") == ""))
        if len(bad):
            line = before + bad[AT][0] + 1
            raise UserError(
                f"{text.path} line {line:,}: '{bad['cell'][0]}' is neither index:value nor field:index:value"
            )
        yield labels, parts
        before += len(lines)


def _table(labels: pl.DataFrame, entries: pl.DataFrame, wide: bool, schema: pl.Schema) -> pl.DataFrame:
    joined = pl.element().str.join(",")
    if wide:
        cells = entries.pivot("first", index=AT, values=["second", "value"], aggregate_function=joined)
        names = {name: name.removeprefix("second_") for name in cells.columns if name.startswith("second_")}
        names |= {f"value_{name}": f"{name}:value" for name in names.values()}
        cells = cells.rename(names)
    else:
        cells = entries.group_by(AT).agg(
            pl.col("first").str.join(",").alias(INDICES), pl.col("second").str.join(",").alias(VALUES)
        )
        if len(schema) > 3:
            each = entries.pivot("first", index=AT, values="second", aggregate_function=joined)
            cells = cells.join(each, on=AT, how="left")
    rows = labels.join(cells, on=AT, how="left", maintain_order="left").with_columns(
        pl.col(pl.String).replace("", None)
    )
    absent = [name for name in schema if name not in rows.columns]
    return rows.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)[list(schema)]

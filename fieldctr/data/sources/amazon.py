"""Amazon Reviews 2023: a rating of 4 or more is a click, each review joined with what the shop says of the item.

Source: Hou et al., "Bridging Language and Items for Retrieval and Recommendation", arXiv 2403.03952;
https://amazon-reviews-2023.github.io. Label, join and columns are those of LLaCTR's experiments (arXiv 2505.14057).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fieldctr.data.json_lines import json_lines
from fieldctr.data.new_rows import NewRows, with_side_tables
from fieldctr.data.side_tables import repeats
from fieldctr.data.splits import with_split
from fieldctr.data.table import LABEL, Table, required_all

CURE = "Get it by scripts/download_amazon_2023.sh from https://amazon-reviews-2023.github.io (no licence stated)."
REVIEW = pl.Schema({"rating": pl.Float64, "parent_asin": pl.String, "user_id": pl.String, "timestamp": pl.Int64})
ITEM = (
    "main_category", "title", "average_rating", "rating_number", "features",
    "description", "price", "store", "categories", "details",
)  # fmt: skip


def read(raw_dir: Path, *, category: str, split: Mapping[str, Any], new_rows: NewRows | None = None) -> Table:
    """<category>.jsonl.gz and meta_<category>.jsonl.gz: columns rating, parent_asin, user_id, timestamp (ms) and ITEM.

    What ITEM names is text: lists and dicts as Python writes them. A review whose item has no entry keeps its row,
    without values; of two entries for one item the later counts. Only the entries are held in memory.
    `split` as in `fieldctr.data.splits.with_split`.
    """
    if new_rows:
        return Table(_new(new_rows, raw_dir / f"meta_{category}.jsonl.gz"), (new_rows.path,))
    reviews, items = files = required_all(raw_dir, (f"{category}.jsonl.gz", f"meta_{category}.jsonl.gz"), CURE)
    frame = pl.scan_ndjson(reviews, schema=REVIEW)
    frame = with_split(frame.with_columns((pl.col("rating") >= 4).cast(pl.Int8).alias(LABEL)), split)
    entries = _scan_entries(items)
    keys = pl.scan_ndjson(items, schema={"parent_asin": pl.String})
    counts = {f"{items.name}: entries that a later one replaces": repeats(keys, "parent_asin")}
    joined = frame.join(entries, on="parent_asin", how="left", maintain_order="left")
    return Table(joined, files, counts=counts)


def _new(new_rows: NewRows, items: Path) -> pl.LazyFrame:
    """Reviews have columns of their own, such as title, that are not the items': of them only REVIEW's are taken."""
    frame = new_rows.scan()
    names = frame.collect_schema()
    if set(ITEM) <= set(names):
        return frame
    own = frame.select(name for name in REVIEW if name in names)
    return with_side_tables(own, {"parent_asin": (items, _scan_entries)})


def _scan_entries(path: Path) -> pl.LazyFrame:
    return pl.defer(lambda: _entries(path), schema=dict.fromkeys(("parent_asin", *ITEM), pl.String))


def _entries(path: Path) -> pl.DataFrame:
    """The last entry of every item, (items, 1 + ITEM) texts."""
    last = {entry.get("parent_asin"): tuple(_text(entry.get(name)) for name in ITEM) for entry in json_lines(path)}
    rows = [(item, *texts) for item, texts in last.items()]
    return pl.DataFrame(rows, schema=dict.fromkeys(("parent_asin", *ITEM), pl.String), orient="row")


def _text(value: object) -> str | None:
    """What Python writes for a value; half a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    return None if value is None else str(value).encode(errors="replace").decode()

"""Open Bandit Dataset: fashion items shown on ZOZOTOWN by a random policy or by Thompson sampling, and clicks on them.

Source: Saito et al., "Open Bandit Dataset and Pipeline", NeurIPS Datasets and Benchmarks 2021, arXiv 2008.07146;
https://research.zozo.com/data.html
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl

from fieldctr.data.bad_lines import explained
from fieldctr.data.delimited import scan_csv
from fieldctr.data.new_rows import NewRows, derived, with_side_tables
from fieldctr.data.side_tables import join_by_text
from fieldctr.data.splits import with_split
from fieldctr.data.table import LABEL, Table, required_all

CURE = "Get it from https://research.zozo.com/data.html (CC BY 4.0; scripts/download_open_bandit.sh)."
AFFINITY = "user-item_affinity_"  # one column per item: how often the user clicked on it before

TIME = "%Y-%m-%d %H:%M:%S%.f%z"


def read(
    raw_dir: Path,
    *,
    policy: Literal["random", "bts"],
    campaign: Literal["all", "men", "women"],
    split: Mapping[str, Any],
    new_rows: NewRows | None = None,
) -> Table:
    """<policy>/<campaign>/<campaign>.csv with its item_context.csv; label click.

    Adds `time`, without the zone, and `affinity`, that of the item shown; the affinities for the others are left out.
    `split` as in `fieldctr.data.splits.with_split`.
    """
    folder = f"{policy}/{campaign}"
    if new_rows:
        items = {"item_id": (raw_dir / folder / "item_context.csv", _items)}
        return Table(with_side_tables(_made(new_rows.scan()), items), (new_rows.path,))
    files = required_all(raw_dir, (f"{folder}/{campaign}.csv", f"{folder}/item_context.csv"), CURE)
    with explained(files, ","):
        frame = _made(scan_csv(files[0]).with_columns(pl.col("click").alias(LABEL)))
        joined = join_by_text(with_split(frame, split), {"item_id": (files[1], _items(files[1]))})
        joined.frame.collect_schema()
    return Table(joined.frame, files, ",", counts=joined.counts)


def _made(log: pl.LazyFrame) -> pl.LazyFrame:
    """With time and affinity, which a table can have instead of what they are made from."""
    affinities = [name for name in log.collect_schema() if name.startswith(AFFINITY)]
    shown = pl.col("item_id").cast(pl.String)
    affinity = pl.coalesce(pl.when(shown == name.removeprefix(AFFINITY)).then(pl.col(name)) for name in affinities)
    time = pl.col("timestamp").cast(pl.String).str.to_datetime(TIME, time_unit="us").dt.replace_time_zone(None)
    return derived(log, time=time, affinity=affinity if affinities else pl.lit(None, pl.String)).drop(affinities)


def _items(path: Path) -> pl.LazyFrame:
    return scan_csv(path).drop("")  # the publisher's index

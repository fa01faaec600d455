"""KuaiRand-Pure: impressions of a short-video app that were exposed at random, joined with user and video features.

Source: Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fieldctr.data.bad_lines import explained
from fieldctr.data.delimited import scan_csv
from fieldctr.data.new_rows import NewRows, derived, with_side_tables
from fieldctr.data.side_tables import join_by_text
from fieldctr.data.splits import with_split
from fieldctr.data.table import LABEL, SPLIT, Table, required, required_all

FILE = "kuairand_ctr.parquet"
RAW = ("log_random_4_22_to_5_08_pure.csv", "user_features_pure.csv", "video_features_basic_pure.csv")
FROM = "https://zenodo.org/records/10439422 (CC BY-SA 4.0; scripts/download_kuairand.sh)"

DURATION = pl.col("duration_ms").cast(pl.Float64)
MADE = {
    "hour": pl.col("hourmin").cast(pl.Int32) // 100,
    "weekday": pl.col("date").cast(pl.String).str.to_date("%Y%m%d").dt.weekday(),
    "dur_bucket": pl.when(DURATION > 1).then((2 * DURATION.log()).round()).otherwise(0).cast(pl.Int16),
}


def read(raw_dir: Path, *, new_rows: NewRows | None = None) -> Table:
    """kuairand_ctr.parquet: label is_click, split by time in the file's own column."""
    if new_rows:
        return Table(new_rows.scan(), (new_rows.path,))
    cure = f"It is a join of a part of {FROM}; for the publisher's own files take dataset=kuairand_pure."
    path = required(raw_dir, FILE, cure)
    with explained((path,)):
        frame = pl.scan_parquet(path, glob=False)
        frame.collect_schema()
    return Table(frame.with_columns(pl.col("is_click").alias(LABEL), pl.col("split").alias(SPLIT)), (path,))


def read_raw(raw_dir: Path, *, split: Mapping[str, Any], new_rows: NewRows | None = None) -> Table:
    """The publisher's tables: each row of the random log with its user and its video, label is_click.

    Adds hour, weekday (Monday is 1) and dur_bucket, twice the logarithm of the duration in ms, rounded. Of several
    entries for one user or video the first counts. `split` as in `fieldctr.data.splits.with_split`.
    """
    if new_rows:
        paths = dict(zip(("user_id", "video_id"), (raw_dir / name for name in RAW[1:]), strict=True))
        tables = {key: (path, scan_csv) for key, path in paths.items()}
        return Table(with_side_tables(derived(new_rows.scan(), **MADE), tables), (new_rows.path,))
    files = required_all(raw_dir, RAW, f"Get them from {FROM}.")
    log, users, videos = (scan_csv(path) for path in files)
    with explained(files, ","):
        frame = derived(log.with_columns(pl.col("is_click").alias(LABEL)), **MADE)
        joined = join_by_text(with_split(frame, split), {"user_id": (files[1], users), "video_id": (files[2], videos)})
        joined.frame.collect_schema()
    return Table(joined.frame, files, ",", counts=joined.counts)

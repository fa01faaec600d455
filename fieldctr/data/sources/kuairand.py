"""KuaiRand-Pure: impressions of a short-video app that were exposed at random, joined with user and video features.

Source: Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022.
"""

from pathlib import Path

import polars as pl

from fieldctr.data.table import Table, explained, required

FILE = "kuairand_ctr.parquet"


def read(raw_dir: Path) -> Table:
    """kuairand_ctr.parquet: label is_click, split by time in the file's own column."""
    path = required(raw_dir, FILE, "It is a join of the tables from https://kuairand.com (CC BY-SA 4.0).")
    with explained((path,)):
        frame = pl.scan_parquet(path, glob=False)
        frame.collect_schema()
    return Table(frame.rename({"is_click": "label"}), (path,))

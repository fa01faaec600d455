"""Ad Display/Click Data on Taobao.com: 26.6 million impressions of ads in 8 days, with profiles of users and ads.

Source: Alimama, https://tianchi.aliyun.com/dataset/56; used since Zhou et al., "Deep Interest Network", KDD 2018.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fieldctr.data.bad_lines import explained
from fieldctr.data.delimited import scan_csv
from fieldctr.data.new_rows import NewRows, derived, with_side_tables
from fieldctr.data.side_tables import join_by_text
from fieldctr.data.splits import with_split
from fieldctr.data.table import DROP, EVENTS, LABEL, SPLIT, Table, required_all
from fieldctr.errors import UserError

FILES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv")
BEHAVIOR = "behavior_log.csv"  # 723 million actions of the same users, 22 days
ACTIONS = ("pv", "cart", "fav", "buy")  # page view, into the cart, favourite, bought
CURE = "Get them from https://tianchi.aliyun.com/dataset/56 (login; scripts/download_taobao.sh says how)."
TIME_ZONE = 8 * 3600  # seconds that the publisher's days are ahead of UTC
LOCAL_TIME = ((pl.col("time_stamp").cast(pl.Int64) + TIME_ZONE) * 1_000_000).cast(pl.Datetime("us"))


def read(
    raw_dir: Path,
    *,
    null_values: Sequence[str],
    split: Mapping[str, Any],
    behavior: Sequence[str] = (),
    new_rows: NewRows | None = None,
) -> Table:
    """Each row of raw_sample.csv with its ad and its user: the publisher's columns, `user` as userid, and `local_time`.

    `null_values` are the texts that mean missing in the profiles. Of several profiles the first counts; a row whose
    ad or user has none keeps its place. A row whose clk and nonclk agree is dropped. `split` as in
    `fieldctr.data.splits.with_split`. `behavior` names the ACTIONS of behavior_log.csv that are events for histories,
    with userid, local_time, cate_id and brand; without any the file is not needed.
    """
    for action in behavior:
        if action not in ACTIONS:
            raise UserError(f"dataset.source.behavior: no action '{action}'. All: {', '.join(ACTIONS)}")
    if new_rows:
        return Table(_new(new_rows, raw_dir, null_values), (new_rows.path,))
    files = required_all(raw_dir, (*FILES, BEHAVIOR) if behavior else FILES, CURE)
    samples, ads, users = (_scan(path) for path in files[:3])
    with explained(files, ","):
        frame = samples.rename({"user": "userid"}).with_columns(
            pl.col("clk").alias(LABEL),
            pl.when(pl.col("clk") == pl.col("nonclk")).then(pl.lit("clk and nonclk agree")).alias(DROP),
            local_time=LOCAL_TIME,
        )
        profiles = {
            "adgroup_id": (files[1], _known(ads, null_values)),
            "userid": (files[2], _known(users, null_values)),
        }
        joined = join_by_text(with_split(frame, split), profiles)
        frame = joined.frame
        if behavior:
            frame = pl.concat([frame, _events(scan_csv(files[3]), behavior, null_values)], how="diagonal")
        frame.collect_schema()
    return Table(frame, files, ",", counts=joined.counts)


def _scan(path: Path) -> pl.LazyFrame:
    return scan_csv(path).rename(str.strip)  # the publisher's header has 'new_user_class_level '


def _new(new_rows: NewRows, raw_dir: Path, null_values: Sequence[str]) -> pl.LazyFrame:
    frame = derived(new_rows.scan().rename({"user": "userid"}, strict=False), local_time=LOCAL_TIME)
    paths = {"adgroup_id": raw_dir / FILES[1], "userid": raw_dir / FILES[2]}
    tables = {key: (path, lambda path: _known(_scan(path), null_values)) for key, path in paths.items()}
    return with_side_tables(frame, tables)


def _events(log: pl.LazyFrame, behavior: Sequence[str], null_values: Sequence[str]) -> pl.LazyFrame:
    known = _known(log.filter(pl.col("btag").is_in(list(behavior))), null_values)
    return known.select(
        userid=pl.col("user"),
        local_time=LOCAL_TIME,
        cate_id=pl.col("cate"),
        brand=pl.col("brand"),
        **{SPLIT: pl.lit(EVENTS)},
    )


def _known(frame: pl.LazyFrame, null_values: Sequence[str]) -> pl.LazyFrame:
    return frame.with_columns(pl.when(~pl.all().is_in(list(null_values))).then(pl.all()))

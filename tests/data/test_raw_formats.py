"""Rows as the publishers write them, healthy and broken: what comes out is exact, and nothing is lost silently."""

import csv
import gzip
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fieldctr.analysis.parity.protocol import Protocol
from fieldctr.config import build
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import SOURCE, prepared
from fieldctr.data.table import LABEL, SPLIT
from fieldctr.errors import UserError

BIG = [2**31, 2**53, 2**53 + 1]  # floats cannot tell the last two apart
ROWS, TEST_ROWS = 96, 20
Files = dict[str, str]
Prepare = Callable[[str, Mapping[str, str | bytes]], Dataset]
Frame = Callable[[str, Mapping[str, str | bytes]], pl.DataFrame]


def lines(header: str, rows: list[list[Any]]) -> str:
    return header + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


def taobao() -> Files:
    """Users 0 to 3 and BIG; user 3 and ad 5 have no profile, user 1 has two. Twelve impressions a day, UTC+8."""
    start = int(datetime(2017, 5, 5, 16, tzinfo=UTC).timestamp())
    people = [0, 1, 2, 3, *BIG]
    samples = [
        [
            people[i % 7],
            start + 7200 * i,
            [10, 5, BIG[2]][i % 3],
            f"4305{48 - i % 2}_1007",
            int(i % 4 > 0),
            int(i % 4 < 1),
        ]
        for i in range(ROWS)
    ]
    ads = [[10, 6406, 83237, 1, 95471, 170.0], [BIG[2], 1, 2, 3, "NULL", 0.01], [77, 9, 9, 9, 9, 9.0]]
    users = [[0, 0, 5, 2, 5, "", 3, 0, 3], [1, 81, 2, 2, 2, 2, 3, 0, ""], [1, 7, 7, 1, 7, 1, 1, 1, 1]]
    users += [[user, 5, 5, 1, "-1", 3, 2, 1, 4] for user in (2, *BIG)]
    header = "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,"
    return {
        "raw_sample.csv": lines("user,time_stamp,adgroup_id,pid,nonclk,clk", samples),
        "ad_feature.csv": lines("adgroup_id,cate_id,campaign_id,customer,brand,price", ads),
        "user_profile.csv": lines(header + "new_user_class_level ", users),
    }


def taobao_behavior() -> Files:
    """With actions of the same users in the shop, before and between the impressions; a category that no ad has."""
    start = int(datetime(2017, 5, 1, 16, tzinfo=UTC).timestamp())
    people = [0, 1, 2, 3, *BIG]
    log = [
        [people[i % 7], start + 3600 * i, ["pv", "cart", "buy", "fav"][i % 4], [6406, 1, 4711][i % 3], 95471]
        for i in range(240)
    ]
    return {**taobao(), "behavior_log.csv": lines("user,time_stamp,btag,cate,brand", log)}


def kuairand_pure() -> Files:
    log = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    log += "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
    people = [0, 1, *BIG]
    rows = [
        [people[i % 5], i % 4, f"202205{1 + i % 8:02}", [0, 959, 2300][i % 3], 1650485801301 + i, int(i % 3 == 0),
         0, 0, 0, 0, 0, 1, 151024, [0, 5000, 104400][i % 3], 0, 0, 0, 1, i % 15]
        for i in range(ROWS)
    ]  # fmt: skip
    user = "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
    user += (
        "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,"
    )
    user += "register_days_range," + ",".join(f"onehot_feat{i}" for i in range(18))
    users = [
        [who, "full_active", 0, 0, 1, 5, '"(0,10]"', 312, '"[100,1k)"', 0, 0, 3624, "730+", *range(17), ""]
        for who in people
    ]
    video = (
        "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
    )
    video += "music_id,music_type,tag"
    videos = [
        [
            i,
            441,
            "NORMAL",
            "2020-07-08",
            "ShortImport",
            1.0,
            17200.0,
            720.0,
            1280.0,
            BIG[2],
            4.0,
            ['"12,65"', 39, ""][i],
        ]
        for i in range(3)
    ]
    return {
        "log_random_4_22_to_5_08_pure.csv": lines(log, rows),
        "user_features_pure.csv": lines(user, users),
        "video_features_basic_pure.csv": lines(video, videos),
    }


def open_bandit() -> Files:
    header = ",timestamp,item_id,position,click,propensity_score," + ",".join(f"user_feature_{i}" for i in range(4))
    header += "".join(f",user-item_affinity_{i}" for i in range(12))
    times = [datetime(2019, 11, 24, 0, 3, 13, 442536 * (i % 2)) + timedelta(hours=1.7 * i) for i in range(ROWS)]
    rows = [
        [i, f"{time}+00:00", i % 12, 1 + i % 3, int(i % 4 == 0), 0.0125, BIG[i % 3], "03a5648a", "7bc94a2d", "9bde591f",
         *(100.0 * i + item for item in range(12))]
        for i, time in enumerate(times)
    ]  # fmt: skip
    items = [[i, i, -0.6771831139635117, "ceca2003", "eb6f942c", "79509155"] for i in range(12)]
    features = ",item_id," + ",".join(f"item_feature_{i}" for i in range(4))
    return {"random/all/all.csv": lines(header, rows), "random/all/item_context.csv": lines(features, items)}


def taobaoad_x1() -> Files:
    header = "clk,btag_his,cate_his,brand_his,userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,"
    header += (
        "shopping_level,occupation,new_user_class_level,adgroup_id,cate_id,campaign_id,customer,brand,price,pid,btag"
    )
    rows = [
        [int(i % 4 == 0), ["1^1^2", ""][i % 2], ["6428^6428", ""][i % 2], ["0^5", ""][i % 2], BIG[i % 3], *range(8),
         3, 4, 5, 6, 7, 170.0, 1, 1]
        for i in range(ROWS)
    ]  # fmt: skip
    return {"train.csv": lines(header, rows), "test.csv": lines(header, rows[:TEST_ROWS])}


def amazonelectronics_x1() -> Files:
    rows = [[i % 2, i // 2, BIG[i % 3], 738, "29247^11111", "738^739"] for i in range(ROWS)]
    header = "label,user_id,item_id,cate_id,item_history,cate_history"
    return {"train.csv": lines(header, rows), "test.csv": lines(header, rows[:TEST_ROWS])}


def movielens_20m() -> Files:
    rows = [[BIG[i % 3], i % 3, [0.5, 4.0, 5.0][i % 5 % 3], 1_112_486_027 + i] for i in range(ROWS)]
    movies = [[0, "Toy Story (1995)", "Adventure|Children"], [1, '"Amélie, or ""Le"" (2001)"', "(no genres listed)"]]
    return {
        "ratings.csv": lines("userId,movieId,rating,timestamp", rows),
        "movies.csv": lines("movieId,title,genres", movies),
    }


SOURCES: dict[str, Callable[[], Files]] = {
    source.__name__: source
    for source in (
        taobao,
        taobao_behavior,
        kuairand_pure,
        open_bandit,
        taobaoad_x1,
        amazonelectronics_x1,
        movielens_20m,
    )
}
IDS = {  # a field with BIG among its values
    "taobao": "userid", "taobao_behavior": "userid",
    "kuairand_pure": "user_id", "open_bandit": "user_feature_0", "taobaoad_x1": "userid",
    "amazonelectronics_x1": "item_id", "movielens_20m": "userId",
}  # fmt: skip
EVERY_FILE = [(name, file) for name, source in SOURCES.items() for file in source()]


@pytest.fixture
def node(dataset_node: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """node(name, files): the files, and the dataset of conf/ that reads them."""

    def written(name: str, files: Mapping[str, str | bytes]) -> dict[str, Any]:
        for file, content in files.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
        return dataset_node(name) | {"raw_dir": str(tmp_path), "published": None, "min_count": 1}

    return written


@pytest.fixture
def prepare(node: Callable[..., dict[str, Any]], tmp_path: Path) -> Prepare:
    return lambda name, files: prepared(node(name, files), data_dir=tmp_path / "out")


@pytest.fixture
def frame(node: Callable[..., dict[str, Any]], tmp_path: Path) -> Frame:
    return lambda name, files: build(node(name, files)["source"], "source", tmp_path, kind=SOURCE).frame.collect()


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_every_row_is_accounted_for_and_ids_are_exact(name: str, prepare: Prepare) -> None:
    files = SOURCES[name]()
    dataset = prepare(name, files)
    rows = dataset.facts["rows"]
    assert rows["read"] == rows["train"] + rows["valid"] + rows["test"] == ROWS + TEST_ROWS * ("test.csv" in files)
    assert rows["dropped"] == {}
    vocabulary = pl.read_parquet(dataset.folder / "vocabulary.parquet")
    assert {str(number) for number in BIG} <= set(vocabulary.filter(pl.col("field") == IDS[name])["value"])


@pytest.mark.parametrize("name", SOURCES)
def test_crlf_changes_nothing(name: str, frame: Frame) -> None:
    files = SOURCES[name]()
    unix = frame(name, files)
    assert frame(name, {file: content.replace("\n", "\r\n") for file, content in files.items()}).equals(unix)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "broken"), EVERY_FILE)
@pytest.mark.parametrize(
    ("defect", "words"),
    [
        (lambda text: text[: text.rindex(",")] + "\n", r"line {last}: \d+ columns, expected \d+"),
        (lambda text: text + text.partition("\n")[0] + "\n", "line {more}: the header again"),
        (lambda text: text.encode() + text.splitlines()[1].replace(",", ",\xff", 1).encode("latin-1") + b"\n", "line "),
        (lambda text: gzip.compress(text.encode())[:-12], "line "),
        (lambda text: b"", "empty|no data"),
    ],
    ids=["short row", "second header", "not UTF-8", "cut gzip", "empty"],
)  # fmt: skip
def test_a_broken_file_is_named_with_its_line(
    name: str, broken: str, defect: Callable[[str], str | bytes], words: str, prepare: Prepare, tmp_path: Path
) -> None:
    files = SOURCES[name]()
    last = files[broken].count("\n")
    with pytest.raises(UserError) as caught:
        prepare(name, {**files, broken: defect(files[broken])})
    message = str(caught.value)
    assert f"/{broken}" in message
    assert re.search(words.format(last=last, more=last + 1), message), message
    assert not list((tmp_path / "out").glob("[!.]*"))


@pytest.mark.parametrize("name", ["taobaoad_x1", "amazonelectronics_x1"])
def test_fields_are_those_of_the_board(name: str, node: Callable[..., dict[str, Any]]) -> None:
    fields, board = node(name, {})["fields"], Protocol.load(name).vocab_size
    assert fields.keys() == board.keys()
    assert {field for field, keys in fields.items() if keys.get("kind") == "value"} == {
        field for field, size in board.items() if size is None
    }


def test_one_file_can_serve_two_splits(node: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """As on the board, where the validation file is the test file."""
    config = node("amazonelectronics_x1", amazonelectronics_x1())
    config["source"]["files"]["valid"] = "test.csv"
    config["source"]["split"]["valid_from_train"] = 0
    dataset = prepared(config, data_dir=tmp_path / "out")
    assert (len(dataset.train), len(dataset.valid), len(dataset.test)) == (ROWS, TEST_ROWS, TEST_ROWS)
    assert (dataset.valid.ids == dataset.test.ids).all()


def test_taobao_is_a_naive_join_with_the_publishers_days(frame: Frame) -> None:
    files = taobao()
    read = {file: list(csv.DictReader(content.splitlines())) for file, content in files.items()}
    users: dict[str, dict[str, str]] = {}
    for user in read["user_profile.csv"]:
        users.setdefault(user["userid"], user)
    ads = {ad["adgroup_id"]: ad for ad in read["ad_feature.csv"]}
    got = frame("taobao", files).to_dicts()
    missing = ("", "NULL", "-1", None)
    for sample, row in zip(read["raw_sample.csv"], got, strict=True):
        expected = (
            sample
            | {k.strip(): v for k, v in users.get(sample["user"], {}).items()}
            | ads.get(sample["adgroup_id"], {})
        )
        expected |= {"userid": sample["user"], "adgroup_id": sample["adgroup_id"], LABEL: sample["clk"]}
        day = (datetime.fromtimestamp(int(sample["time_stamp"]), UTC) + timedelta(hours=8)).date().isoformat()
        split = "train" if day < "2017-05-12" else "valid" if day == "2017-05-12" else "test"
        assert row.pop(SPLIT) == split
        assert str(row.pop("local_time").date()) == day
        for key, value in row.items():
            assert (value if value not in missing else None) == (
                expected.get(key) if expected.get(key) not in missing else None
            ), key
    assert {row["new_user_class_level"] for row in got} == {"3", "4", "", None}


def test_taobao_histories_are_the_earlier_actions_and_clicks_of_the_user(prepare: Prepare) -> None:
    files = taobao_behavior()
    read = {file: list(csv.DictReader(content.splitlines())) for file, content in files.items()}
    dataset = prepare("taobao_behavior", files)
    assert dataset.facts["events"] == sum(action["btag"] != "pv" for action in read["behavior_log.csv"])
    words = pl.read_parquet(dataset.folder / "vocabulary.parquet").filter(pl.col("field") == "cate_id")
    known = dict(words.select("value", "id").iter_rows())
    ads = {ad["adgroup_id"]: ad["cate_id"] for ad in read["ad_feature.csv"]}
    samples = read["raw_sample.csv"]
    past = [
        (action["user"], int(action["time_stamp"]), action["cate"])
        for action in read["behavior_log.csv"]
        if action["btag"] != "pv"
    ]
    past += [
        (row["user"], int(row["time_stamp"]), ads.get(row["adgroup_id"], "")) for row in samples if row["clk"] == "1"
    ]
    past.sort(key=lambda event: event[1])
    place = dataset.schema.index("past_categories")
    start = dataset.schema.column_offsets[place]
    found = dataset.test.ids_of(slice(None))[:, start : start + dataset.schema.fields[place].width]
    wanted = [
        [
            known[cate]
            for user, time, cate in past
            if (user, cate in known) == (row["user"], True) and time < row["when"]
        ]
        for row in ({**sample, "when": int(sample["time_stamp"])} for sample in samples[-len(found) :])
    ]
    assert [[i for i in row if i] for row in found.tolist()] == [ids[-50:] for ids in wanted]
    assert max(map(len, wanted)) > 20


def test_taobao_without_its_log_or_with_a_wrong_action_says_so(node: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"no file behavior_log\.csv"):
        prepared(node("taobao_behavior", taobao()), data_dir=Path("nowhere"))
    wrong = node("taobao_behavior", taobao_behavior())
    wrong["source"]["behavior"] = ["bought"]
    with pytest.raises(UserError, match=r"dataset\.source\.behavior: no action 'bought'.*buy"):
        prepared(wrong, data_dir=Path("nowhere"))


def test_what_is_left_aside_is_counted(prepare: Prepare) -> None:
    files = taobao()
    files["raw_sample.csv"] += "0,1494000000,10,430548_1007,1,1\n"
    facts = prepare("taobao", files).facts
    assert facts["rows"]["dropped"] == {"clk and nonclk agree": 1}
    assert facts["counts"] == {
        "ad_feature.csv: rows after the first of their adgroup_id": 0,
        "user_profile.csv: rows after the first of their userid": 1,
    }
    assert facts["fields"]["cate_id"]["missing"]["train"] == pytest.approx(1 / 3, abs=0.02)


def test_kuairand_pure_derives_what_the_cut_has(frame: Frame) -> None:
    got = frame("kuairand_pure", kuairand_pure())
    assert got["hour"].to_list()[:3] == [0, 9, 23]
    assert got["dur_bucket"].to_list()[:3] == [0, 17, 23]
    assert got["weekday"].to_list()[:3] == [7, 1, 2], "1 May 2022 was a Sunday"
    assert got[SPLIT].to_list()[:8] == ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
    assert got["tag"].to_list()[:4] == ["12,65", "39", "", None]
    assert got["follow_user_num_range"][0] == "(0,10]"
    assert got["music_id"][0] == str(BIG[2])


def test_open_bandit_keeps_the_affinity_of_the_item_shown(frame: Frame) -> None:
    got = frame("open_bandit", open_bandit())
    assert got["affinity"].cast(pl.Float64).to_list() == [100.0 * i + i % 12 for i in range(ROWS)]
    assert got["item_feature_1"].to_list() == ["ceca2003"] * ROWS
    assert not [name for name in got.columns if name.startswith("user-item")]
    assert got.filter(pl.col(SPLIT) == "test")["time"].min() >= datetime(2019, 11, 30)


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("taobao", ",1494", ",x494", r"raw_sample\.csv line 2: 'x494.*time_stamp"),
        ("kuairand_pure", "20220502", "May 2nd", r"pure\.csv line 3: 'May 2nd' in date"),
        ("kuairand_pure", ",959,", ",9:59,", r"pure\.csv line 3: '9:59' in hourmin"),
        ("open_bandit", "2019-11-24 00:03:13", "24/11/19", r"all\.csv.* line 2: '24/11/19"),
        ("taobaoad_x1", ",170.0,", ",cheap,", r"train\.csv line 2: 'cheap' in price"),
    ],
)
def test_a_value_without_sense_is_named_with_its_line(
    name: str, old: str, new: str, words: str, prepare: Prepare
) -> None:
    files = SOURCES[name]()
    first = next(iter(files))
    with pytest.raises(UserError, match=words):
        prepare(name, {**files, first: files[first].replace(old, new, 1)})

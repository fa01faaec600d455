"""The public benchmarks, from rows in their publishers' formats: whole, and broken in the ways that files break."""

import gzip
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fieldctr.analysis.parity.protocol import FOLDER, Protocol
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.errors import UserError

Node = Callable[..., dict[str, Any]]
SPLITS = ("train", "valid", "test")
COUNTS, HEXES = [f"I{i}" for i in range(1, 14)], [f"C{i}" for i in range(1, 27)]
AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)
KKBOX = (
    "label,msno,song_id,source_system_tab,source_screen_name,source_type,city,bd,gender,registered_via,"
    "registration_init_time,expiration_date,song_length,genre_ids,artist_name,composer,lyricist,language,name,isrc"
)
HEADERS = {
    "frappe_x1": "label,user,item,daytime,weekday,isweekend,homework,cost,weather,country,city",
    "movielenslatest_x1": "label,user_id,item_id,tag_id",
    "avazu_x1": "label," + ",".join(f"feat_{i}" for i in range(1, 23)),
    "criteo_x1": ",".join(["label", *COUNTS, *HEXES]),
    "criteo_x4_001": ",".join(["Label", *COUNTS, *HEXES]),
    "criteo_x4_002": ",".join(["Label", *COUNTS, *HEXES]),
    "avazu_x4_001": AVAZU,
    "avazu_x4_002": AVAZU,
    "kkbox_x1": KKBOX,
}


def row(name: str, i: int) -> str:
    """A line as its publisher writes it; values repeat often enough for every min_count."""
    if name.startswith("criteo_x4"):
        numbers = [("", "0", "1", "2", "3", "-1", "181", "23456")[(i + k) % 8] for k in range(13)]
        return ",".join(
            [str(i % 2), *numbers, *(("", "68fd1e64", "1e100000", "00012345")[(i + k) % 4] for k in range(26))]
        )
    if name == "criteo_x1":
        return ",".join(
            [str(i % 2), *(f"{(i + k) % 5 / 100:.2f}" for k in range(13)), *(str(k * 9 + i % 3) for k in range(26))]
        )
    if name.startswith("avazu_x4"):
        hour = ("14102100", "14102513", "14102623")[i % 3]  # a Tuesday, a Saturday, a Sunday
        sites = "1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,a99f214a,ddd2926e,44956a24"
        return f"{10000009418151094273 + i},{i % 2},{hour},1005,0,{sites},1,2,15706,320,50,1722,0,35,-1,79"
    if name == "kkbox_x1":
        age, isrc = ("0", "17", "60", "1051", "95")[i % 5], ("TWUM71200043", "GBAYE6800011", "")[i % 3]
        genres = ("465", "458 465", "1609 458 465 2022", "")[i % 4]
        place = "explore,Explore,online-playlist" if i % 2 else "my library,,"
        return f"{i % 2},{i % 7},{i % 4},{place},13,{age},,9,20110820,20170920,253888,{genres},3277,,,3.0,{i},{isrc}"
    return ",".join([str(i % 2), *(str(1000 * k + (i + k) % 4) for k in range(HEADERS[name].count(",")))])


def table(name: str, rows: int = 80) -> str:
    return "\n".join([HEADERS[name], *(row(name, i) for i in range(rows))]) + "\n"


def write(folder: Path, name: str, **texts: bytes) -> None:
    for split in SPLITS:
        (folder / f"{split}.csv").write_bytes(texts.get(split, table(name).encode()))


def claimed(node: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The node, as if the files of the folder were what was published."""
    md5 = {f"{s}.csv": hashlib.md5((folder / f"{s}.csv").read_bytes()).hexdigest() for s in SPLITS}
    return node | {"raw_dir": str(folder), "published": {"md5": md5, "rows": dict.fromkeys(SPLITS, 80)}}


def prepare(node: Node, name: str, folder: Path, **texts: bytes) -> Dataset:
    write(folder, name, **texts)
    return prepared(claimed(node(name), folder), data_dir=folder / "out")


def words(dataset: Dataset, field: str) -> dict[str, int]:
    known = pl.read_parquet(dataset.folder / "vocabulary.parquet").filter(pl.col("field") == field)
    return dict(zip(known["value"], known["count"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADERS)
def test_the_publishers_rows_are_read(name: str, dataset_node: Node, tmp_path: Path) -> None:
    dataset = prepare(dataset_node, name, tmp_path)
    assert [len(getattr(dataset, split)) for split in SPLITS] == [80, 80, 80]
    assert dataset.facts["rows"]["dropped"] == {}
    published = Protocol.load(name).vocab_size
    assert not published or set(published) == {field.name for field in dataset.schema.fields}
    numeric = {field.name for field in dataset.schema.fields if field.numeric}
    assert numeric == {field for field, size in published.items() if size is None}


@pytest.mark.parametrize("name", ["criteo_x4_001", "criteo_x4_002"])
def test_criteo_counts_become_squared_logs_and_zero_is_missing(name: str, dataset_node: Node, tmp_path: Path) -> None:
    dataset = prepare(dataset_node, name, tmp_path)
    cells = [row(name, i).split(",")[1] for i in range(80)]
    numbers = [int(cell) for cell in cells if cell]
    counts = Counter(str(math.floor(math.log(x) ** 2) if x > 2 else x) for x in numbers)
    del counts["0"]
    assert words(dataset, "I1") == dict(counts)
    assert dataset.facts["fields"]["I1"]["missing"]["train"] == sum(cell in ("", "0") for cell in cells) / 80
    assert words(dataset, "C1") == {"68fd1e64": 20, "1e100000": 20, "00012345": 20}, "hashes are no numbers"


def test_criteo_x4_keeps_features_by_their_count(dataset_node: Node, tmp_path: Path) -> None:
    rare = table("criteo_x4_001") + ("1," + "," * 12 + ",deadbeef" + "," * 25 + "\n") * 9
    for name, known in (("criteo_x4_001", False), ("criteo_x4_002", True)):
        node = dataset_node(name, "dataset.published=null") | {"raw_dir": str(tmp_path)}
        write(tmp_path, name, train=rare.encode())
        assert ("deadbeef" in words(prepared(node, data_dir=tmp_path / "out"), "C1")) == known


def test_avazu_hours_give_hour_weekday_and_weekend(dataset_node: Node, tmp_path: Path) -> None:
    dataset = prepare(dataset_node, "avazu_x4_001", tmp_path)
    assert words(dataset, "hour") == {"0": 27, "13": 27, "23": 26}
    assert words(dataset, "weekday") == {"2": 27, "6": 27, "7": 26}
    assert words(dataset, "weekend") == {"1": 53, "0": 27}
    assert "id" not in [field.name for field in dataset.schema.fields]


def test_kkbox_ages_countries_and_lists(dataset_node: Node, tmp_path: Path) -> None:
    dataset = prepare(dataset_node, "kkbox_x1", tmp_path)
    assert words(dataset, "bd") == {"2": 16, "6": 16, "7": 16}, "0 and 1051 are no ages"
    assert words(dataset, "isrc") == {"TW": 27, "GB": 27}
    assert words(dataset, "genre_ids") == {"465": 60, "458": 40, "1609": 20}, "the first three of a list"
    assert words(dataset, "language") == {"3": 80}
    assert dataset.facts["fields"]["source_type"]["missing"]["train"] == 0.5


def test_criteos_own_file_has_tabs_and_no_header(dataset_node: Node, tmp_path: Path) -> None:
    lines = [row("criteo_x4_001", i).replace(",", "\t") for i in range(400)]
    node = dataset_node("criteo") | {"raw_dir": str(tmp_path)}
    (tmp_path / "train.txt").write_text(
        "\n".join([*lines, lines[0]]) + "\n"
    )  # a row may occur twice, the first one too
    dataset = prepared(node, data_dir=tmp_path / "out")
    assert dataset.facts["rows"]["read"] == 401
    assert words(dataset, "C1").keys() == {"68fd1e64", "1e100000", "00012345"}
    (tmp_path / "train.txt").write_text("\n".join([lines[0], lines[1] + "\t1"]))
    with pytest.raises(UserError, match=r"train\.txt line 2: 41 columns, expected 40"):
        prepared(node, data_dir=tmp_path / "out")
    (tmp_path / "train.txt").write_text("\n".join(["\t".join(line.split("\t")[:-1]) for line in lines]))
    with pytest.raises(UserError, match=r"train\.txt line 1: 39 columns, expected 40"):
        prepared(node, data_dir=tmp_path / "out")
    (tmp_path / "train.txt").write_text("\n".join([HEADERS["criteo_x4_001"].replace(",", "\t"), *lines]))
    with pytest.raises(UserError, match=r"train\.txt line 1: 'Label' in Label"):
        prepared(node, data_dir=tmp_path / "out")


def test_avazus_own_file_is_read_as_gzip(dataset_node: Node, tmp_path: Path) -> None:
    hours = [f"1410{21 + i // 24}{i % 24:02}" for i in range(240)]
    rows = [row("avazu_x4_001", i).split(",") for i in range(240)]
    text = "\n".join(
        [AVAZU, *(",".join([*cells[:2], hour, *cells[3:]]) for hour, cells in zip(hours, rows, strict=True))]
    )
    (tmp_path / "train.gz").write_bytes(gzip.compress(text.encode()))
    dataset = prepared(dataset_node("avazu") | {"raw_dir": str(tmp_path)}, data_dir=tmp_path / "out")
    assert [len(getattr(dataset, split)) for split in SPLITS] == [192, 24, 24], "the last day is the test"


def test_line_ends_of_windows_change_nothing(dataset_node: Node, tmp_path: Path) -> None:
    windows = table("frappe_x1").replace("\n", "\r\n").encode()
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, text in ((one, table("frappe_x1").encode()), (other, windows)):
        folder.mkdir()
        prepare(dataset_node, "frappe_x1", folder, train=text)
    first, second = (next((folder / "out").glob("*/schema.json")).parent for folder in (one, other))
    for file in ("vocabulary.parquet", "train.ids.npy", "train.label.npy"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_large_ids_stay_apart(dataset_node: Node, tmp_path: Path) -> None:
    ids = [2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**64, 2**64 + 1]
    lines = [f"{i % 2},{key},1,2" for i, key in enumerate(ids)] * 2 + [row("movielenslatest_x1", i) for i in range(68)]
    text = "\n".join([HEADERS["movielenslatest_x1"], *lines])
    dataset = prepare(dataset_node, "movielenslatest_x1", tmp_path, train=text.encode())
    known = words(dataset, "user_id")
    assert [known[str(key)] for key in ids] == [2] * len(ids)


def broken(text: str, way: str) -> bytes:
    lines = text.splitlines(keepends=True)
    if way == "short row":
        lines[7] = "1,12\n"
    elif way == "long row":
        lines[7] = lines[7].strip() + ",9\n"
    elif way == "second header":
        lines.insert(7, lines[0])
    elif way == "no label":
        before = len(lines[7].split(",")[0]) + 1 if lines[0].startswith("id,") else 0
        lines[7] = lines[7][:before] + "?" + lines[7][before + 1 :]
    elif way == "bytes":
        return "".join(lines[:7]).encode() + b"1,\xff\xfe" + "".join(lines[7:]).encode()
    elif way == "gzip":
        packed = gzip.compress("".join(lines[:1] + lines[1:] * 300).encode(), 1)
        return packed[: len(packed) // 2]
    return "".join(lines).encode()


@pytest.mark.parametrize("name", ["frappe_x1", "avazu_x4_001", "kkbox_x1"])
@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("short row", r"line 8: \d+ columns, expected \d+"),
        ("long row", r"line 8: \d+ columns, expected \d+"),
        ("second header", r"line 8: the header again"),
        ("no label", r"line 8: '\?' in (label|click|target)"),
        ("bytes", r"line 8: byte 0xff is no UTF-8\. Set encoding"),
        ("gzip", r"after line [\d,]+: Compressed file ended"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    name: str, way: str, reason: str, dataset_node: Node, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"{name}.*valid\.csv {reason}.*Nothing was written"):
        prepare(dataset_node, name, tmp_path, valid=broken(table(name), way))
    assert [path for path in (tmp_path / "out").glob("*") if not path.name.startswith(".")] == []


def test_another_file_than_the_published_one_is_refused(dataset_node: Node, tmp_path: Path) -> None:
    node = dataset_node("frappe_x1")
    write(tmp_path, "frappe_x1")
    expected, found = node["published"]["md5"]["train.csv"], hashlib.md5(table("frappe_x1").encode()).hexdigest()
    with pytest.raises(UserError, match=rf"train\.csv: md5 {found}, published {expected}.*dataset\.published=null"):
        prepared(node | {"raw_dir": str(tmp_path)}, data_dir=tmp_path / "out")
    knowingly = dataset_node("frappe_x1", "dataset.published=null")
    assert len(prepared(knowingly | {"raw_dir": str(tmp_path)}, data_dir=tmp_path / "out").train) == 80


def test_another_number_of_rows_than_the_published_one_is_refused(dataset_node: Node, tmp_path: Path) -> None:
    write(tmp_path, "frappe_x1")
    node = claimed(dataset_node("frappe_x1"), tmp_path)
    node["published"]["rows"]["test"] = 81
    with pytest.raises(UserError, match="split 'test' has 80 rows, published 81"):
        prepared(node, data_dir=tmp_path / "out")
    node["published"]["md5"]["tset.csv"] = ""
    with pytest.raises(UserError, match=r"published\.md5 names tset\.csv"):
        prepared(node, data_dir=tmp_path / "out")


@pytest.mark.parametrize("name", HEADERS)
def test_a_missing_file_is_answered_with_where_it_is(name: str, dataset_node: Node, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"no file train\.csv, valid\.csv, test\.csv in .*huggingface\.co/datasets/reczoo/.*download_reczoo\.sh",
    ):
        prepared(dataset_node(name) | {"raw_dir": str(tmp_path)}, data_dir=tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "split", "reason"),
    [
        ({"trian": "train.csv"}, {"by": "file"}, r"source\.files\.trian.*Nearest: train"),
        ({"train": "train.csv"}, {"by": "random", "seed": 1, "fractions": [0.8, 0.1, 0.1]}, "expected split.by=file"),
        ("train.csv", {"by": "file"}, "split.by=file needs source.files"),
        ({"train": "train.csv", "test": "test.csv"}, {"by": "file"}, "split 'valid' is empty"),
    ],
)
def test_files_and_split_must_agree(
    files: Any, split: dict[str, Any], reason: str, dataset_node: Node, tmp_path: Path
) -> None:
    write(tmp_path, "frappe_x1")
    node = dataset_node("frappe_x1", "dataset.published=null") | {"raw_dir": str(tmp_path)}
    node["source"] |= {"files": files, "split": split}
    with pytest.raises(UserError, match=reason):
        prepared(node, data_dir=tmp_path / "out")


def test_a_part_of_the_train_file_can_be_the_validation_split(dataset_node: Node, tmp_path: Path) -> None:
    write(tmp_path, "frappe_x1", train=table("frappe_x1", 2000).encode())
    node = dataset_node("frappe_x1", "dataset.published=null") | {"raw_dir": str(tmp_path)}
    split = {"by": "file", "valid_from_train": 0.2, "seed": 1}
    node["source"] |= {"files": {"train": "train.csv", "test": "test.csv"}, "split": split}
    dataset = prepared(node, data_dir=tmp_path / "out")
    assert len(dataset.train) + len(dataset.valid) == 2000
    assert 320 < len(dataset.valid) < 480


@pytest.mark.slow
def test_every_protocol_is_a_dataset_with_the_fields_of_the_board(dataset_node: Node) -> None:
    for name in HEADERS:
        assert (FOLDER / f"{name}.json").exists()
        node, sizes = dataset_node(name), Protocol.load(name).vocab_size
        assert not sizes or list(sizes) == [field for field in sizes if field in node["fields"]]
        assert list(node["published"]["md5"]) == ["train.csv", "valid.csv", "test.csv"]
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in node["published"]["md5"].values())

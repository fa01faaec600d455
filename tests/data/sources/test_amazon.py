"""Amazon Reviews 2023 in the publisher's format: against a naive join, in the exact cut, and what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fieldctr.data.describe import describe
from fieldctr.data.prepare import prepared
from fieldctr.data.sources import amazon
from fieldctr.data.table import LABEL
from fieldctr.errors import UserError

SPLIT = {"by": "order", "column": "timestamp", "unit": "ms", "fractions": [0.8, 0.1, 0.1]}
ENTRIES: list[dict[str, Any]] = [
    {"main_category": "Gift Cards", "title": "Old title", "average_rating": 4.1, "rating_number": 3, "features": [],
     "description": [], "price": 1.0, "images": [], "videos": [], "store": "Amazon", "categories": [], "details": {},
     "parent_asin": "B01", "bought_together": None},
    {"main_category": None, "title": "L'été — “50$”, Größe\t", "average_rating": 4.0, "rating_number": 2**53 + 1,
     "features": ["It's a card", 'A "quoted" one', "né\u2028"], "description": ["One, two"], "price": "from 25.00",
     "images": [{"thumb": "https://x"}], "videos": [], "store": None, "categories": ["Gift Cards", "For Him"],
     "details": {"Is Discontinued": True, "Best Sellers Rank": {"Gift Cards": 7}, "Weight": 0.5, "Note": None},
     "parent_asin": "B01", "bought_together": None},
    {"title": "Plain", "parent_asin": "B02", "price": 25.0, "details": {}, "subtitle": "not everywhere"},
]  # fmt: skip
TIMES = [5, 3, 9, 3, 3, 8, 1, 3, 7, 3, 2, 6, 4]  # ties: the stable order decides what is train


def reviews() -> list[dict[str, Any]]:
    return [
        {"rating": [5.0, 1.0, 4.0, 3.0][i % 4], "title": "é", "text": "a\n\"b\"", "images": [], "asin": f"C{i}",
         "parent_asin": f"B0{1 + i % 3}", "user_id": str(2**53 + i), "timestamp": 1_600_000_000_000 + time,
         "helpful_vote": 0, "verified_purchase": True}
        for i, time in enumerate(TIMES)
    ]  # fmt: skip


def write(folder: Path, name: str, rows: list[dict[str, Any]], *, end: str = "\n", ascii_only: bool = False) -> Path:
    path = folder / f"{name}.jsonl.gz"
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def read(folder: Path) -> pl.DataFrame:
    return amazon.read(folder, category="Gift_Cards", split=SPLIT).frame.collect()


def node(folder: Path) -> dict[str, Any]:
    source = {"_target_": "fieldctr.data.sources.amazon.read", "category": "Gift_Cards", "split": SPLIT}
    fields = dict.fromkeys(["parent_asin", "user_id", "timestamp", *amazon.ITEM])
    raw = {"name": "a", "raw_dir": str(folder), "min_count": 1, "group": "user_id"}
    return raw | {"fields": fields, "source": source}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_every_review_meets_the_last_entry_of_its_item(end: str, ascii_only: bool, tmp_path: Path) -> None:
    write(tmp_path, "Gift_Cards", reviews(), end=end, ascii_only=ascii_only)
    write(tmp_path, "meta_Gift_Cards", ENTRIES, end=end, ascii_only=ascii_only)
    last = {entry["parent_asin"]: entry for entry in ENTRIES}
    expected = []
    for review in reviews():
        entry = last.get(review["parent_asin"], {})
        known = [None if entry.get(name) is None else str(entry[name]) for name in amazon.ITEM]
        row = [review[name] for name in ("parent_asin", "user_id", "timestamp")]
        expected.append((*row, *known, int(review["rating"] >= 4)))
    frame = read(tmp_path)
    assert frame.select("parent_asin", "user_id", "timestamp", *amazon.ITEM, LABEL).rows() == expected
    assert frame["details"][0] == str(ENTRIES[1]["details"])
    assert frame["rating_number"][0] == "9007199254740993"


def test_half_a_character_is_no_crash(tmp_path: Path) -> None:
    write(tmp_path, "Gift_Cards", reviews())
    write(tmp_path, "meta_Gift_Cards", [{"parent_asin": "B01", "title": "a\ud800b"}], ascii_only=True)
    assert read(tmp_path)["title"][0] == "a?b"


def test_the_cut_is_the_papers(tmp_path: Path) -> None:
    write(tmp_path, "Gift_Cards", reviews())
    write(tmp_path, "meta_Gift_Cards", ENTRIES)
    ordered = sorted(range(len(TIMES)), key=lambda i: TIMES[i])
    train, valid = int(0.8 * len(TIMES)), int(0.1 * len(TIMES))
    expected = dict.fromkeys(ordered[:train], "train") | dict.fromkeys(ordered[train : train + valid], "valid")
    assert read(tmp_path)["fieldctr:split"].to_list() == [expected.get(i, "test") for i in range(len(TIMES))]


def test_nothing_is_lost_silently(tmp_path: Path) -> None:
    many = [row | {"timestamp": row["timestamp"] + 20 * k} for k in range(4) for row in reviews()]
    write(tmp_path, "Gift_Cards", many)
    write(tmp_path, "meta_Gift_Cards", ENTRIES)
    dataset = prepared(node(tmp_path), data_dir=tmp_path / "out")
    facts, rows = dataset.facts, dataset.facts["rows"]
    assert rows["read"] == rows["train"] + rows["valid"] + rows["test"] == len(many)
    assert facts["counts"] == {"meta_Gift_Cards.jsonl.gz: entries that a later one replaces": 1}
    assert "a later one replaces: 1" in describe(dataset)
    without = sum(row["parent_asin"] == "B03" for row in many)
    missing = facts["fields"]["details"]["missing"]
    assert sum(missing[split] * rows[split] for split in missing) == pytest.approx(without)
    assert facts["fields"]["timestamp"]["unseen"]["test"] == 1


@pytest.mark.parametrize("broken", ["Gift_Cards", "meta_Gift_Cards"])
@pytest.mark.parametrize(
    ("defect", "words"),
    [
        (lambda whole: gzip.compress(gzip.decompress(whole).replace(b"B02", b"B\xff2", 1)), "line [23]: .*utf-8"),
        (lambda whole: gzip.compress(gzip.decompress(whole)[:-30]), "line (3|13): "),
        (lambda whole: gzip.compress(gzip.decompress(whole) + b"[1]\n"), "line (4|14): not a JSON object"),
        (lambda whole: whole[:-20], r"line \d+: .*end"),
        (lambda whole: b"rating,parent_asin\n", "line 1: "),
    ],
)
def test_a_broken_file_is_named_with_its_line(broken: str, defect: Any, words: str, tmp_path: Path) -> None:
    paths = {name: write(tmp_path, name, rows) for name, rows in
             (("Gift_Cards", reviews()), ("meta_Gift_Cards", ENTRIES))}  # fmt: skip
    paths[broken].write_bytes(defect(paths[broken].read_bytes()))
    with pytest.raises(UserError, match=rf"/{broken}\.jsonl\.gz {words}"):
        prepared(node(tmp_path), data_dir=tmp_path / "out")
    assert not list((tmp_path / "out").glob("[!.]*"))


@pytest.mark.parametrize("change", [{"timestamp": 1.5}, {"timestamp": 2**64}, {"rating": "good"}, {"rating": None}])
def test_a_review_without_sense_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, "Gift_Cards", [*reviews(), reviews()[0] | change])
    write(tmp_path, "meta_Gift_Cards", ENTRIES)
    with pytest.raises(UserError, match=r"1\.5|18446744073709551616|good|blank"):
        prepared(node(tmp_path), data_dir=tmp_path / "out")


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file Gift_Cards\.jsonl\.gz, meta_Gift_Cards\.jsonl\.gz in .*github\.io"):
        read(tmp_path)

"""What is no table of rows is refused in a sentence, and no pipe, socket or device is waited for."""

import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tables import tidy_node

from fieldctr.data.files import find
from fieldctr.data.formats import obstacle
from fieldctr.data.new_rows import NewRows, with_side_tables
from fieldctr.data.prepare import prepared
from fieldctr.data.reading import Reading
from fieldctr.data.scan import scan
from fieldctr.data.scoring import check_output
from fieldctr.errors import UserError

HANGS_S = 60
ROWS = "user,item,click\n" + "".join(f"u{i % 7},i{i % 5},{i % 3 % 2}\n" for i in range(60))


def node(folder: Path, files: str = "t.csv", **source: Any) -> dict[str, Any]:
    return tidy_node(folder / "raw", files, {"user": {}, "item": {}}, **source)


def refusal(act: Callable[[], object]) -> str:
    """The UserError of what is done; a hang fails instead of hanging."""
    said: list[BaseException | None] = []

    def watched() -> None:
        try:
            act()
            said.append(None)
        except BaseException as error:  # noqa: BLE001 - of another thread, for this one
            said.append(error)

    thread = threading.Thread(target=watched, daemon=True)
    thread.start()
    thread.join(HANGS_S)
    assert said, "it hangs"
    assert isinstance(said[0], UserError), said
    assert len(str(said[0])) < 500
    return str(said[0])


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table and all kinds of what is none."""
    folder = tmp_path / "raw"
    for name in ("dir.csv", "mixed"):
        (folder / name).mkdir(parents=True)
    (folder / "t.csv").write_text(ROWS)
    (folder / "mixed" / "t.csv").write_text(ROWS)
    for pipe in ("pipe", "mixed/pipe.csv"):
        os.mkfifo(folder / pipe)
    monkeypatch.chdir(folder)  # the name of a socket is short
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.close()
    (folder / "broken").symlink_to("nowhere")
    (folder / "itself").symlink_to("itself")
    return folder


ODD = {
    "dir.csv": "no file in the folder .*dir.csv|dir.csv is a folder",
    "pipe": "pipe is a pipe. Write its rows to a file",
    "mixed": "mixed/pipe.csv is a pipe|mixed is a folder",
    "socket": "socket is a socket. Write",
    "broken": "broken is a link that leads nowhere",
    "itself": "itself cannot be reached: Too many levels of symbolic links",
    "/dev/zero": "zero is a device. Write",
    "/dev/null": "null is a device. Write",
    "t.csv/b": "no file t.csv/b|t.csv/b is missing",
    "x" * 300: "cannot be reached: File name too long",
    "a\0b": "no file a\0b|b is missing",
    os.fsdecode(b"\xe9.csv"): "its name is no UTF-8",
}


def in_words(words: str, message: str) -> bool:
    return any(re.search(word, message) for word in words.split("|"))


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_what_is_no_file_is_refused_wherever_a_file_is_named(name: str, raw: Path) -> None:
    if not name.isprintable() and "\0" not in name:
        (raw / name).write_text(ROWS)
    messages = [
        refusal(lambda: prepared(node(raw.parent, name), data_dir=raw.parent / "out")),
        refusal(lambda: prepared(node(raw.parent, joins={"j": {"files": name, "on": "user"}}), data_dir=raw / "out")),
        refusal(lambda: NewRows(raw / name).scan()),
        refusal(lambda: scan(raw / name, Reading())),
    ]
    for message in messages:
        assert in_words(ODD[name], message), message


@pytest.mark.parametrize("name", ["pipe", "socket", "broken", "itself", "/dev/zero"])
def test_an_odd_side_table_of_new_rows_is_refused_and_an_absent_one_said(name: str, raw: Path) -> None:
    frame = pl.LazyFrame({"user": ["u1"]})
    message = refusal(lambda: with_side_tables(frame, {"user": (raw / name, lambda path: scan(path, Reading()))}))
    assert in_words(ODD[name], message), message
    assert with_side_tables(frame, {"user": (raw / "absent", lambda path: scan(path, Reading()))}) is frame


@pytest.mark.parametrize("name", ["pipe.csv", "socket.csv", "dir.csv", "broken.csv", f"{'x' * 300}.csv"])
def test_scores_are_written_to_a_file_and_to_nothing_else(name: str, raw: Path) -> None:
    for kind in ("pipe", "socket", "broken"):
        (raw / kind).rename(raw / f"{kind}.csv")
    with pytest.raises(UserError, match=r"output=.*(is a|cannot be).*expected the name of a file"):
        check_output(raw / name, raw / "t.csv")


def test_a_file_that_this_user_may_not_read_is_named(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read all
    with pytest.raises(UserError, match=r"t\.csv cannot be read: Permission denied"):
        find(raw, "t.csv")


@pytest.mark.parametrize(
    "name", ["a\nb.csv", "*.csv", "[a].csv", "a?b.csv", "\"q'.csv", " lead.csv", "é日", "%41", "-x"]
)
def test_any_other_name_is_a_name(name: str, tmp_path: Path) -> None:
    for place in (tmp_path / "raw" / name, tmp_path / "raw" / f"{name} folder" / name):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(ROWS)
        assert find(tmp_path / "raw", place.name) == [tmp_path / "raw" / name]
        named = str(place.relative_to(tmp_path / "raw"))
        assert prepared(node(tmp_path, named), data_dir=tmp_path / "out").facts["rows"]["read"] == 60


HEADER = ROWS.partition("\n")[0]
NO_TABLES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "t.csv is empty"),
    "blank lines": (b"\n\r\n\n", "t.csv is empty"),
    "a byte order mark": (b"\xef\xbb\xbf", "t.csv.* empty"),
    "a header": (HEADER.encode() + b"\n", "split 'train' is empty"),
    "NUL bytes": (bytes(5000), "neither text nor"),
    "NUL in a cell": (ROWS.replace("u1", "u\0").encode(), "neither text nor"),
    "one row": (f"{HEADER}\nu1,i1,1\n".encode(), "is empty|constant"),
    "two rows": (f"{HEADER}\nu1,i1,1\nu2,i1,0\n".encode(), "is empty|constant"),
    "one class": (f"{HEADER}\n".encode() + b"u2,i2,1\n" * 50, "label is constant"),
    "an endless line": (b"x" * 5_000_000, "line 1: 5,000,000 bytes, and no header has so many"),
    "endless cells": (b"a," * 2_500_000, "line 1: 5,000,000 bytes, and no header has so many"),
    "a long name": (b"x" * 5000 + b",y\n1,2\n", "line 1: a column's name has 5,000 characters"),
}


@pytest.mark.parametrize("kind", NO_TABLES)
def test_a_file_without_a_table_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "t.csv").write_bytes(NO_TABLES[kind][0])
    message = refusal(lambda: prepared(node(tmp_path), data_dir=tmp_path / "out"))
    assert in_words(NO_TABLES[kind][1], message), message


def test_a_line_that_does_not_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldctr.data.lines.MOST_OPEN", 1 << 20)
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "t").write_text(HEADER + "\n" + "x" * (3 << 20), encoding=encoding)
        with pytest.raises(UserError, match="t has a line of more than 1 MB"):
            NewRows(tmp_path / "t").scan()


@pytest.mark.parametrize("cell", ["x" * 1_000_000, '"' + "x,\n" * 300_000 + '"'])
def test_a_cell_of_megabytes_is_a_cell(cell: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "t.csv").write_text(ROWS + f"u1,{cell},1\n" * 9)
    dataset = prepared(node(tmp_path), data_dir=tmp_path / "out")
    assert dataset.facts["rows"]["read"] == 69
    longest = pl.read_parquet(dataset.folder / "vocabulary.parquet")["value"].str.len_bytes().max()
    assert longest == len(cell.strip('"'))


def test_a_path_tells_what_it_is_without_being_opened(raw: Path) -> None:
    assert obstacle(raw / "t.csv") == ""
    assert obstacle(raw / "absent") == "is missing"
    assert obstacle(raw / "pipe") == "is a pipe"

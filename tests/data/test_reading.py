"""Whatever way a table is written, the same cells are read; what cannot be read is named for what it is."""

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import random
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fieldctr.data.bad_lines import refuse_bad_lines
from fieldctr.data.columns import column
from fieldctr.data.fields.spelling import value_texts
from fieldctr.data.reading import Reading, null_texts
from fieldctr.data.scan import scan, settled
from fieldctr.errors import UserError

Rows = list[list[str]]
PLAIN = ["a", "1", "é", "x y", "", "7.25", "-3", "#", "|", "日本", "'", "*"]
NASTY = [*PLAIN, 'say "x"', "a,b", "a\tb", "a::b", "line\nend", '"', '""', "\\", '\\"', "a;b", "\r\n", "§"]
NAMES = ["user", "*", "^a$", "user_duplicated_0", "", "12", "naïve"]


def rows(seed: int, cells: list[str], number: int = 40) -> Rows:
    """Cells drawn at random; no row of blanks alone, and no cell that ends in blanks."""
    draw = random.Random(seed)
    return [
        ["k", *("".join(draw.choices(cells, k=draw.randint(0, 2))).strip() for _ in NAMES[1:])] for _ in range(number)
    ]


def rfc(table: Rows, separator: str = ",", quote: str = '"', end: str = "\n") -> str:
    """As RFC 4180 has it, with a separator of any width and another quote."""

    def cell(text: str) -> str:
        wild = any(part in text for part in (separator, quote, "\n", "\r"))
        return f"{quote}{text.replace(quote, 2 * quote)}{quote}" if wild else text

    return "".join(separator.join(map(cell, row)) + end for row in table)


def escaped(table: Rows) -> str:
    """As MySQL writes it: all in quotes, and a backslash before what they could be taken for."""

    def cell(text: str) -> str:
        return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'

    return "".join(",".join(map(cell, row)) + "\n" for row in table)


def read(path: Path, reading: Reading) -> Rows:
    """All cells as text, a missing one as a blank, by batches as the encoder takes them."""
    refuse_bad_lines(path, reading)
    frame = scan(path, reading)
    texts = frame.select(column(n).cast(pl.String).fill_null("") for n in frame.collect_schema())
    batches = list(texts.collect_batches(chunk_size=7))
    return [list(frame.collect_schema()), *(list(row) for batch in batches for row in batch.rows())]


def zstd(path: Path, text: str) -> None:
    """polars writes zstd; a separator that no cell has makes a line of each."""
    frame = pl.LazyFrame({"line": text.split("\n")[:-1]})
    frame.sink_csv(path, compression="zstd", include_header=False, quote_style="never", check_extension=False)


PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "plain": bytes, "gzip": gzip.compress, "zlib": zlib.compress, "bzip2": bz2.compress, "xz": lzma.compress,
    "two gzips": lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:]),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::", "§", "<=>"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_any_separator_and_quote_give_the_same_cells(separator: str, quote: str, seed: int, tmp_path: Path) -> None:
    table = [NAMES, *rows(seed, NASTY)]
    (tmp_path / "t").write_bytes(rfc(table, separator, quote).encode())
    assert read(tmp_path / "t", Reading(separator=separator, quote=quote)) == table


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("packing", PACKERS)
def test_any_compression_gives_the_same_cells(packing: str, seed: int, tmp_path: Path) -> None:
    table = [NAMES, *rows(seed, NASTY)]
    (tmp_path / "t").write_bytes(PACKERS[packing](rfc(table).encode()))
    assert read(tmp_path / "t", Reading(quote='"')) == table


def test_zstd_gives_the_same_cells(tmp_path: Path) -> None:
    table = [NAMES, *rows(5, [cell for cell in NASTY if "\r" not in cell])]
    zstd(tmp_path / "t", rfc(table))
    assert (tmp_path / "t").read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    assert read(tmp_path / "t", Reading(quote='"')) == table


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("seed", range(2))
def test_any_encoding_gives_the_same_cells(encoding: str, seed: int, tmp_path: Path) -> None:
    table = [NAMES, *rows(seed, [cell for cell in NASTY if "日" not in cell])]
    (tmp_path / "t").write_bytes(rfc(table).encode(encoding))
    marked = encoding in ("utf-8-sig", "utf-16", "utf-32")  # a byte order mark tells
    assert read(tmp_path / "t", Reading(quote='"', encoding="auto" if marked else encoding)) == table


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n\n", "cut"])
@pytest.mark.parametrize("separator", [",", "::"])
def test_line_ends_and_blank_lines_at_the_end_change_nothing(
    separator: str, tail: str, end: str, tmp_path: Path
) -> None:
    table = [NAMES, *rows(3, PLAIN)]
    text = rfc(table, separator, end=end)
    text = text.removesuffix(end) if tail == "cut" else text + tail.replace("\n", end)
    (tmp_path / "t").write_bytes(text.encode())
    assert read(tmp_path / "t", Reading(separator=separator, quote='"')) == table


@pytest.mark.parametrize("seed", range(5))
def test_the_file_tells_what_its_quotes_mean(seed: int, tmp_path: Path) -> None:
    (tmp_path / "rfc").write_text(rfc([NAMES, *rows(seed, NASTY)]), newline="")
    (tmp_path / "escaped").write_text(escaped([NAMES, *rows(seed, NASTY)]), newline="")
    bare = [NAMES, *rows(seed, [*PLAIN, '27" ', 'the "x" of', '"the" ', '"whole"'])]
    (tmp_path / "bare").write_text("".join("\t".join(row) + "\n" for row in bare), newline="")
    assert read(tmp_path / "rfc", Reading()) == [NAMES, *rows(seed, NASTY)]
    assert read(tmp_path / "escaped", Reading()) == [NAMES, *rows(seed, NASTY)]
    assert read(tmp_path / "bare", Reading(separator="\t")) == bare


def test_all_files_of_a_table_have_one_quoting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text('x,y\n"whole",1\n')
    second.write_text('x,y\n27" mon,1\n')
    how = settled((first, second), Reading())
    assert [how[path].quote for path in (first, second)] == ["none", "none"]
    assert read(first, how[first]) == [["x", "y"], ['"whole"', "1"]]
    assert f"{second} has quotes that do not enclose cells" in capsys.readouterr().err


@pytest.mark.parametrize("cell", ['27" mon', '"the" mon', r'"the \"x\" mon"', '"a" "b"'])
def test_a_quote_in_a_cell_far_down_is_named_with_its_line_and_the_key(cell: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("x,y\n" + "aaaaaaa,b\n" * 500_000 + f"{cell},1\n")
    with pytest.raises(UserError, match=r"t line 500,002: a quote does not enclose a cell(.|\n)*quote: none"):
        refuse_bad_lines(tmp_path / "t", Reading())


def test_runs_of_blanks_can_separate(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("  user   ad\tclick \n 1  b \t 0\n2\tc   1  \n")
    assert read(tmp_path / "t", Reading(separator=r"\s+")) == [
        ["user", "ad", "click"],
        ["1", "b", "0"],
        ["2", "c", "1"],
    ]


@pytest.mark.parametrize("typed", [r"\t", "\t", r"\\t"])
def test_a_tab_can_be_typed(typed: str) -> None:
    assert Reading(separator=typed).separator == "\t"


def test_a_header_that_is_given_names_the_columns(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("1,a\n1,a\n2,b\n")
    assert read(tmp_path / "t", Reading(header=["user", 1])) == [["user", "1"], ["1", "a"], ["1", "a"], ["2", "b"]]


FORMATS: Mapping[str, Callable[[pl.DataFrame, Path], Any]] = {
    "csv": lambda frame, path: frame.write_csv(path),
    "parquet": lambda frame, path: frame.write_parquet(path),
    "arrow": lambda frame, path: frame.write_ipc(path),
    "arrow stream": lambda frame, path: frame.write_ipc_stream(path),
    "jsonl": lambda frame, path: frame.write_ndjson(path),
    "jsonl gz": lambda frame, path: path.write_bytes(gzip.compress(frame.write_ndjson().encode())),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FORMATS)
def test_any_format_gives_the_same_texts(name: str, seed: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "t": draw.choice(NASTY, 50).tolist(),
            "i": draw.integers(-(2**62), 2**62, 50),
            "f": draw.normal(size=50) * 10.0 ** draw.integers(-20, 20, 50),
            "w": draw.integers(0, 9, 50).astype(float),
            "b": draw.random(50) < 0.5,
        }
    ).with_columns(pl.when(pl.int_range(50) % 7 > 0).then(pl.all()))
    FORMATS[name](frame, tmp_path / "file")
    found = scan(tmp_path / "file", Reading(), row="row").collect()
    texts = [value_texts(pl.col(column), frame.schema[column]) for column in frame.columns]
    read_texts = [value_texts(pl.col(column), found.schema[column]) for column in frame.columns]
    assert found.select(read_texts).equals(frame.select(texts))
    assert found["row"].to_list() == list(range(50))
    assert found.columns == [*frame.columns, "row"]


def test_the_types_of_json_lines_do_not_hang_on_the_first_ones(tmp_path: Path) -> None:
    lines = [{"a": 1}] * 300 + [{"a": "x", "b": 0.10}, {}, {"a": True}, {"a": None, "c": [1, "y"]}]
    (tmp_path / "t").write_text("".join(json.dumps(line) + "\n" for line in lines) + '\n{"a": 1.50, "b": NaN}\n')
    found = scan(tmp_path / "t", Reading()).collect()
    assert found.schema == {"a": pl.String, "b": pl.String, "c": pl.List(pl.String)}
    assert found["a"].to_list() == ["1"] * 300 + ["x", None, "true", None, "1.50"]
    assert found["b"].to_list()[300:] == ["0.1", None, None, None, "NaN"]
    assert found["c"].to_list()[300:] == [None, None, None, ["1", "y"], None]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"a": {"x": 1}}', "row 2: 'a' holds an object"),
        ('{"a": [[1]]}', "row 2: 'a' holds an object or a list in a list"),
        ('{"a": [1]}', "row 2: 'a' holds a list in one row and a single value in another"),
        ("[1]", "line 2: not a JSON object"),
        ('{"a": ', "line 2: "),
        ('{"fieldctr:x": 1}', "a column is called 'fieldctr:x'"),
    ],
)
def test_json_that_is_no_row_is_named(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=words):
        scan(tmp_path / "t", Reading())


@pytest.mark.parametrize("seed", range(3))
def test_sparse_lines_are_their_entries(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    samples = [
        [(draw.randint(0, 5), draw.randint(0, 9), draw.random()) for _ in range(draw.randint(1, 5))] for _ in range(60)
    ]
    text = "".join(f"{i % 2} " + " ".join(f"f{f}:{x}:{v}" for f, x, v in s) + "\n" for i, s in enumerate(samples))
    (tmp_path / "ffm").write_text(text)
    found = scan(tmp_path / "ffm", Reading()).collect()
    for i, (row, sample) in enumerate(zip(found.to_dicts(), samples, strict=True)):
        assert row["label"] == str(i % 2)
        for field in {f for one in samples for f, *_ in one}:
            entries = [(x, v) for f, x, v in sample if f == field]
            assert row[f"f{field}"] == (",".join(str(x) for x, _ in entries) or None)
            assert row[f"f{field}:value"] == (",".join(str(v) for _, v in entries) or None)


def test_sparse_lines_without_fields_have_their_indices(tmp_path: Path) -> None:
    (tmp_path / "svm").write_text("1 3:0.5 10:1 # a comment\n-1 10:2\n")
    assert scan(tmp_path / "svm", Reading()).collect().to_dicts() == [
        {"label": "1", "indices": "3,10", "values": "0.5,1", "3": "0.5", "10": "1"},
        {"label": "-1", "indices": "10", "values": "2", "3": None, "10": "2"},
    ]
    (tmp_path / "many").write_text("".join(f"1 {i}:1 {i + 1}:1\n" for i in range(2000)))
    assert scan(tmp_path / "many", Reading()).collect_schema().names() == ["label", "indices", "values"]
    (tmp_path / "bad").write_text("1 3:0.5\n0 x\n")
    with pytest.raises(UserError, match="line 2: 'x' is neither index:value"):
        scan(tmp_path / "bad", Reading(format="libsvm"))


def test_null_values_are_yaml_values_in_any_format(tmp_path: Path) -> None:
    assert null_texts([None, -1, 2.0, True, "x"]) == (
        "null", "Null", "NULL", "~", "-1", "2", "true", "yes", "Yes", "YES", "on", "On", "ON", "x",
    )  # fmt: skip
    frame = pl.DataFrame({"t": ["NULL", "-1", "b"], "i": [-1, 5, 6], "f": [-1.0, 2.5, 3.0], "b": [True, False, None]})
    for write in FORMATS.values():
        write(frame, tmp_path / "file")
        found = scan(tmp_path / "file", Reading(null_values=[None, -1, True])).collect()
        blank = found.select(pl.all().cast(pl.String).replace("", None).is_null())
        assert blank.rows() == [(True, True, True, True), (True, False, False, False), (False, False, False, True)]
    (tmp_path / "file").write_text("a,b\n-1.0,TRUE\n-1,yes\n-10,no\n")
    found = scan(tmp_path / "file", Reading(null_values=[-1, True])).collect()
    assert found.rows() == [(None, None), (None, None), ("-10", "no")], "one spelling of a value, whatever the file"


def zipped(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr(name, "a,b\n1,2\n")
    return data.getvalue()


def database(path: Path) -> bytes:
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a int)")
    connection.close()
    return path.read_bytes()


def parquet() -> bytes:
    data = io.BytesIO()
    pl.DataFrame({"a": [1]}).write_parquet(data)
    return data.getvalue()


STRANGERS: Mapping[str, tuple[Callable[[Path], bytes], str]] = {
    "hdf5": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(99), "is HDF5"),
    "pickle": (lambda _: pickle.dumps({"a": [1, 2]}), "is a pickle"),
    "old pickle": (lambda _: pickle.dumps([1], 2), "is a pickle"),
    "excel": (lambda _: zipped("xl/workbook.xml"), "is an Excel workbook"),
    "npz": (lambda _: zipped("arr_0.npy"), "is a NumPy archive"),
    "zip": (lambda _: zipped("t.csv"), "is a zip archive"),
    "sqlite": (database, "is an SQLite database"),
    "orc": (lambda _: b"ORC\x0a\x0b" + bytes(99), "is ORC"),
    "avro": (lambda _: b"Obj\x01\x04\x14" + bytes(99), "is Avro"),
    "html": (lambda _: b"\n<!DOCTYPE html><html>", "is an HTML page"),
    "lfs": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    "array": (lambda _: b'[{"a": 1},\n{"a": 2}]', "is one JSON array"),
    "noise": (lambda _: np.random.default_rng(1).bytes(5000), "is neither text nor a format"),
    "nothing": (lambda _: b"", "is empty"),
    "blanks": (lambda _: b"\n\n", "is empty"),
    "packed parquet": (lambda _: gzip.compress(parquet()), "is Parquet inside gzip"),
    "cut parquet": (lambda _: parquet()[:-9], "begins like parquet, and cannot be read"),
    "cut gzip": (lambda _: gzip.compress(b"a,b\n" * 99_999)[:-20], "Compressed file ended"),
    "cut zlib": (lambda _: zlib.compress(b"a,b\n" * 99_999)[:-20], "Compressed file ended"),
    "no mark": (lambda _: "user,ad\n1,2\n".encode("utf-16-le"), "Set encoding: utf-16-le"),
    "latin-1": (lambda _: "user,ad\nü,2\n".encode("latin-1"), "line 2: byte 0xfc is no UTF-8. Set encoding"),
    "twins": (lambda _: b"user,user\n1,2\n", "two columns are called 'user'"),
    "unnamed twins": (lambda _: b",a,\n1,2,3\n", "two columns are called ''"),
    "own": (lambda _: b"fieldctr:label,a\n1,2\n", "a column is called 'fieldctr:label'"),
    "no zlib": (lambda _: b"x^2,y\n1,2\n", "begins with b'x\\^', as zlib does"),
    "semicolons": (lambda _: b"user;ad\n1;2\n", "does not cut its header.*such as ';'"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_not_read_is_named_for_what_it_is(name: str, tmp_path: Path) -> None:
    make, words = STRANGERS[name]
    (tmp_path / "file").write_bytes(make(tmp_path / "db"))
    with pytest.raises(UserError, match=words) as caught:
        read(tmp_path / "file", Reading())
    assert str(tmp_path / "file") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("header", ["ORCID,a", "PAR1,PAR2", "MATLAB,R", "BZh,b", "x,^"])
def test_names_that_begin_like_a_format_are_names(header: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(f"{header}\n1,2\n")
    assert read(tmp_path / "t", Reading()) == [header.split(","), ["1", "2"]]


def naive_bad_line(text: str, separator: str) -> int | None:
    """Where the first row begins that has not as many cells as the header, as csv counts; no blank one at the end."""
    lines = csv.reader(io.StringIO(text.rstrip("\n")), delimiter=separator)
    columns, begin = len(next(lines)), 2
    for cells in lines:
        if len(cells) != columns:
            return begin
        begin = lines.line_num + 1
    return None


@pytest.mark.parametrize("seed", range(20))
def test_the_first_bad_line_is_named(seed: int, tmp_path: Path) -> None:
    """Damage at random, of which some cancels in total; as UTF-8 and as UTF-16."""
    draw = random.Random(seed)
    lines = [["a", "b", "c"]] + [[draw.choice(["1", "x,y", "p\nq", ""]) for _ in range(3)] for _ in range(200)]
    for at in draw.sample(range(1, 200), draw.randint(0, 2)) * (seed % 4 > 0):
        change = draw.choice([lambda row: row[:-1], lambda row: [*row, "z"], lambda row: []])
        lines[at] = change(lines[at])
    text = "".join(rfc([row]) for row in lines)
    expected = naive_bad_line(text, ",")
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "t").write_bytes(text.encode(encoding))
        if expected is None:
            refuse_bad_lines(tmp_path / "t", Reading())
        else:
            with pytest.raises(UserError, match=rf"t line {expected}: \d columns, expected 3"):
                refuse_bad_lines(tmp_path / "t", Reading())


def test_a_short_and_a_long_line_do_not_cancel(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a,b\n1,2\n1\n1,2,3\n1,2\n")
    with pytest.raises(UserError, match="line 3: 1 columns, expected 2"):
        refuse_bad_lines(tmp_path / "t", Reading())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"separator": ""}, "separator=''"),
        ({"separator": 3}, "separator=3"),
        ({"quote": "ab"}, "quote=ab.*backslash"),
        ({"encoding": "klingon"}, "encoding=klingon"),
        ({"encoding": "rot13"}, "encoding=rot13"),
        ({"format": "xls"}, "format=xls.*parquet"),
        ({"header": "abc"}, "header=abc"),
        ({"header": [True]}, "header: true is no name"),
        ({"header": ["a", "a"]}, "two columns are called 'a'"),
        ({"null_values": "NULL"}, "null_values=NULL.*list"),
        ({"seperator": ";"}, "seperator.*Nearest: separator"),
    ],
)
def test_a_key_that_cannot_be_is_named(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Reading.of(keys)

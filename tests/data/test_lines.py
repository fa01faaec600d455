"""A file is read with every row that it has, or refused with its line: never filled, cut, or short of rows."""

import bz2
import gzip
import lzma
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from tables import tidy_node

from fieldctr.data.bad_lines import refuse_bad_lines
from fieldctr.data.columns import column
from fieldctr.data.files import scan_all
from fieldctr.data.lines import MOST_OPEN
from fieldctr.data.new_rows import NewRows
from fieldctr.data.prepare import prepared
from fieldctr.data.reading import Reading
from fieldctr.data.sources import tidy
from fieldctr.errors import UserError

Rows = list[list[str]]
NAMES = ["key", "user", "né", "ad id", "x"]
WORDS = ["a", "1", "é", "x y", "7.25", "-3", "#", "'", ""]
MARKS = {"utf-16": b"", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}  # python writes the first one's itself


def zstd(data: bytes) -> bytes:
    """A frame of blocks that are not compressed: Python 3.11 has no zstd."""
    blocks = [data[at : at + 1000] for at in range(0, len(data), 1000)]
    heads = [(len(block) << 3 | (n == len(blocks) - 1)).to_bytes(3, "little") for n, block in enumerate(blocks)]
    size = len(data).to_bytes(4, "little")
    return b"\x28\xb5\x2f\xfd\xa0" + size + b"".join(map(bytes.__add__, heads, blocks))


PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd,
}  # fmt: skip


class Draft(NamedTuple):
    """A table as it is written, row by row, and how."""

    texts: list[str]  # of the header, if there is one, and of the rows, without their line ends
    cells: Rows
    separator: str
    header: bool
    ends: list[str]
    encoding: str
    marked: bool

    @property
    def columns(self) -> int:
        return len(self.cells[0])

    @property
    def reading(self) -> Reading:
        told = self.marked or self.encoding == "utf-8"
        header = None if self.header else NAMES[: self.columns]
        return Reading("csv", self.separator, header, encoding="auto" if told else self.encoding)

    def line(self, row: int) -> int:
        """Where it begins."""
        before = "".join(text + end for text, end in zip(self.texts[:row], self.ends, strict=False))
        return 1 + before.count(self.ends[0][-1]) + (row == len(self.texts) and not self.ends[-1])

    def packed(self, packing: str) -> bytes:
        text = "".join(map(str.__add__, self.texts, self.ends))
        if self.encoding.startswith("utf-16"):
            text = text.replace("\udce9", "\ud800")
            return PACKERS[packing](MARKS[self.encoding] * self.marked + text.encode(self.encoding, "surrogatepass"))
        return PACKERS[packing](b"\xef\xbb\xbf" * self.marked + text.encode(self.encoding, "surrogateescape"))


def quoted(cell: str, separator: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(part in cell for part in (separator, '"', "\n", "\r")) else cell


def draft(draw: random.Random) -> Draft:
    """A table that is as it should be. A wild cell needs quotes, and has a letter on either side."""
    encoding = draw.choice(["utf-8", "utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
    marked = encoding == "utf-16" or (encoding != "latin-1" and draw.random() < 0.5)
    separator, end = draw.choice([",", "\t", ";", "|", "::"]), draw.choice(["\n", "\n", "\r\n", "\r", ""])
    wild, columns = draw.random() < 0.5, draw.choice([1, 2, 3, 3, 4, 5])

    def cell() -> str:
        if wild and draw.random() < 0.2:
            return f"b{draw.choice([separator, end or chr(10), 2 * (end or chr(10)), chr(34)])}c"
        return "".join(draw.choices(WORDS, k=draw.randint(0, 2))).strip()

    rows = [[f"r{n}", *(cell() for _ in range(columns - 1))] for n in range(draw.choice([2, 3, 5, 20, 60]))]
    header = draw.random() < 0.7
    cells = [NAMES[:columns]] * header + rows
    ends = [end or draw.choice(["\n", "\r\n"]) for _ in cells]
    ends[-1] *= draw.random() < 0.7
    texts = [separator.join(quoted(cell, separator) for cell in row) for row in cells]
    return Draft(texts, cells, separator, header, ends, encoding, marked)


def damage(draw: random.Random, table: Draft) -> tuple[list[int], list[int]]:
    """Damage one or two rows, or two neighbours; gives those that must be refused, and those that may be."""
    bad, doubtful = list[int](), list[int]()
    for row in draw.sample(range(1, len(table.texts)), min(draw.choice([0, 1, 1, 1, 2]), len(table.texts) - 1)):
        parts = [quoted(cell, table.separator) for cell in table.cells[row]]
        kind = draw.choice(["short", "long", "both", "header", "byte", "quote", "blank", "return"])
        if kind == "short" and len(parts) > 1:
            table.texts[row] = table.separator.join(parts[: draw.randint(1, len(parts) - 1)])
        elif kind == "long":
            table.texts[row] += table.separator + "w"
        elif kind == "both" and len(parts) > 1 and row + 1 < len(table.texts):
            table.texts[row] = table.separator.join(parts[:-1])
            table.texts[row + 1] += table.separator + "w"
        elif kind == "header" and table.header:
            table.texts[row] = table.texts[0]
        elif kind == "byte" and table.encoding != "latin-1":
            table.texts[row] = table.texts[row].replace("r", "r\udce9", 1)
        elif kind == "blank" and len(parts) > 1 and row + 1 < len(table.texts):
            table.texts[row] = ""
        elif kind in ("quote", "return") and not doubtful and "\r" not in (*table.ends[:1], kind == "quote"):
            place = draw.randrange(len(parts))
            lone = draw.choice(['"' + table.cells[row][0], 'a"b', 'z"', '"', f'a"b{table.separator}c"', '"a"b'])
            table.cells[row][place] = parts[place] = lone if kind == "quote" else "y\rz"
            table.texts[row] = table.separator.join(parts)
            doubtful.append(row)
            continue
        else:
            continue
        bad.append(row)
    return bad, doubtful


def expected(table: Draft) -> list[Rows]:
    """The rows, and what they are where no quote means anything."""
    ended = "\n" if table.ends[0] == "\r" else "\r"
    rows = [[cell.replace("\r", ended) if ended == "\n" else cell for cell in row] for row in table.cells]
    lines = [line for text in table.texts for line in text.split("\n" if ended == "\r" else "\r")]
    return [rows[table.header :], [line.removesuffix("\r").split(table.separator) for line in lines][table.header :]]


def texts(frame: pl.LazyFrame) -> Rows:
    found = frame.select(column(name).cast(pl.String).fill_null("") for name in frame.collect_schema()).collect()
    return [list(row) for row in found.rows()]


def by_prepare(path: Path, reading: Reading) -> Rows:
    frame, readings = scan_all([path], reading)
    refuse_bad_lines(path, readings[path])
    return texts(frame)


def by_predict(path: Path, reading: Reading) -> Rows:
    return texts(NewRows(path, {key: value for key, value in vars(reading).items() if key != "null_values"}).scan())


@pytest.mark.slow
@pytest.mark.parametrize("read", [by_prepare, by_predict])
@pytest.mark.parametrize("seeds", [range(n, n + 100) for n in range(0, 600, 100)], ids=str)
def test_a_table_is_read_whole_or_refused_with_its_line(
    seeds: range, read: Callable[[Path, Reading], Rows], tmp_path: Path
) -> None:
    outcomes = {"read": 0, "refused": 0}
    for seed in seeds:
        draw = random.Random(seed)
        table = draft(draw)
        by_lines = table.encoding != "utf-8" or "\r" in table.ends[0]  # of zstd polars gives lines that end in \n
        packing = draw.choice(list(PACKERS)[: 4 if by_lines else 5])
        bad, doubtful = damage(draw, table)
        (tmp_path / "t").write_bytes(table.packed(packing))
        about = f"seed {seed}: {packing}, {table.encoding}, {table.ends[0]!r}, rows {bad} or {doubtful}"
        try:
            found, error = read(tmp_path / "t", table.reading), ""
        except UserError as refusal:
            found, error = [], str(refusal)
        outcomes["refused" if error else "read"] += 1
        lines = {table.line(row) for row in bad} | {
            line for row in doubtful for line in range(table.line(row), table.line(row + 1))
        }
        if error:
            assert any(f"{tmp_path}/t line {line:,}" in error for line in lines), f"{about}\n{lines} {error}"
        else:
            assert not bad, f"{about}: read"
            assert found in expected(table)[: 1 + bool(doubtful)], about
    assert min(outcomes.values()) > len(seeds) / 10


def node(folder: Path, **source: Any) -> dict[str, Any]:
    return tidy_node(folder, "*.csv", {"user": {}, "item": {}}, **source)


def three_files(folder: Path) -> list[list[str]]:
    """30 rows each, in three files; gives their lines."""
    files = [[f"u{i % 7},i{n}{i % 5},{i % 2}" for i in range(30)] for n in range(3)]
    for name, lines in zip("abc", files, strict=True):
        (folder / f"{name}.csv").write_text("\n".join(["user,item,click", *lines]) + "\n")
    return files


@pytest.mark.parametrize("name", "abc")
def test_of_several_files_the_one_that_is_meant_is_named(name: str, tmp_path: Path) -> None:
    lines = ["user,item,click", *three_files(tmp_path)["abc".index(name)]]
    lines[11:13] = ["u1,i1", "u1,i1,1,x"]
    (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"{name}\.csv line 12: 2 columns, expected 3"):
        prepared(node(tmp_path), data_dir=tmp_path / "out")
    with pytest.raises(UserError, match=rf"{name}\.csv line 12: 2 columns, expected 3"):
        tidy.read(tmp_path, **_keys(node(tmp_path)), new_rows=NewRows(tmp_path / f"{name}.csv"))


def _keys(dataset: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dataset["source"].items() if key != "_target_"}


def test_a_bad_line_of_a_joined_file_is_named(tmp_path: Path) -> None:
    three_files(tmp_path)
    (tmp_path / "users.tsv").write_text("user\tage\tcity\nu1\t3\nu2\t4\tx\ty\n")
    joins = {"users": {"files": "users.tsv", "on": "user", "separator": "\t"}}
    with pytest.raises(UserError, match=r"users\.tsv line 2: 2 columns, expected 3"):
        prepared(node(tmp_path, joins=joins), data_dir=tmp_path / "out")


def test_all_rows_of_all_files_are_prepared(tmp_path: Path) -> None:
    three_files(tmp_path)
    assert sum(prepared(node(tmp_path), data_dir=tmp_path / "out").facts["rows"][s] for s in tidy.SPLITS) == 90


@pytest.mark.parametrize("lone", ['"u5', 'u"5', 'u5"', '"'])
def test_one_quote_too_many_in_a_file_of_quoted_cells_is_named(lone: str, tmp_path: Path) -> None:
    lines = [f'"u{n}","i{n % 3}","{n % 2}"' for n in range(200)]
    lines[101] = f'{lone},"i1","1"'
    (tmp_path / "t").write_text("\n".join(['"user","item","click"', *lines]))
    with pytest.raises(UserError, match=r"t line 103: a quote does not enclose a cell.*\n.*quote: none"):
        by_prepare(tmp_path / "t", Reading())


def test_a_lone_quote_is_text_and_its_line_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[f"u{n}", "i", "1"] for n in range(200)]
    rows[101][0] = '"u5'
    (tmp_path / "t").write_text("".join(",".join(row) + "\n" for row in [["user", "item", "click"], *rows]))
    assert by_prepare(tmp_path / "t", Reading()) == rows
    assert "the first in line 103: read with quote: none" in capsys.readouterr().err


def test_a_quote_that_swallows_the_rest_of_a_large_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fieldctr.data.lines.MOST_OPEN", MOST_OPEN >> 6)
    (tmp_path / "t").write_text("a,b\n" + "1,2\n" * 200_000 + '"1,2\n' + "1,2\n" * 600_000)
    with pytest.raises(UserError, match="t line 200,002: a quote is not closed"):
        refuse_bad_lines(tmp_path / "t", Reading(quote='"'))


def test_lines_that_end_in_returns_may_have_cells_with_line_feeds(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b'a,b\r1,"x\ny"\r2,z\r')
    assert by_prepare(tmp_path / "t", Reading()) == [["1", "x\ny"], ["2", "z"]]


def test_a_last_line_that_is_one_quoted_cell_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b'a,b\n"1","2"\n"3"')
    with pytest.raises(UserError, match="t line 3: 1 columns, expected 2"):
        refuse_bad_lines(tmp_path / "t", Reading())


def test_a_line_256_cells_short_and_one_256_too_long_do_not_cancel(tmp_path: Path) -> None:
    counts = [300, 300, 44, 556]
    (tmp_path / "t").write_text("".join(",".join(f"{n}_{k}" for k in range(m)) + "\n" for n, m in enumerate(counts)))
    with pytest.raises(UserError, match="t line 3: 44 columns, expected 300"):
        refuse_bad_lines(tmp_path / "t", Reading())


def test_a_byte_that_is_no_text_inside_zstd_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(zstd(b"a,b\n" + b"1,2\r\n" * 3000 + b"\xe9,2\n1,2\n"))
    with pytest.raises(UserError, match="t line 3,002 is no UTF-8 inside zstd"):
        by_prepare(tmp_path / "t", Reading())

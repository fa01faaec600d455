"""MovieLens ratings as clicks, in the publisher's four layouts: latest-small, 100K, 1M and 20M (also 25M, 32M).

Source: Harper, Konstan, "The MovieLens Datasets: History and Context", TiiS 2015; https://grouplens.org/datasets/movielens
Label rule `llactr`: as in LLaCTR's experiments, a rating above 3 is a click and a rating of 3 is left out.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl

from fieldctr.data.bad_lines import explained, refuse_short_lines
from fieldctr.data.delimited import scan_csv
from fieldctr.data.fields.spelling import spelled
from fieldctr.data.new_rows import NewRows, derived, with_side_tables
from fieldctr.data.splits import with_split
from fieldctr.data.table import DROP, LABEL, Table, required_all
from fieldctr.errors import UserError

CURE = "Get them from https://grouplens.org/datasets/movielens (scripts/download_movielens.sh)."
MARKS = {"csv": "ratings.csv", "100k": "u.data", "1m": "ratings.dat"}  # the file that tells a layout
FILES = {
    "csv": ("ratings.csv", "movies.csv"),
    "100k": ("u.data", "u.item", "u.user", "u.genre"),
    "1m": ("ratings.dat", "movies.dat", "users.dat"),
}

# What the codes of 1m mean (its README).
AGES = {
    "1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+",
}  # fmt: skip
OCCUPATIONS = (
    "other or not specified", "academic/educator", "artist", "clerical/admin", "college/grad student",
    "customer service", "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer",
    "programmer", "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer",
    "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip
GENDERS = {"F": "female", "M": "male"}


def read(
    raw_dir: Path,
    *,
    layout: Literal["auto", "csv", "100k", "1m"],
    label: Literal["ge4", "llactr"],
    split: Mapping[str, Any],
    new_rows: NewRows | None = None,
) -> Table:
    """Columns userId, movieId, rating, timestamp, title, genres (a|b), year.

    The layouts 100k and 1m add gender, age, occupation and zip, 1m's codes as words. For auto the files tell.

    `label` ge4: a rating of 4 or more is 1. `split` as in `fieldctr.data.splits.with_split`, over all ratings but for
    `by: order`, which leaves dropped ones out.
    """
    found = next((name for name, file in MARKS.items() if (raw_dir / file).is_file()), "csv")
    chosen = found if layout == "auto" else layout
    if chosen not in FILES or label not in ("ge4", "llactr"):
        raise UserError(f"dataset.source: expected layout auto | {' | '.join(FILES)}, label ge4 | llactr")
    if new_rows:
        main = new_rows.table_or(("userId", "movieId"), partial(_ratings, chosen))
        return Table(_made(with_side_tables(main, _side_tables(chosen, raw_dir)), chosen), (new_rows.path,))
    paths = required_all(raw_dir, FILES[chosen], CURE)
    with explained(paths):
        frame = _ratings(chosen, paths[0])
        for key, (path, scan) in _side_tables(chosen, raw_dir).items():
            frame = frame.join(scan(path), on=key, how="left", maintain_order="left")
        frame = _made(frame, chosen).with_columns(pl.col("rating").cast(pl.Float64), pl.col("timestamp").cast(pl.Int64))
    frame = with_split(with_label(frame, label), split)
    return Table(frame, paths, "," if chosen == "csv" else None)


def with_label(frame: pl.LazyFrame, rule: Literal["ge4", "llactr"]) -> pl.LazyFrame:
    """The frame with LABEL and, for llactr, the reason in DROP."""
    rating = pl.col("rating")
    if rule == "ge4":
        return frame.with_columns((rating >= 4).cast(pl.Int8).alias(LABEL))
    drop = pl.when(rating == 3).then(pl.lit("rating is 3"))
    return frame.with_columns((rating > 3).cast(pl.Int8).alias(LABEL), drop.alias(DROP))


def _ratings(layout: str, path: Path) -> pl.LazyFrame:
    """The ratings as the publisher wrote them."""
    names = ["userId", "movieId", "rating", "timestamp"]
    if layout == "csv":
        return scan_csv(path)
    if layout == "100k":
        refuse_short_lines(path, "\t")
        return _scan(path, "\t", names)
    refuse_short_lines(path, ":")
    # The separator is ::, polars takes one character: between two names there is one empty column.
    doubled = [name for pair in zip(names, "abcd", strict=True) for name in pair][:-1]
    return _scan(path, ":", doubled).select(names)


def _side_tables(layout: str, raw_dir: Path) -> dict[str, tuple[Path, Callable[[Path], pl.LazyFrame]]]:
    """By key column, the file of the movies or the users and how it is read."""
    if layout == "csv":
        return {"movieId": (raw_dir / "movies.csv", scan_csv)}
    if layout == "100k":
        people = partial(_table, separator="|", names=["userId", "age", "gender", "occupation", "zip"])
        return {"movieId": (raw_dir / "u.item", _flagged_movies), "userId": (raw_dir / "u.user", people)}
    movies = partial(_table, separator="::", names=["movieId", "title", "genres"])
    people = partial(_table, separator="::", names=["userId", "gender", "age", "occupation", "zip"])
    return {"movieId": (raw_dir / "movies.dat", movies), "userId": (raw_dir / "users.dat", people)}


def _flagged_movies(items: Path) -> pl.LazyFrame:
    """u.item, whose last columns say for each genre of u.genre whether it is the movie's."""
    names = [name for name, _ in _cells(items.with_name("u.genre"), "|")]
    flags = [(cells[0], cells[1], cells[5:]) for cells in _cells(items, "|")]
    return pl.LazyFrame(
        {
            "movieId": [movie for movie, _, _ in flags],
            "title": [title for _, title, _ in flags],
            "genres": ["|".join(g for g, on in zip(names, row, strict=True) if on == "1") for *_, row in flags],
        }
    )


def _made(frame: pl.LazyFrame, layout: str) -> pl.LazyFrame:
    """With the year, and 1m's codes as words; words stay as they are."""
    words = {"gender": GENDERS, "age": AGES, "occupation": {str(i): name for i, name in enumerate(OCCUPATIONS)}}
    known = frame.collect_schema()
    coded = [name for name in words if layout == "1m" and name in known]
    frame = frame.with_columns(spelled(pl.col(name), known[name]).replace(words[name]) for name in coded)
    return derived(frame, year=pl.col("title").str.extract(r"\((\d{4})\)\s*$"))


def _scan(path: Path, separator: str, names: list[str]) -> pl.LazyFrame:
    return pl.scan_csv(
        path, separator=separator, has_header=False, new_columns=names, infer_schema=False, quote_char=None, glob=False
    )


def _table(path: Path, separator: str, names: list[str]) -> pl.LazyFrame:
    return pl.LazyFrame(_cells(path, separator), schema=dict.fromkeys(names, pl.String), orient="row")


def _cells(path: Path, separator: str) -> list[list[str]]:
    """The cells of a small file in the old layouts' encoding; every line must have as many as the first."""
    lines = [line.split(separator) for line in path.read_text(encoding="latin-1").split("\n") if line]
    for number, cells in enumerate(lines, 1):
        if len(cells) != len(lines[0]):
            raise UserError(f"{path} line {number:,}: {len(cells)} columns, expected {len(lines[0])}")
    return lines

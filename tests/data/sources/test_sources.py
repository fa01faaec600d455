"""The sources: MovieLens in its layouts, the synthetic law, and every dataset YAML."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fieldctr.catalog import conf_dir, options
from fieldctr.config import build, parse
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.prepare import SOURCE, DatasetConfig, prepared
from fieldctr.data.sources import movielens, synthetic
from fieldctr.data.table import LABEL, PCTR
from fieldctr.errors import UserError
from fieldctr.targets import locate

RANDOM = {"by": "random", "fractions": [0.8, 0.1, 0.1], "seed": 1}
RATINGS = [
    (user, movie, 1 + (user * 3 + movie) % 5, 1_000_000_000 + 977 * user + movie)
    for user in range(1, 9)
    for movie in (1, 2, 3)
]
MOVIES = {
    1: ("Toy Story (1995)", ["Animation", "Comedy"]),
    2: ("Amélie: A Film (2001)", ["Comedy"]),
    3: ("Nameless", []),
}
LAW: dict[str, Any] = {
    "rows": 60_000, "seed": 3, "users": 500, "ads": 300, "base_rate": 0.1, "first_order": 0.6, "num_pairs": 6,
    "pair_strength": 0.9, "drift": 0.0, "numeric": 0.0,
}  # fmt: skip


def write_movielens(folder: Path, layout: str) -> None:
    ratings = [list(map(str, rating)) for rating in RATINGS]
    if layout == "csv":
        lines = [",".join(r) for r in ratings]
        (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *lines]))
        movies = [f'{m},"{title}",{"|".join(genres)}' for m, (title, genres) in MOVIES.items()]
        (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies]), encoding="utf-8")
    elif layout == "1m":
        (folder / "ratings.dat").write_text("\n".join("::".join(r) for r in ratings) + "\n")
        movies = [f"{m}::{title}::{'|'.join(genres)}" for m, (title, genres) in MOVIES.items()]
        (folder / "movies.dat").write_text("\n".join(movies) + "\n", encoding="latin-1")
        (folder / "users.dat").write_text("\n".join(f"{u}::F::{u}::10::0{u}" for u in range(1, 9)) + "\n")
    else:
        (folder / "u.data").write_text("\n".join("\t".join(r) for r in ratings) + "\n")
        kinds = ["unknown", "Animation", "Comedy"]
        (folder / "u.genre").write_text("".join(f"{kind}|{i}\n" for i, kind in enumerate(kinds)) + "\n")
        flags = {m: "|".join(str(int(kind in genres)) for kind in kinds) for m, (_, genres) in MOVIES.items()}
        movies = [f"{m}|{title}|01-Jan-1995||http://x|{flags[m]}" for m, (title, _) in MOVIES.items()]
        (folder / "u.item").write_text("\n".join(movies) + "\n", encoding="latin-1")
        (folder / "u.user").write_text("\n".join(f"{u}|{u}|F|writer|0{u}" for u in range(1, 9)) + "\n")


@pytest.mark.parametrize("layout", ["csv", "100k", "1m"])
def test_movielens_reads_the_same_from_every_layout(layout: str, tmp_path: Path) -> None:
    write_movielens(tmp_path, layout)
    frame = movielens.read(tmp_path, layout="auto", label="ge4", split=RANDOM).frame.collect()
    keys = ["userId", "movieId", "rating", "timestamp"]
    assert [tuple(map(int, row)) for row in frame.select(keys).rows()] == RATINGS
    assert frame[LABEL].to_list() == [int(rating >= 4) for _, _, rating, _ in RATINGS]
    assert frame["title"].to_list() == [MOVIES[movie][0] for _, movie, _, _ in RATINGS]
    assert frame["genres"].fill_null("").to_list() == ["|".join(MOVIES[movie][1]) for _, movie, _, _ in RATINGS]
    assert frame["year"].to_list() == [{1: "1995", 2: "2001", 3: None}[movie] for _, movie, _, _ in RATINGS]
    if layout != "csv":
        ages = {"1": "under 18"} if layout == "1m" else {}  # 2 to 8 are no codes: they stay
        assert frame["age"].to_list() == [ages.get(str(user), str(user)) for user, *_ in RATINGS]
        assert set(frame["gender"]) == {"female" if layout == "1m" else "F"}
        assert set(frame["occupation"]) == {"K-12 student" if layout == "1m" else "writer"}


def test_llactr_leaves_threes_out_and_says_so(tmp_path: Path) -> None:
    write_movielens(tmp_path, "csv")
    split = {"by": "time", "column": "timestamp", "fractions": [0.6, 0.2, 0.2]}
    source = {"_target_": "fieldctr.data.sources.movielens.read", "layout": "csv", "label": "llactr", "split": split}
    fields = {"movieId": None, "genres": {"kind": "multi", "separator": "|"}}
    node = {
        "name": "m",
        "raw_dir": str(tmp_path),
        "min_count": 1,
        "group": "userId",
        "fields": fields,
        "source": source,
    }
    rows = prepared(node, data_dir=tmp_path / "out").facts["rows"]
    threes = sum(rating == 3 for _, _, rating, _ in RATINGS)
    assert rows["dropped"] == {"rating is 3": threes}
    assert rows["train"] + rows["valid"] + rows["test"] == len(RATINGS) - threes


def test_the_cut_of_llactr_leaves_threes_out_before_it_counts(
    tmp_path: Path, dataset_node: Callable[..., dict[str, Any]]
) -> None:
    write_movielens(tmp_path, "1m")
    node = dataset_node("movielens_1m_llactr") | {"raw_dir": str(tmp_path), "published": None}
    node["source"]["split"]["fractions"] = [0.6, 0.2, 0.2]
    dataset = prepared(node, data_dir=tmp_path / "out")
    kept = sum(rating != 3 for _, _, rating, _ in RATINGS)
    train, valid = int(0.6 * kept), int(0.2 * kept)
    assert [len(dataset.train), len(dataset.valid), len(dataset.test)] == [train, valid, kept - train - valid]
    assert dataset.facts["fields"]["Genres"]["vocab_size"] == 3, "a|b is one value, none is missing"


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("ratings.dat", "1::2::3", r"ratings\.dat line 25: 5 columns, expected 7"),
        ("movies.dat", "4::short", r"movies\.dat line 4: 2 columns, expected 3"),
        ("users.dat", "9::F", r"users\.dat line 9: 2 columns, expected 5"),
    ],
)
def test_a_short_line_of_movielens_is_named(file: str, line: str, words: str, tmp_path: Path) -> None:
    write_movielens(tmp_path, "1m")
    with (tmp_path / file).open("a") as lines:
        lines.write(line + "\n")
    with pytest.raises(UserError, match=words):
        movielens.read(tmp_path, layout="auto", label="ge4", split=RANDOM)


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no file ratings\.csv, movies\.csv in .*grouplens.*\n.*FIELDCTR_DATA.*dataset=synthetic"
    ):
        movielens.read(tmp_path, layout="auto", label="ge4", split=RANDOM)


def law(**changes: Any) -> pl.DataFrame:
    return synthetic.read(Path(), **(LAW | changes)).frame.collect()


def auc(score: np.ndarray, label: np.ndarray) -> float:
    clicked, other = score[label > 0], np.sort(score[label == 0])
    return float(
        (np.searchsorted(other, clicked, "left") + np.searchsorted(other, clicked, "right")).mean() / 2 / len(other)
    )


def test_synthetic_repeats_and_reads_in_part() -> None:
    whole = law(rows=70_000)
    assert whole.equals(law(rows=70_000))
    assert not whole.equals(law(rows=70_000, seed=4))
    lazy = synthetic.read(Path(), **(LAW | {"rows": 70_000})).frame
    part = lazy.filter(pl.col("gender") == "male").select("brand", LABEL)
    assert part.collect().equals(whole.filter(pl.col("gender") == "male").select("brand", LABEL))
    assert lazy.head(66_000).collect().equals(whole[:66_000])


def test_synthetic_clicks_follow_the_probability_it_states() -> None:
    frame = law()
    p, label = frame[PCTR].to_numpy(), frame[LABEL].to_numpy()
    assert label.mean() == pytest.approx(0.1, abs=0.01)
    order = np.argsort(p)
    for part in np.array_split(order, 10):
        assert label[part].mean() == pytest.approx(p[part].mean(), abs=4 * np.sqrt(p[part].mean() / len(part)))
    assert 0.75 < auc(p, label) < 0.80


def test_synthetic_ads_decide_their_category_brand_and_price() -> None:
    frame = law(rows=20_000)
    for owner, owned in (
        ("adgroup_id", ["cate_id", "campaign_id", "price"]),
        ("campaign_id", ["customer"]),
        ("customer", ["brand"]),
    ):
        assert frame.group_by(owner).agg(pl.col(owned).n_unique()).select(pl.col(owned).max()).row(0) == (1,) * len(
            owned
        )
    counts = frame["adgroup_id"].value_counts(sort=True)["count"]
    assert counts[0] > 5 * counts[20], "Zipf"


def test_synthetic_pairs_show_in_no_single_field() -> None:
    """The two-way means of a planted pair vary, its one-way means hardly do: what FM has over LR is there."""
    changes = {"rows": 60_000, "first_order": 0.0, "num_pairs": 1}
    frame = law(**changes).with_columns(logit=(pl.col(PCTR) / (1 - pl.col(PCTR))).log())
    (planted,) = synthetic.read(Path(), **(LAW | changes)).facts["planted"]
    pair = planted["fields"]
    total = frame["logit"].std()
    spread = [(frame["logit"] - frame.select(pl.col("logit").mean().over(by))["logit"]).std() for by in (*pair, pair)]
    assert total == pytest.approx(0.9, rel=0.1)
    assert min(spread[:2]) > 0.9 * total
    assert spread[2] < 1e-5


def test_synthetic_drift_changes_the_law_over_time() -> None:
    still, moving = (law(first_order=0.0, num_pairs=0, drift=drift).with_row_index() for drift in (0.0, 1.0))
    assert still[PCTR].std() == pytest.approx(0, abs=1e-9)
    first, last = moving[:6000][PCTR].std(), moving[-6000:][PCTR].std()
    assert first < 0.3 * last


def test_synthetic_numbers_matter_when_asked() -> None:
    frame = law(first_order=0.0, num_pairs=0, numeric=1.0)
    assert np.corrcoef(frame["account_age_days"].log1p(), np.log(frame[PCTR]))[0, 1] > 0.5
    assert frame["price"].n_unique() > 100


def test_a_law_that_cannot_be_is_refused() -> None:
    refused = {"num_pairs": 1000, "base_rate": 1.0, "rows": 0, "users": 0, "seed": -1, "first_order": -0.1}
    for key, value in refused.items():
        node = {"_target_": "fieldctr.data.sources.synthetic.read", **LAW, key: value}
        with pytest.raises(UserError, match=rf"dataset\.source\.{key}={value} "):
            build(node, "dataset.source", Path(), kind=SOURCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", options("dataset"))
def test_every_dataset_is_well_formed(name: str, dataset_node: Callable[..., dict[str, Any]]) -> None:
    first = (conf_dir() / "dataset" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) <= 122
    config = parse(DatasetConfig, dataset_node(name), "dataset")
    assert config.name == name
    keywords = config.source.keys() - {"_target_"}
    known = [
        p
        for p in inspect.signature(locate(config.source, "dataset.source", SOURCE)).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
    assert {p.name for p in known if p.default is p.empty} <= keywords <= {p.name for p in known}
    if name == "tidy":
        with pytest.raises(UserError, match="at least one field"):
            field_specs(config.fields, config.min_count)
    else:
        wanted = [node for node in config.fields.values() if node is not False]
        assert len(field_specs(config.fields, config.min_count)) == len(wanted)

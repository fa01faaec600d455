"""Each rule finds the defect that is planted for it, and none finds anything in clean tables."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from fieldctr.analysis.discretizer import Discretizer, hash_lists
from fieldctr.analysis.lint import lint as module
from fieldctr.analysis.lint.counters import Moves
from fieldctr.analysis.lint.days import click_rates_by_day, odd_days, spell_days
from fieldctr.analysis.lint.findings import Finding
from fieldctr.analysis.lint.leaks import NOBODY, dispersion
from fieldctr.analysis.lint.lint import field_grid, lint, spell, worst
from fieldctr.analysis.lint.rules import effective_rows
from fieldctr.analysis.lint.survey import KeyFacts, survey
from fieldctr.data.dataset import Dataset, Split
from fieldctr.data.encode import encode
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.sources import synthetic
from fieldctr.data.table import Table

ROWS, USERS, ITEMS = 12_000, 400, 150
DAY = 86_400
START = 1_700_000_000 // DAY * DAY

Plant = Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]


def clean(rng: np.random.Generator) -> pl.DataFrame:
    """A log of 24 days in time order: users and items with attributes, clicks by their logits; `rate` is an item's."""
    user, item = rng.integers(0, USERS, ROWS), (ITEMS * rng.random(ROWS) ** 2).astype(int)
    effect, taste, price = rng.normal(size=ITEMS), rng.normal(size=USERS), rng.lognormal(size=ITEMS)
    pctr = 1 / (1 + np.exp(1 - effect[item] - 0.5 * taste[user]))
    split = np.repeat(["train", "valid", "test"], [ROWS * 8 // 10, ROWS // 10, ROWS // 10])
    return pl.DataFrame(
        {
            "user": user, "item": item, "brand": [f"b{i % 12}" for i in item], "age": user % 6,
            "price": price[item], "price_value": price[item], "hour": rng.integers(0, 24, ROWS),
            "tags": [f"t{i % 5}|t{5 + i % 3}" for i in item],
            "ts": START + np.arange(ROWS) * 24 * DAY // ROWS, "rate": 1 / (1 + np.exp(1 - effect[item])),
            "label": (rng.random(ROWS) < pctr).astype(int), "split": split,
        }
    )  # fmt: skip


KINDS: dict[str, Any] = {
    "price": {"kind": "quantile"},
    "price_value": {"kind": "value"},
    "tags": {"kind": "multi", "separator": "|", "max_length": 3},
}
FIELDS = ("user", "item", "brand", "age", "price", "price_value", "hour", "tags")


def prepare(frame: pl.DataFrame, folder: Path, *, weight: str | None = None, **more: dict[str, Any]) -> Dataset:
    """The table with the clean fields and those in `more`."""
    folder.mkdir(exist_ok=True)
    fields = {name: KINDS.get(name, {}) for name in FIELDS} | more
    encode(Table.named(frame.lazy()), field_specs(fields, 1), folder, group=None, weight=weight)
    return Dataset.load(folder, name="planted")


def found(plant: Plant, folder: Path, **more: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Severity, rule and field of what lint says once the defect is planted; planted columns become fields."""
    rng = np.random.default_rng(1)
    return told(lint(prepare(plant(clean(rng), rng), folder, **more)).findings)


def told(findings: Sequence[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.rule, finding.field) for finding in findings]


def column(values: pl.Expr | Sequence[Any] | np.ndarray) -> Plant:
    """Plant a column called x."""
    return lambda frame, rng: frame.with_columns(x=values if isinstance(values, pl.Expr) else pl.Series(values))


LABEL, CLICKS = pl.col("label"), pl.col("label").cum_sum().over("user")


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_in_a_clean_table(seed: int, tmp_path: Path) -> None:
    assert lint(prepare(clean(np.random.default_rng(seed)), tmp_path)).findings == []


@pytest.mark.parametrize("base_rate", [0.03, 0.3])
def test_nothing_is_found_in_the_synthetic_source(base_rate: float, tmp_path: Path) -> None:
    table = synthetic.read(
        tmp_path, rows=30_000, seed=2, users=500, ads=200, base_rate=base_rate, first_order=0.6, num_pairs=6,
        pair_strength=1.2, drift=0.0, numeric=0.5,
    )  # fmt: skip
    fields: dict[str, Any] = dict.fromkeys(synthetic.FIELDS) | {"price": {"kind": "value"}}
    encode(table, field_specs(fields, 2), tmp_path, group="user_id")
    assert lint(Dataset.load(tmp_path, name="synthetic")).findings == []


def test_nothing_is_found_in_statistics_that_preparation_makes(tmp_path: Path) -> None:
    mean, count = {"kind": "target_mean", "of": ["user", "brand"]}, {"kind": "count", "of": ["user"]}
    assert lint(prepare(clean(np.random.default_rng(1)), tmp_path, mean=mean, count=count)).findings == []


@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_nothing_is_found_in_histories_that_preparation_makes(order: int, tmp_path: Path) -> None:
    """Backwards in time a history changes where the label does."""
    past = {"kind": "history", "of": "item", "by": "user", "time": "ts"}
    assert lint(prepare(clean(np.random.default_rng(1))[::order], tmp_path, past=past)).findings == []


def test_a_field_that_is_known_after_the_click_leaks(tmp_path: Path) -> None:
    def plant(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        return frame.with_columns(x=np.where(rng.random(ROWS) < 0.02, 2, frame["label"]))

    assert ("error", "leak", "x") in found(plant, tmp_path, x={})


def test_a_strong_field_among_weak_ones_is_a_warning(tmp_path: Path) -> None:
    def plant(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        return frame.with_columns(x=np.where(rng.random(ROWS) < 0.3, rng.integers(0, 2, ROWS), frame["label"]))

    assert ("warning", "leak", "x") in found(plant, tmp_path, x={})


@pytest.mark.parametrize("kind", [{}, {"kind": "quantile"}, {"kind": "value"}], ids=str)
def test_an_items_mean_label_knows_the_future_and_its_true_rate_does_not(kind: dict[str, Any], tmp_path: Path) -> None:
    mean = LABEL.mean().over("item").round(2)
    assert ("error", "knows_the_future", "x") in found(column(mean), tmp_path, x=kind)
    honest = found(column(pl.col("rate").round(2)), tmp_path / "honest", x=kind)
    assert honest == []


def test_balanced_labels_are_a_design_not_a_leak(tmp_path: Path) -> None:
    def plant(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        return frame.with_columns(user=pl.int_range(ROWS) // 20 % 400, label=pl.int_range(ROWS) % 2)

    assert "knows_the_future" not in {rule for _, rule, _ in found(plant, tmp_path)}


@pytest.mark.parametrize("kind", [{}, {"kind": "quantile"}], ids=str)
def test_a_counter_of_the_rows_own_click_moves_with_the_label_and_one_of_earlier_clicks_does_not(
    kind: dict[str, Any], tmp_path: Path
) -> None:
    assert ("error", "moves_with_label", "x") in found(column(CLICKS), tmp_path, x=kind)
    earlier = found(column(CLICKS - LABEL), tmp_path / "earlier", x=kind)
    assert "moves_with_label" not in {rule for _, rule, _ in earlier}


def test_rows_that_stand_in_two_splits(tmp_path: Path) -> None:
    def plant(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        copies = frame[: ROWS // 100].with_columns(split=pl.lit("test"))
        return pl.concat([frame, copies])

    assert found(plant, tmp_path) == [("warning", "repeated_rows", "")]


def test_rows_that_nothing_tells_apart(tmp_path: Path) -> None:
    frame = clean(np.random.default_rng(1))
    encode(Table.named(frame.lazy()), field_specs({"brand": {}, "age": {}, "hour": {}}, 1), tmp_path, group=None)
    assert told(lint(Dataset.load(tmp_path, name="")).findings) == [("note", "repeated_rows", "")]


def test_values_that_train_lacks(tmp_path: Path) -> None:
    day = (pl.col("ts") // DAY - START // DAY).cast(pl.String)
    findings = found(column("day " + day), tmp_path, x={})
    assert ("error", "unseen", "x") in findings
    some = pl.when(pl.col("split") == "test", pl.col("user") % 3 == 0).then(pl.lit("new")).otherwise(pl.lit("old"))
    other = some + (pl.col("user") % 2).cast(pl.String)
    assert ("warning", "unseen", "x") in found(column(other), tmp_path / "some", x={})


def test_a_field_with_a_value_per_row(tmp_path: Path) -> None:
    row = "session " + pl.int_range(ROWS).cast(pl.String)
    assert ("warning", "near_unique", "x") in found(column(row), tmp_path, x={})
    assert ("warning", "near_unique", "x") in found(column(row), tmp_path / "rare", x={"min_count": 2})


def test_a_hash_with_too_few_buckets(tmp_path: Path) -> None:
    same = column(pl.col("user").cast(pl.String))
    assert ("warning", "crowded", "x") in found(same, tmp_path, x={"num_buckets": USERS})
    assert "crowded" not in {rule for _, rule, _ in found(same, tmp_path / "many", x={"num_buckets": 10 * USERS})}


@pytest.mark.parametrize(
    "moment",
    [
        pl.col("ts"),
        pl.col("ts") * 1000 + 7,
        pl.from_epoch("ts").dt.strftime("%Y-%m-%d %H:%M:%S"),
        (pl.from_epoch("ts") - pl.duration(days=pl.col("item"))).dt.strftime("%Y%m%d"),
    ],
    ids=["seconds", "milliseconds", "iso", "days"],
)
def test_moments_as_ids(moment: pl.Expr, tmp_path: Path) -> None:
    assert ("warning", "timestamp", "x") in found(column(moment), tmp_path, x={})


def test_long_ids_are_no_moments(tmp_path: Path) -> None:
    ids = np.random.default_rng(3).integers(10**9, 10**10, 200)
    findings = found(lambda frame, rng: frame.with_columns(x=ids[frame["item"].to_numpy()]), tmp_path, x={})
    assert "timestamp" not in {rule for _, rule, _ in findings}


@pytest.mark.parametrize("kind", [{}, {"kind": "value"}], ids=str)
def test_a_constant_field(kind: dict[str, Any], tmp_path: Path) -> None:
    assert found(column(pl.lit(4.5)), tmp_path, x=kind) == [("warning", "constant", "x")]


def test_a_field_that_is_hardly_ever_filled(tmp_path: Path) -> None:
    seldom = pl.when(pl.int_range(ROWS) % 200 == 0).then(pl.lit("here"))
    assert found(column(seldom), tmp_path, x={}) == [("warning", "constant", "x")]


def test_a_population_that_changes(tmp_path: Path) -> None:
    """A tenth of the old phones are new ones in test: named; a twentieth of that: not."""
    phone = pl.when(pl.col("split") == "test", pl.int_range(ROWS) % 3 == 0).then(1).otherwise(pl.col("user") % 10)
    assert found(column(phone), tmp_path, x={}) == [("warning", "drift", "x")]
    slight = pl.when(pl.col("split") == "test", pl.int_range(ROWS) % 60 == 0).then(1).otherwise(pl.col("user") % 10)
    assert found(column(slight), tmp_path / "slight", x={}) == []


def test_a_value_that_goes_missing(tmp_path: Path) -> None:
    gone = pl.when(pl.col("split") == "train", pl.int_range(ROWS) % 2 == 0).then(pl.col("user") % 10)
    assert ("warning", "drift", "x") in found(column(gone), tmp_path, x={"kind": "quantile"})


def test_a_click_rate_that_differs_between_splits(tmp_path: Path) -> None:
    def plant(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        lost = (frame["split"] == "test").to_numpy() & (rng.random(ROWS) < 0.5)
        return frame.with_columns(label=pl.when(pl.Series(lost)).then(0).otherwise(LABEL))

    assert found(plant, tmp_path) == [("warning", "rate_shift", "")]


def test_an_id_and_its_name_are_twins(tmp_path: Path) -> None:
    assert found(column("item " + pl.col("item").cast(pl.String)), tmp_path, x={}) == [("note", "twins", "item, x")]


def test_fields_with_the_same_texts_share_values(tmp_path: Path) -> None:
    towns = np.array([f"town {i}" for i in range(40)])

    def plant(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        home, work, numbers = (rng.integers(0, 40, ROWS) for _ in range(3))
        return frame.with_columns(x=towns[home], y=towns[np.minimum(work, 38)], z=numbers, w=numbers[::-1])

    assert found(plant, tmp_path, x={}, y={}, z={}, w={}) == [("note", "shared_values", "x, y")]


def test_a_day_without_clicks(tmp_path: Path) -> None:
    frame = clean(np.random.default_rng(1))
    third = pl.col("ts").is_between(START + 2 * DAY, START + 3 * DAY - 1)
    broken = frame.with_columns(label=pl.when(third).then(0).otherwise(LABEL))
    for table, expected in ((frame, []), (broken, [("error", "odd_days", "ts")])):
        days = click_rates_by_day(Table.named(table.lazy()).frame, "ts", "s")
        assert len(days) == 24
        assert days["rows"].sum() == ROWS
        assert days["clicks"].sum() == table["label"].sum()
        assert told(list(odd_days(days, "ts"))) == expected
    assert "24 days, 0.0% (2023-11-16)" in spell_days(days, "ts")


def test_dropped_rows_count_for_no_day() -> None:
    frame = pl.DataFrame({"ts": [0, 0, DAY], "label": [1, None, 0], "drop": [None, "no label", None]})
    assert click_rates_by_day(Table.named(frame.lazy()).frame, "ts", "s").rows()[0][1:] == (1, 1.0)


def test_days_of_single_users_may_differ() -> None:
    """Each day is one user's: rates are spread as users are, and no day is odd."""
    rng = np.random.default_rng(4)
    rate = rng.beta(2, 2, 500)
    days = pl.DataFrame({"day": np.arange(500), "rows": np.full(500, 200), "clicks": rng.binomial(200, rate)})
    assert list(odd_days(days, "ts")) == []


def test_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    """Naive twins of the survey: group_by on the raw table."""
    frame = clean(np.random.default_rng(5))
    surveyed = survey(prepare(frame, tmp_path))
    for s, split in enumerate(("train", "valid", "test")):
        part = frame.filter(pl.col("split") == split)
        for name in ("user", "brand", "hour"):
            own = surveyed.counts[surveyed.names.index(name)][s]
            expected = part.group_by(name).agg(pl.len(), LABEL.sum())
            assert sorted(own.sum(0)[own.sum(0) > 0]) == sorted(expected["len"])
            assert sorted(own[1][own[1] > 0]) == sorted(expected.filter(LABEL > 0)["label"])
    item = surveyed.names.index("item")
    train = frame.filter(pl.col("split") == "train")
    facts = surveyed.keys[item]
    assert sorted(facts.rows) == sorted(train.group_by("item").len()["len"])
    hour = surveyed.names.index("hour")
    same = train.select((pl.col("hour") == pl.col("hour").first().over("item")).sum()).item()
    assert facts.agreeing[hour] == same
    assert facts.known[hour] == facts.rows.sum()


@pytest.mark.parametrize("seed", range(5))
def test_a_blank_is_nobody(seed: int, tmp_path: Path) -> None:
    """Most rows lack their user, many their item: what is counted per user and item is what a group_by of known rows
    says, and what is blank makes nothing fixed, nothing a twin, and no leak.
    """
    rng = np.random.default_rng(seed)
    blank = {name: pl.Series(rng.random(ROWS) < share) for name, share in (("user", 0.7), ("item", 0.3), ("x", 0.4))}
    frame = clean(rng).with_columns(x="i" + pl.col("item").cast(pl.String))
    frame = frame.with_columns(pl.when(~own).then(name).alias(name) for name, own in blank.items())
    surveyed = survey(prepare(frame, tmp_path, x={}))
    train = frame.filter(pl.col("split") == "train")
    for key in ("user", "item"):
        facts = surveyed.keys[surveyed.names.index(key)]
        known = train.drop_nulls(key).group_by(key, maintain_order=True)
        same = (pl.col("x") == pl.col("x").drop_nulls().first()).sum()
        rows = known.agg(pl.len(), LABEL.sum(), known=pl.col("x").count(), same=same)
        assert sorted(zip(facts.rows, facts.clicks, strict=True)) == sorted(rows.select("len", "label").iter_rows())
        x = surveyed.names.index("x")
        assert facts.known[x] == rows["known"].sum()
        assert facts.agreeing[x] == rows["same"].sum()
    found = {finding.rule: finding for finding in lint(surveyed.dataset).findings}
    assert found.pop("repeated_rows").severity == "note"  # rows with so many blanks do repeat each other
    assert told(list(found.values())) == [("note", "twins", "item, x")]
    assert "100.0% of the rows that have both" in found["twins"].text


def test_items_without_a_value_are_not_items_of_one_value() -> None:
    """Two thirds lack the value: their click rates differ, and the value says no more than that it is there."""
    rng = np.random.default_rng(1)
    rows = np.full(600, 50)
    value, rate = np.where(np.arange(600) % 3 == 0, 1 + np.arange(600) // 3 % 4, 0), rng.random(600)
    facts = KeyFacts(rng.binomial(rows, rate), rows, value[None], rows, rows, Moves([]))
    every, _ = dispersion(facts, np.where(value > 0, value, NOBODY))
    part = facts._replace(clicks=facts.clicks[value > 0], rows=rows[value > 0])
    assert every == pytest.approx(dispersion(part, value[value > 0])[0])


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_repeated_rows(seed: int, tmp_path: Path) -> None:
    """Click rates of a table with whole weights are those of the table with each row so often."""
    rng = np.random.default_rng(seed)
    frame = clean(rng).with_columns(w=pl.Series(rng.integers(1, 4, ROWS)))
    repeated = frame.select(pl.all().repeat_by("w").explode())
    one = lint(prepare(frame, tmp_path / "w", weight="w"))
    two = lint(prepare(repeated, tmp_path / "repeated"))
    surveyed = survey(Dataset.load(tmp_path / "w", name=""))
    rates = [repeated.filter(pl.col("split") == split)["label"].mean() for split in ("train", "valid", "test")]
    np.testing.assert_allclose(surveyed.rate, rates, rtol=1e-6)
    for name in ("user", "item", "brand", "age", "hour"):  # smoothed by rows of the mean weight; bins are of rows
        assert one.fields[name]["auc_alone"] == pytest.approx(two.fields[name]["auc_alone"], abs=0.005), name
    weight = np.array([2.0, 2.0, 4.0])
    split = Split(np.zeros((3, 1)), np.zeros(3), weight=weight)
    table = SimpleNamespace(dataset=SimpleNamespace(train=split, valid=split, test=split), rows=np.full(3, 3))
    np.testing.assert_allclose(effective_rows(table), 64 / 24)  # ty: ignore[invalid-argument-type]


def test_a_lost_label_with_weights_shows_in_the_rates(tmp_path: Path) -> None:
    def weighted(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(w=pl.when(pl.col("split") == "test", LABEL == 1).then(0.25).otherwise(1.0))

    frame = weighted(clean(np.random.default_rng(1)))
    assert told(lint(prepare(frame, tmp_path / "plain")).findings) == []
    assert told(lint(prepare(frame, tmp_path / "w", weight="w")).findings) == [("warning", "rate_shift", "")]


def test_days_with_weights_have_weighted_click_rates() -> None:
    frame = pl.DataFrame({"ts": [0, 0, DAY, 2 * DAY], "label": [1, 0, 0, 1], "w": [3.0, 1.0, 2.0, 0.0]})
    days = click_rates_by_day(Table.named(frame.lazy()).frame, "ts", "s", "w")
    assert [row[1:] for row in days.rows()] == [(2, 1.5), (1, 0.0)]


def test_every_advice_has_a_number_and_a_cure(tmp_path: Path) -> None:
    """One table with many defects: what is believed stands beside what to do."""
    frame = clean(np.random.default_rng(1)).with_columns(
        leaks=LABEL, one=pl.lit(1), twin="i" + pl.col("item").cast(pl.String), mean=LABEL.mean().over("item").round(2),
        counter=CLICKS, row="r" + pl.int_range(ROWS).cast(pl.String), moment=pl.col("ts"),
        hash_lists=pl.col("user").cast(pl.String),
        phone=pl.when(pl.col("split") == "test", pl.int_range(ROWS) % 3 == 0).then(pl.lit("new")).otherwise("brand"),
    )  # fmt: skip
    more = {name: {} for name in ("leaks", "one", "twin", "mean", "counter", "row", "moment", "phone")}
    findings = lint(prepare(frame, tmp_path, **more, hash_lists={"num_buckets": 300})).findings
    rules = {finding.rule for finding in findings}
    labels, values = (
        {"leak", "knows_the_future", "moves_with_label"},
        {"constant", "near_unique", "crowded", "timestamp"},
    )
    assert rules >= labels | values | {"twins", "unseen", "drift"}
    for finding in findings:
        assert re.search(r"\d", finding.text), finding
        assert re.match(r"[A-Z][a-z]+ ", finding.cure), finding
    drift = next(finding for finding in findings if (finding.rule, finding.field) == ("drift", "phone"))
    assert "most of it by values that are rare or new (0.0% of train, 33" in drift.text
    crowded = next(finding for finding in findings if finding.rule == "crowded")
    buckets = int(re.findall(r"about ([\d,]+) num_buckets", crowded.cure)[0].replace(",", ""))
    assert buckets == pytest.approx(10 * USERS, rel=0.15)


def test_the_second_time_reads_what_the_first_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = prepare(clean(np.random.default_rng(1)), tmp_path)
    first = lint(dataset)
    monkeypatch.setattr(module, "survey", None)
    assert lint(dataset) == first
    monkeypatch.setattr(module, "VERSION", -1)
    with pytest.raises(TypeError):
        lint(dataset)


def test_a_report_names_the_worst_first(tmp_path: Path) -> None:
    frame = clean(np.random.default_rng(1)).with_columns(x=LABEL, y=pl.lit(1), z="i" + pl.col("item").cast(pl.String))
    dataset = prepare(frame, tmp_path, x={}, y={}, z={})
    result = lint(dataset)
    assert [finding.severity for finding in result.findings] == ["error", "warning", "note"]
    assert "more" not in worst(result.findings[:2], count=2)
    assert worst(result.findings, count=2).splitlines()[2].startswith("1 more findings")
    assert spell(result.findings).count("\n") == 5
    assert "1.0000" in next(line for line in field_grid(dataset, result.fields).splitlines() if line.startswith("x"))


def test_lists_and_numbers_become_codes(tmp_path: Path) -> None:
    lists = np.array([[1, 2, 0], [2, 1, 0], [1, 2, 0], [0, 0, 0]])
    categories = hash_lists(lists)
    assert categories[0] == categories[2] != categories[1]
    assert categories[3] == 0 < categories[:3].min()
    frame = clean(np.random.default_rng(1)).with_columns(
        price_value=pl.when(pl.int_range(ROWS) % 2 == 0).then("price_value")
    )
    dataset = prepare(frame, tmp_path)
    discretizer = Discretizer.of(dataset.schema, dataset.train)
    (_, categories), *_ = discretizer.blocks(dataset.train)
    price, value = categories[FIELDS.index("price")], categories[FIELDS.index("price_value")]
    assert (value[1::2] == 0).all()
    assert value[::2].min() == 1
    assert np.corrcoef(price[::2], value[::2])[0, 1] > 0.99
    assert max(categories.max(1) - np.array(discretizer.sizes)) < 0

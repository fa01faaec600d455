"""The public tables, where FIELDCTR_DATA says that they are: what was published is what was prepared."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.data.table import SPLITS

CONF = Path(__file__).parents[2] / "conf" / "dataset"
ROOT = Path(os.environ.get("FIELDCTR_DATA", "data that is not there"))

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="FIELDCTR_DATA is not set: no real tables here")


def real(name: str, out: Path) -> Dataset:
    config = OmegaConf.create({"data_root": str(ROOT), "dataset": OmegaConf.load(CONF / f"{name}.yaml")})
    node: Any = OmegaConf.to_container(config, resolve=True)
    if not Path(node["dataset"]["raw_dir"]).is_dir():
        pytest.skip(f"no {name} below FIELDCTR_DATA")
    return prepared(node["dataset"], data_dir=out)


def rows(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.valid), len(dataset.test)


@pytest.mark.slow
def test_kuairand(tmp_path: Path) -> None:
    dataset = real("kuairand", tmp_path)
    assert rows(dataset) == (167_273, 26_681, 28_905)
    assert dataset.facts["positive_rate"]["train"] == pytest.approx(0.451, abs=0.001)
    raw = pl.read_parquet(ROOT / "kuairand_pure" / "kuairand_ctr.parquet")
    train, test = raw.filter(pl.col("split") == "train"), raw.filter(pl.col("split") == "test")
    vocabulary = pl.read_parquet(dataset.folder / "vocabulary.parquet")
    for field in dataset.schema.fields:
        if field.name != "tag":
            counts = train[field.name].drop_nulls().value_counts()["count"].sort(descending=True)
            assert field.vocab_size == len(counts) + 1, field.name
            assert vocabulary.filter(pl.col("field") == field.name)["count"].to_list() == counts.to_list()
    unseen = ~test["user_id"].is_in(train["user_id"].unique().implode())
    assert dataset.facts["fields"]["user_id"]["unseen"]["test"] == pytest.approx(unseen.mean())
    assert dataset.facts["fields"]["onehot_feat4"]["missing"]["train"] == pytest.approx(
        train["onehot_feat4"].is_null().mean()
    )
    assert dataset.facts["group"]["groups"] == 25_156
    assert not any(field.text for field in dataset.schema.fields if field.name.startswith("onehot"))


@pytest.mark.slow
def test_kuairand_history(tmp_path: Path, dataset_node: Callable[..., dict[str, Any]]) -> None:
    """Histories of 500 users, and where they are stored: each click once, but for 2 % of the users."""
    dataset = prepared(dataset_node("kuairand_history", f"data_root={ROOT}"), data_dir=tmp_path)
    raw = pl.read_parquet(ROOT / "kuairand_pure" / "kuairand_ctr.parquet")
    raw = raw.select("user_id", "time_ms", "is_click", "split").with_columns(
        row=pl.int_range(pl.len()).over("split"),
        place=pl.col("split").replace_strict({"train": 0, "valid": 1, "test": 2}),
    )
    item = dataset.schema.column_offsets[dataset.schema.index("video_id")]
    users = raw["user_id"].unique(maintain_order=True)[::50].implode()
    for rows in raw.filter(pl.col("user_id").is_in(users)).partition_by("user_id"):
        told = [
            (when, place, row, int(click), int(getattr(dataset, split).ids[row, item]))
            for _, when, click, split, row, place in rows.iter_rows()
        ]
        for when, place, row, _, _ in told:
            past = [i for then, s, _, click, i in sorted(told) if then < when and s <= place and click and i][-20:]
            found = getattr(dataset, SPLITS[place]).ids_of(slice(row, row + 1))[0, -20:]
            assert found.tolist() == past + [0] * (20 - len(past))
    events, clicks = len(np.load(dataset.folder / "events.npy")), raw["is_click"].sum()
    assert 0.98 * clicks < events < 1.02 * clicks


def test_movielens(tmp_path: Path) -> None:
    dataset = real("movielens", tmp_path)
    assert sum(rows(dataset)) == 100_836
    assert dataset.facts["group"]["groups"] == 610
    assert dataset.facts["fields"]["genres"]["vocab_size"] == 21
    assert max(dataset.facts["fields"]["title"]["missing"].values()) == 0


def test_census(tmp_path: Path) -> None:
    dataset = real("census", tmp_path)
    train, valid, test = rows(dataset)
    assert (train + valid, test) == (159_618, 39_905)
    assert valid == pytest.approx(0.125 * 159_618, rel=0.03)
    assert dataset.facts["positive_rate"]["test"] == pytest.approx(0.062, abs=0.001)
    assert dataset.schema.num_fields == 40


def test_coupon(tmp_path: Path) -> None:
    dataset = real("coupon", tmp_path)
    assert sum(rows(dataset)) == 12_678
    assert dataset.facts["fields"]["Car"]["missing"]["train"] > 0.98


def test_amazon_gift_cards(tmp_path: Path) -> None:
    """Rows, positive rates and vocabularies as LLaCTR's released feature map has them (0 for missing counted)."""
    dataset = real("amazon_gift_cards", tmp_path)
    assert rows(dataset) == (121_928, 15_241, 15_241)
    assert dataset.facts["positive_rate"]["test"] == pytest.approx(0.8130, abs=5e-5)
    assert {field.name: field.vocab_size for field in dataset.schema.fields} == {
        "parent_asin": 1_049, "user_id": 106_281, "timestamp": 120_771, "main_category": 13, "title": 774,
        "average_rating": 31, "rating_number": 507, "features": 502, "description": 379, "price": 26, "store": 391,
        "categories": 42, "details": 866,
    }  # fmt: skip


def test_movielens_1m_llactr(tmp_path: Path) -> None:
    dataset = real("movielens_1m_llactr", tmp_path)
    assert rows(dataset) == (591_209, 73_901, 73_902)
    assert dataset.facts["rows"]["dropped"] == {"rating is 3": 1_000_209 - 739_012}

"""Entities of a table against a loop over its raw rows: which there are, and what each is in words."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import tidy_node

from fieldctr.data import entities as module
from fieldctr.data.dataset import Dataset
from fieldctr.data.entities import entities_of, feature_texts
from fieldctr.data.prepare import prepared

FIELDS: dict[str, Any] = {
    "user": {},
    "tags": {"kind": "multi", "separator": "|", "max_length": 3},
    "price": {"kind": "value"},
    "hash": {"kind": "hash", "buckets": 4, "column": "user"},
}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    draw, lines = random.Random(3), ["click,user,tags,price"]
    for _ in range(400):
        tags = "|".join(draw.sample(["red", "blue", "big"], draw.randrange(4)))
        lines.append(
            f"{draw.randrange(2)},{draw.choice(['', 'u1', 'u2', 'u3'])},{tags},{draw.choice(['', '7', '2.5'])}"
        )
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    return prepared(
        tidy_node(tmp_path, "log.csv", {key: FIELDS[key] for key in ("user", "tags", "price")}), data_dir=tmp_path
    )


def rows(dataset: Dataset) -> list[tuple[list[int], float]]:
    splits = (dataset.train, dataset.valid, dataset.test)
    return [(ids.tolist(), float(split.values[i, 0])) for split in splits for i, ids in enumerate(split.ids)]  # ty: ignore


def test_each_row_has_its_entity_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    found = entities_of(dataset, [0, 1, 2])
    assert found.columns == [0, 1, 2, 3, 4, dataset.schema.num_columns]
    bits = np.float32([value for _, value in rows(dataset)]).view(np.int32).tolist()
    expected = {(*ids, bit) for (ids, _), bit in zip(rows(dataset), bits, strict=True)}
    assert list(map(tuple, found.keys.tolist())) == sorted(expected)
    assert len(entities_of(dataset, [0]).keys) == len({ids[0] for ids, _ in rows(dataset)})


def test_features_are_told_as_the_file_has_them(dataset: Dataset) -> None:
    order = [2, 0, 1]
    found = entities_of(dataset, order)
    prices, users, tags = feature_texts(dataset, found, order)
    assert set(prices) == {"", "7", "2.5"}
    assert set(users) == {"", "u1", "u2", "u3"}
    assert {word for text in tags for word in text.split(" and ")} == {"", "red", "blue", "big"}
    assert len(set(zip(prices, users, tags, strict=True))) == len(found.keys)

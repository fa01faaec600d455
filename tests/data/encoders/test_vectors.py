"""Vector fields: ids into one frozen table of numbers, looked up by keys, gathered in batches."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tables import tidy_node

from fieldctr.data.batches import Batches
from fieldctr.data.coverage import warnings
from fieldctr.data.dataset import Dataset, Split
from fieldctr.data.describe import describe
from fieldctr.data.encode import encode_rows
from fieldctr.data.prepare import prepared
from fieldctr.data.table import LABEL
from fieldctr.errors import UserError

WIDTH = 5
KEYS = ["7", "1.0", "b", "zz", "2", "only the file"]  # in the file's order; a row says 7.0 for 7 and 1 for 1.0
SPELLED = ["7", "1", "b", "zz", "2", "only the file"]
VALUES = ["7.0", "1", "b", "zz", "2", "unknown", "", "NULL"]


def vectors(seed: int = 1, rows: int = len(KEYS)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


def log(folder: Path, rows: int = 240) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    frame = pl.DataFrame(
        {
            "item": rng.choice(VALUES, rows),
            "user": [f"u{i}" for i in rng.integers(0, 9, rows)],
            "price": rng.normal(size=rows).round(3),
            "tags": [f"t{a},t{b}" for a, b in rng.integers(0, 5, (rows, 2))],
            "when": range(rows),
            "click": rng.integers(0, 2, rows),
            "part": ["train"] * (rows - 80) + ["valid", "test"] * 40,
        }
    )
    frame.write_csv(folder / "log.csv")
    return frame


def write_npy(folder: Path) -> dict[str, Any]:
    np.save(folder / "v.npy", vectors())
    (folder / "keys.txt").write_text("\n".join(KEYS) + "\n", encoding="utf-8")
    return {"file": "v.npy", "keys": "keys.txt"}


def write_lists(folder: Path) -> dict[str, Any]:
    pl.DataFrame({"id": KEYS, "emb": vectors().tolist(), "more": KEYS}).write_parquet(folder / "v.parquet")
    return {"file": "v.parquet", "key": "id", "vector": "emb"}


def write_arrays(folder: Path) -> dict[str, Any]:
    pl.DataFrame({"item": KEYS, "emb": pl.Series(vectors())}).write_parquet(folder / "v.parquet")
    return {"file": "v.parquet"}


def write_columns(folder: Path) -> dict[str, Any]:
    columns = {f"n{k}": vectors()[:, k] for k in range(WIDTH)}
    pl.DataFrame({"item": KEYS, **columns}).write_parquet(folder / "v.parquet")
    return {"file": "v.parquet", "vector": list(columns)}


FORMS = (write_npy, write_lists, write_arrays, write_columns)


def node(folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
    return tidy_node(folder, "log.csv", fields, split={"by": "column", "column": "part"})


def made(folder: Path, image: dict[str, Any], **fields: Any) -> Dataset:
    own = {"user": {}, "image": {"kind": "vector", "column": "item", **image}, **fields}
    return prepared(node(folder, own), data_dir=folder / "out")


def twin(value: str) -> np.ndarray:
    """The vector of a cell, by a plain look."""
    said = {"7.0": "7"}.get(value, value)
    return vectors()[SPELLED.index(said)] if said in SPELLED else np.zeros(WIDTH, np.float32)


def gathered(split: Split, batch_size: int = 32) -> np.ndarray:
    batches = Batches(split, batch_size=batch_size, device=torch.device("cpu"))
    return np.concatenate([batch.inputs.values[:, -WIDTH:].numpy() for batch in batches.ordered()])


@pytest.mark.parametrize("write", FORMS)
def test_each_row_has_the_vector_of_its_key(write: Any, tmp_path: Path) -> None:
    frame, dataset = log(tmp_path), made(tmp_path, write(tmp_path), price={"kind": "value"})
    for split in ("train", "valid", "test"):
        items = frame.filter(pl.col("part") == split)["item"].to_list()
        found = gathered(getattr(dataset, split))
        assert np.array_equal(found, np.stack([twin(item or "") for item in items]))
    field = dataset.schema.fields[dataset.schema.index("image")]
    assert (field.vector, field.vocab_size, field.num_rows) == (WIDTH, 1 + len(KEYS), 0)
    facts = dataset.facts["fields"]["image"]
    train = frame.filter(pl.col("part") == "train")["item"]
    blank = train.is_in(["", "NULL"]) | train.is_null()
    assert facts["missing"]["train"] == pytest.approx(blank.mean())
    assert facts["unseen"]["train"] == pytest.approx((train == "unknown").sum() / (~blank).sum())
    assert ["image", "vector", "6"] in [line.split()[:3] for line in describe(dataset).splitlines()]


def test_one_copy_is_memory_mapped_and_no_batch_holds_it(tmp_path: Path) -> None:
    log(tmp_path)
    dataset = made(tmp_path, write_npy(tmp_path))
    (own,) = dataset.train.vectors
    assert isinstance(own.numbers, np.memmap)
    assert own.numbers.dtype == np.float32
    assert not own.numbers[0].any()
    assert np.array_equal(own.numbers[1:], vectors())
    batches = Batches(dataset.train, batch_size=16, device=torch.device("cpu"))
    ((_, shared),) = batches.vectors
    assert shared.data_ptr() == own.numbers.ctypes.data
    assert all(batch.inputs.values.shape[0] <= 16 for batch in batches.shuffled(1, 0))
    assert dataset.train.take(slice(3)).vectors[0].numbers is own.numbers
    assert len(list(dataset.folder.glob("vectors.*"))) == 1
    assert dataset.valid.vectors[0] is dataset.test.vectors[0] is own


def test_two_fields_of_vectors_and_all_other_kinds_keep_their_places(tmp_path: Path) -> None:
    frame, more = log(tmp_path), np.arange(9, dtype=np.float64).reshape(9, 1)
    np.save(tmp_path / "users.npy", more)
    (tmp_path / "users.txt").write_text("\n".join(f"u{i}" for i in range(9)))
    dataset = made(
        tmp_path,
        write_lists(tmp_path),
        item={"kind": "categorical"},
        tags={"kind": "multi"},
        price={"kind": "value"},
        rate={"kind": "target_mean", "of": ["user"]},
        past={"kind": "history", "of": "item", "by": "user", "time": "when", "clicked": False, "max_length": 3},
        face={"kind": "vector", "column": "user", "file": "users.npy", "keys": "users.txt"},
    )
    names = [field.name for field in dataset.schema.fields]
    assert names == ["user", "item", "tags", "price", "image", "face", "rate", "past"]
    batch = next(Batches(dataset.valid, batch_size=40, device=torch.device("cpu")).ordered())
    values, valid = batch.inputs.values, frame.filter(pl.col("part") == "valid")
    assert values is not None
    assert values.shape == (40, dataset.schema.num_values) == (40, 2 + WIDTH + 1)
    assert np.array_equal(values[:, :2].numpy(), dataset.valid.values)
    assert np.array_equal(values[:, 2 : 2 + WIDTH].numpy(), [twin(item or "") for item in valid["item"]])
    assert values[:, -1].tolist() == [float(user[1:]) for user in valid["user"]]
    assert batch.inputs.ids.shape == (40, dataset.schema.num_columns)
    assert np.array_equal(batch.inputs.ids.numpy(), dataset.valid.ids_of(slice(40)))


@pytest.mark.parametrize("write", FORMS)
def test_new_rows_have_the_vectors_of_keys_that_train_lacked(write: Any, tmp_path: Path) -> None:
    frame, dataset = log(tmp_path), made(tmp_path, write(tmp_path))
    rows = frame.head(4).with_columns(item=pl.Series(["only the file", "7", "stranger", None]))
    found = encode_rows(rows.lazy().rename({"click": LABEL}), dataset.folder)
    assert np.array_equal(gathered(found.split), [twin("only the file"), twin("7"), twin(""), twin("")])
    assert found.coverage["image"][1:] == (1, 3, 1)
    lost = frame.head(60).with_columns(item=pl.lit("stranger"))
    coverage = encode_rows(lost.lazy(), dataset.folder).coverage
    assert any(
        "'image': all of the values have no vector" in text for text in warnings(coverage, dataset.facts["fields"])
    )
    same = encode_rows(frame.filter(pl.col("part") == "test").lazy(), dataset.folder).split
    assert np.array_equal(same.ids, dataset.test.ids)


def test_the_bytes_of_the_file_decide_the_table(tmp_path: Path) -> None:
    log(tmp_path)
    image = write_npy(tmp_path)
    first = made(tmp_path, image).folder
    assert made(tmp_path, image).folder == first
    np.save(tmp_path / "v.npy", vectors(2))
    assert made(tmp_path, image).folder != first
    second = made(tmp_path, image).folder
    (tmp_path / "keys.txt").write_text("\n".join(KEYS[::-1]))
    assert made(tmp_path, image).folder not in (first, second)


def refusal(folder: Path, image: dict[str, Any]) -> str:
    log(folder)
    with pytest.raises(UserError) as caught:
        made(folder, image)
    assert not [path for path in (folder / "out").glob("*") if not path.name.startswith(".digests")]
    return str(caught.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(6), "shape (6,), expected numbers (keys, width)"),
        (np.zeros((6, 0)), "expected numbers"),
        (np.array([["a"]] * 6), "expected numbers"),
        (np.zeros((6, 2), complex), "expected numbers"),
        (np.zeros((5, 2)), "5 rows, and keys.txt 6 lines"),
        (np.full((6, 2), np.nan), "row 1 holds a number that is missing or not finite"),
        (np.eye(6) * 1e300, "row 1 holds"),
        (np.array([[1, None]] * 6, object), "cannot be read as .npy"),
    ],
)
def test_a_strange_array_is_refused(array: np.ndarray, words: str, tmp_path: Path) -> None:
    image = write_npy(tmp_path)
    np.save(tmp_path / "v.npy", array)
    assert words in refusal(tmp_path, image)


@pytest.mark.parametrize(
    ("keys", "words"),
    [("a a b c d e", "key 'a' stands there twice"), ("7 7.0 b c d e", "'7' stands there twice"), ("a", "lines")],
)
def test_strange_keys_are_refused(keys: str, words: str, tmp_path: Path) -> None:
    image = write_npy(tmp_path)
    (tmp_path / "keys.txt").write_text("\n".join(keys.split()))
    assert words in refusal(tmp_path, image)
    (tmp_path / "keys.txt").write_text("a\n\nb\nc\nd\ne\n")
    assert "row 2 has no key" in refusal(tmp_path, image)
    (tmp_path / "keys.txt").write_bytes(b"\xff\n" * 6)
    assert "is no text in UTF-8" in refusal(tmp_path, image)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"item": ["a", "b"], "emb": [[1.0, 2.0], [1.0]]}, "key 'b' has 1 numbers, others 2"),
        ({"item": ["a", "b"], "emb": [[1.0], None]}, "key 'b' has 0 numbers"),
        ({"item": ["a", "b"], "emb": [[1.0, None], [1.0, 2.0]]}, "row 1 holds a number that is missing"),
        ({"item": ["a", None], "emb": [[1.0], [2.0]]}, "row 2 has no key"),
        ({"item": ["a"], "emb": [["x"]]}, "expected numbers in each column"),
        ({"item": ["a"]}, "no column besides the key"),
        ({"other": ["a"], "emb": [[1.0]]}, "no column 'item'"),
        ({"item": [], "emb": []}, "expected numbers"),
    ],
)
def test_a_strange_table_is_refused(frame: dict[str, Any], words: str, tmp_path: Path) -> None:
    pl.DataFrame(frame, strict=False).write_parquet(tmp_path / "v.parquet")
    assert words in refusal(tmp_path, {"file": "v.parquet"})


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({}, "image.file"),
        ({"file": "gone.parquet"}, "gone.parquet"),
        ({"file": "v.npy"}, "keys names the text file"),
        ({"file": "v.parquet", "keys": "k.txt"}, "keys names the text file"),
        ({"file": "v.npy", "keys": "k.txt", "vector": "a"}, "has no columns"),
        ({"file": "v.parquet", "bins": 3}, "bins"),
        ({"file": "v.csv"}, "cannot be read as Parquet"),
    ],
)
def test_keys_that_do_not_fit_are_refused(image: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("item,a\n1,2\n")
    assert words in refusal(tmp_path, image)


def test_no_statistic_and_no_history_is_of_a_vector(tmp_path: Path) -> None:
    log(tmp_path)
    image = write_npy(tmp_path)
    with pytest.raises(UserError, match="'image' is a field of kind vector"):
        made(tmp_path, image, rate={"kind": "count", "of": ["image"]})
    with pytest.raises(UserError, match="kind vector, expected a field of kind categorical"):
        made(tmp_path, image, past={"kind": "history", "of": "image", "by": "user", "time": "when"})

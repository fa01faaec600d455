"""Preparing a node: what its key covers, and that killed, failed and racing preparations leave one whole result."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import tidy_node

from fieldctr.data.dataset import Dataset
from fieldctr.data.describe import describe
from fieldctr.data.prepare import entities, prepared
from fieldctr.errors import UserError

KEYWORDS = {
    "seed": 1, "users": 300, "ads": 200, "base_rate": 0.2, "first_order": 0.5, "num_pairs": 3, "pair_strength": 0.5,
    "drift": 0.0, "numeric": 0.0,
}  # fmt: skip


def synthetic(rows: int, **changes: Any) -> dict[str, Any]:
    target = "fieldctr.data.sources.synthetic.read"
    fields = dict.fromkeys(["user_id", "gender", "adgroup_id", "cate_id", "brand"])
    source = {"_target_": target, "rows": rows} | KEYWORDS
    return {"name": "s", "raw_dir": "", "min_count": 1, "group": None, "fields": fields, "source": source} | changes


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def run(rows: int, folder: Path, fatal: str = "") -> subprocess.Popen[str]:
    """A process that prepares; the call of `fatal` kills it."""
    code = (
        "import os, sys; from pathlib import Path; from fieldctr.data.prepare import prepared\n"
        "from fieldctr.data.shards import writer\n"
        "from fieldctr.memory import peak_resident_mb\n"
        f"{f'{fatal} = lambda *given, **named: os.kill(os.getpid(), 9)' if fatal else ''}\n"
        f"print(prepared({synthetic(rows)!r}, data_dir=Path(sys.argv[1])).folder)\n"
        "print(peak_resident_mb())"
    )
    environment = os.environ | {"POLARS_MAX_THREADS": "2"}  # each takes memory
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_the_second_time_only_loads(tmp_path: Path) -> None:
    first = prepared(synthetic(2000), data_dir=tmp_path)
    stamp = (first.folder / "facts.json").stat().st_mtime_ns
    second = prepared(synthetic(2000, name="other", raw_dir="elsewhere"), data_dir=tmp_path)
    assert second.folder == first.folder
    assert second.digest == first.folder.name
    assert (first.folder / "facts.json").stat().st_mtime_ns == stamp
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(f".{first.digest}")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"min_count": 2}, {"group": "user_id"}, {"fields": {"user_id": None}}, {"fields": {"gender": {"text": "sex"}}}],
)
def test_what_changes_the_result_changes_the_folder(changes: dict[str, Any], tmp_path: Path) -> None:
    first = prepared(synthetic(2000), data_dir=tmp_path)
    assert prepared(synthetic(2000, **changes), data_dir=tmp_path).digest != first.digest


def test_new_bytes_of_a_file_change_the_folder(tmp_path: Path) -> None:
    label = {"column": "y", "above": 2}
    node = tidy_node(tmp_path, "*.csv", {"a": None}, null_values=["?"], label=label)
    (tmp_path / "one.csv").write_text("a,y\n" + "".join(f"{i % 4},{i % 5}\n" for i in range(50)))
    (tmp_path / "two.csv").write_text("a,y\n" + "".join(f"?,{i % 5}\n" for i in range(50)))
    first = prepared(node, data_dir=tmp_path / "out")
    assert first.facts["rows"]["read"] == 100
    assert 0.2 < first.facts["fields"]["a"]["missing"]["train"] < 0.8
    (tmp_path / "two.csv").write_text("a,y\n" + "".join(f"7,{i % 5}\n" for i in range(50)))
    assert prepared(node, data_dir=tmp_path / "out").digest != first.digest


@pytest.mark.slow
def test_a_killed_preparation_leaves_nothing_that_passes_for_data(tmp_path: Path) -> None:
    process = run(2000, tmp_path, fatal="writer.complete")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".*.shards/.0*/train.codes"))
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    dataset = prepared(synthetic(2000), data_dir=tmp_path)
    assert len(dataset.train) == 1600


@pytest.mark.slow
def test_two_racing_preparations_give_one_result(tmp_path: Path) -> None:
    both = [run(100_000, tmp_path) for _ in range(2)]
    folders = {process.communicate(timeout=1800)[0].splitlines()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(folders) == 1
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [Path(folders.pop())]


def test_one_node_gives_the_same_bytes_everywhere(tmp_path: Path) -> None:
    one, other = (prepared(synthetic(100_000, group="user_id"), data_dir=tmp_path / name) for name in "ab")
    assert digest(one.folder) == digest(other.folder)


@pytest.mark.slow
def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    peaks = []
    for rows in (150_000, 1_500_000):
        process = run(rows, tmp_path / str(rows))
        peaks.append(float(process.communicate(timeout=1800)[0].splitlines()[1]))
    assert peaks[1] < 1.5 * peaks[0]


def test_the_description_accounts_for_every_row(tmp_path: Path) -> None:
    dataset = prepared(synthetic(2000, group="user_id"), data_dir=tmp_path)
    text = describe(dataset)
    rows = dataset.facts["rows"]
    assert rows["train"] + rows["valid"] + rows["test"] + sum(rows["dropped"].values()) == rows["read"] == 2000
    for word in ("2,000", "1,600", "200", "cate_id", "attainable AUC", "values of user_id"):
        assert word in text
    assert max(map(len, text.splitlines())) < 130
    assert isinstance(dataset, Dataset)


def test_splits_are_memory_mapped(tmp_path: Path) -> None:
    dataset = prepared(synthetic(2000), data_dir=tmp_path)
    assert isinstance(dataset.train.ids, np.memmap)
    assert dataset.train.ids.dtype == np.int32
    assert dataset.train.label.dtype == np.float32


def test_an_entity_lacks_the_fields_that_are_left_out() -> None:
    fields = {"user_id": False, "age": None}
    assert entities({"user": ["user_id", "age"]}, fields) == {"user": ["age"]}
    with pytest.raises(UserError, match=r"dataset\.entities\.user: no field 'aeg'.*age"):
        entities({"user": ["aeg"]}, fields)

"""`fieldctr predict`: what it reads, what it says of rows that train never saw, and what it will not write."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fieldctr import compose
from fieldctr.checksums import CHECKSUMS_FILE, seal
from fieldctr.commands import predict
from fieldctr.errors import UserError

pytestmark = pytest.mark.slow

Call = Callable[..., subprocess.CompletedProcess[str]]
Predict = Callable[..., dict[str, Any]]
TRAIN = [
    "model=lr", "dataset=tidy", "dataset.raw_dir=.", "dataset.source.files=t.csv", 'dataset.source.separator=";"',
    "dataset.source.label.column=label", "+dataset.source.label.positive=[yes]", "dataset.source.null_values=[nil]",
    "dataset.source.joins={items: {files: items.csv, on: item}}", "+dataset.fields.user={}", "+dataset.fields.kind={}",
    "+dataset.fields.price={kind: value}", "tracker=none", "trainer.max_epochs=2", "trainer.batch_size=64",
    "runtime.threads=1", "hydra.run.dir=run",
]  # fmt: skip


def rows(number: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    frame = pl.DataFrame(
        {"user": rng.integers(0, 9, number), "item": rng.integers(0, 5, number), "price": rng.random(number).round(3)}
    )
    clicks = rng.random(number) < 0.2 + 0.1 * frame["item"].to_numpy()
    user = pl.when(pl.col("user") == 3).then(pl.lit("nil")).otherwise("u" + pl.col("user").cast(pl.String))
    return frame.with_columns(
        user=user, label=pl.Series(clicks).cast(pl.String).replace({"true": "yes", "false": "no"})
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    """A folder with a run on a table with semicolons, nil for no user, labels in words, and a joined side table."""
    folder = tmp_path_factory.mktemp("home")
    rows().write_csv(folder / "t.csv", separator=";")
    items = pl.DataFrame({"item": range(5), "kind": ["a", "b", "a", "c", "b"]})
    items.write_csv(folder / "items.csv", separator=";")
    done = call(folder, "train", *TRAIN)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def score(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Predict:
    """score(input, output, key=value, ...): the summary of a call in this process."""
    monkeypatch.chdir(home)

    def called(source: str, output: str = "out.parquet", *overrides: str) -> dict[str, Any]:
        words = ["run=run", f"input={source}", f"output={output}", "json=true", "runtime.threads=1", *overrides]
        node = compose("predict", words)
        capsys.readouterr()
        predict.main(node)
        return json.loads(capsys.readouterr().out)

    return called


def pctr(home: Path, name: str = "out.parquet", column: str = "pctr") -> np.ndarray:
    return pl.read_parquet(home / name)[column].to_numpy()


def test_the_training_file_gets_the_scores_of_evaluation(home: Path, call: Call) -> None:
    done = call(home, "predict", "run=run", "input=t.csv", "output=again.parquet", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["warnings"]) == (400, [])
    assert summary["mean_pctr"] == pytest.approx(pctr(home, "again.parquet").mean())
    user = summary["fields"]["user"]
    assert user["missing"] == pytest.approx((rows()["user"] == "nil").mean())
    scored = pl.read_parquet(home / "again.parquet")
    assert scored["user"].to_list() == rows()["user"].to_list(), "the file's own cells, null values too"
    (table,) = (home / "outputs/data").glob("[0-9a-f]*")
    labels = np.load(table / "test.label.npy")
    logit = np.load(home / "run/test.scores.npy").astype(np.float64)
    expected = np.sort(1 / (1 + np.exp(-logit)))
    assert len(labels) == len(logit)
    found = pctr(home, "again.parquet")
    nearest = np.abs(found[:, None] - expected[None]).min(0)
    assert nearest.max() < 1e-9, "each test row's score is among those of the file"


def test_a_table_that_has_the_joined_columns_needs_no_side_table(home: Path, score: Predict) -> None:
    score("t.csv")
    first = pctr(home)
    kinds = pl.read_csv(home / "items.csv", separator=";")
    rows().join(kinds, on="item", how="left", maintain_order="left").drop("label").write_parquet(home / "whole.pq")
    score("whole.pq")
    np.testing.assert_array_equal(pctr(home), first)


def test_keys_say_what_differs_from_training(home: Path, score: Predict) -> None:
    score("t.csv")
    first = pctr(home)
    rows().write_csv(home / "tabs.txt", separator="\t", null_value="")
    score("tabs.txt", "out.parquet", r"read.separator='\t'")
    np.testing.assert_array_equal(pctr(home), first)
    with pytest.raises(UserError, match=r"input=tabs.txt: .*separator"):
        score("tabs.txt")
    with pytest.raises(UserError, match="separatr"):
        score("t.csv", "out.parquet", "+read.separatr=x")


@pytest.mark.parametrize("output", ["empty.csv", "empty.tsv", "empty.parquet"])
def test_no_rows_give_no_scores(output: str, home: Path, score: Predict) -> None:
    rows().head(0).write_csv(home / "none.csv", separator=";")
    assert score("none.csv", output)["rows"] == 0
    kept = (
        pl.read_parquet(home / output)
        if output.endswith("parquet")
        else pl.read_csv(home / output, separator="\t" if output.endswith("tsv") else ",")
    )
    assert (kept.columns, len(kept)) == ([*rows().columns, "pctr"], 0)


def test_rows_of_another_world_are_warned_about(home: Path, score: Predict) -> None:
    strange = rows().with_columns(user=pl.lit("U") + pl.col("user"), price=pl.lit(None, pl.Float64))
    strange.write_csv(home / "strange.csv", separator=";")
    warned = score("strange.csv")["warnings"]
    assert [text.partition(":")[0] for text in warned] == ["field 'user'", "field 'price'"]
    assert "all of the values were not seen in train" in warned[0]
    assert "all of the rows have no value" in warned[1]


def test_numbers_that_cannot_be_are_missing_and_no_score_is_nan(home: Path, score: Predict) -> None:
    cells = ["0.5", "inf", "-inf", "1e39", "nan", "NULL", "1e308", "-3e38"]
    text = "user;item;price\n" + "".join(f"u1;1;{cell}\n" for cell in cells)
    (home / "far.csv").write_text(text)
    summary = score("far.csv")
    assert np.isfinite(pctr(home)).all()
    assert summary["fields"]["price"]["missing"] >= 6 / 8


@pytest.mark.parametrize(
    ("source", "output", "words"),
    [
        ("t.csv", "t.csv", "is the input itself"),
        ("t.csv", "./t.csv", "is the input itself"),
        ("t.csv", "out.xlsx", "ends in .csv or .tsv or .parquet"),
        ("t.csv", "run", "ends in"),
        ("nothing.csv", "out.csv", "input=.*nothing.csv is missing"),
        ("tt.csv", "out.csv", "input=.*tt.csv is missing: expected a file of rows. Nearest: t.csv"),
        ("scored.csv", "out.csv", "has a column 'pctr' already.*column="),
        ("lists.parquet", "out.csv", "column 'l' holds List.*Write .parquet"),
        ("short.csv", "out.csv", r"short.csv line 3: 1 columns, expected 3"),
        ("short_and_long.csv", "out.csv", r"short_and_long.csv line 3: 1 columns, expected 3"),
        ("lacking.csv", "out.csv", "no column 'user'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_computed(
    source: str, output: str, words: str, home: Path, score: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "scores", lambda *_: pytest.fail("computed"))
    rows().head(3).with_columns(pctr=0.5).write_csv(home / "scored.csv", separator=";")
    rows().head(3).with_columns(l=pl.Series([[1], [2], [3]])).write_parquet(home / "lists.parquet")
    (home / "short.csv").write_text("user;item;price\nu1;1;2.5\nu2\nu3;2;3\n")
    (home / "short_and_long.csv").write_text("user;item;price\nu1;1;2.5\nu2\nu3;2;3;4;5\n")
    (home / "lacking.csv").write_text("item;price\n1;2.5\n")
    before = {path: path.read_bytes() for path in home.glob("*.csv")}
    with pytest.raises(UserError, match=words):
        score(source, output)
    assert before == {path: path.read_bytes() for path in home.glob("*.csv")}
    assert not list(home.glob(".*"))


def test_the_new_column_takes_another_name(home: Path, score: Predict) -> None:
    score("t.csv")
    pl.read_parquet(home / "out.parquet").write_parquet(home / "twice.parquet")
    score("twice.parquet", "third.parquet", "column=pctr_2")
    np.testing.assert_array_equal(pctr(home, "third.parquet", "pctr_2"), pctr(home))


STRANGER = "from pathlib import Path\nPath('ran').touch()\nclass Model: ...\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"_target_": "os.system", "embedding_std": 0.1}}, r"model\._target_=os\.system is refused"),
        (
            {"model": {"_target_": "stranger.Model", "embedding_std": 0.1}},
            "stranger is not trusted",
        ),
        ({"enhancer": {"_target_": "stranger.Model"}}, r"enhancer\._target_=stranger\.Model is refused"),
        ({"model": {"_target_": "fieldctr.models.fm.FM", "embedding_std": 0.1}}, "weight .* is absent in"),
    ],
)
def test_a_stranger_s_run_folder_runs_nothing(
    changes: dict[str, Any], words: str, home: Path, score: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its config.json names what builds the model, and its checksums are right."""
    monkeypatch.syspath_prepend(str(home))
    (home / "stranger.py").write_text(STRANGER)
    before = {path: path.read_bytes() for path in (home / "run/config.json", home / "run" / CHECKSUMS_FILE)}
    config, checksums = before
    names = json.loads(before[checksums])["files"]
    config.write_text(json.dumps(json.loads(before[config]) | changes))
    seal(home / "run", names)
    try:
        with pytest.raises(UserError, match=words):
            score("t.csv")
    finally:
        for path, data in before.items():
            path.write_bytes(data)
    assert not (home / "ran").exists()
    assert "stranger" not in sys.modules

"""The test split: sealed in a trial of a search, and its reads told to a ledger."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cheaters
import numpy as np
import pytest

from fieldctr import UserError, compose, evaluate, load_run, train
from fieldctr.commands.stored import run_folders, stage_folders
from fieldctr.data.test_reads import SealedSplit, ledger, note_test_read, read_often, sealed_test
from fieldctr.data.test_reads import test_reads as reads_of_test

WORDS = [
    *("dataset=synthetic", "dataset.source.rows=3000", "model=lr", "embedding_dim=2", "tracker=none"),
    *("trainer.max_epochs=1", "runtime.threads=1"),
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reads") / "o"


@pytest.fixture(scope="module")
def final(outputs: Path) -> Path:
    """A run that was evaluated on test."""
    return trained(outputs, "final")


@pytest.fixture(scope="module")
def trial(outputs: Path, final: Path) -> Path:
    """A trial: the same without test."""
    return trained(outputs, "trial", "evaluate_test=false")


def trained(outputs: Path, name: str, *words: str) -> Path:
    folder = outputs / "train" / name
    train(compose("train", [*WORDS, f"outputs={outputs}", *words]), folder=folder)
    return folder


def table_of(outputs: Path, run: Path) -> Path:
    return outputs / "data" / json.loads((run / "result.json").read_text())["data_digest"]


def test_a_trial_leaves_no_number_of_test(final: Path, trial: Path) -> None:
    whole, part = (json.loads((run / "result.json").read_text()) for run in (final, trial))
    assert part["valid"] == whole["valid"]
    assert "test" in whole
    assert not {"test"} & (part.keys() | part["num_rows"].keys())
    assert not list(trial.glob("test.*"))
    assert list(final.glob("test.scores.npy"))
    assert not any("test/" in line for line in (trial / "metrics.jsonl").read_text().splitlines())
    assert load_run(trial).metrics.keys() == {"valid"} == load_run(trial).scores.keys()


def test_a_trial_is_never_evaluated_on_test(outputs: Path, trial: Path) -> None:
    with pytest.raises(UserError, match="trial of a search"):
        load_run(trial).evaluate("test")
    with pytest.raises(UserError, match="trial of a search"):
        evaluate(compose("evaluate", [f"run={trial}", f"outputs={outputs}"]))
    assert load_run(trial).evaluate("valid")["auc"] == pytest.approx(load_run(trial).metrics["valid"]["auc"], abs=1e-6)


@pytest.mark.parametrize("way", cheaters.WAYS)
def test_a_cheater_in_a_trial_cannot_open_the_split(
    outputs: Path, final: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cheaters, "TABLE", str(table_of(outputs, final)))
    monkeypatch.setattr(cheaters.Cheat, "way", way)
    config = compose(
        "train",
        [*WORDS, f"outputs={outputs}", "evaluate_test=false", "trainer.extra_metrics=[cheaters.Cheat]"],
        trust="cheaters",
    )
    with pytest.raises(UserError, match="test split is sealed"):
        train(config, folder=outputs / "train" / f"cheat {way}")
    assert "sealed" in (outputs / "train" / f"cheat {way}" / "error.txt").read_text()
    cheaters.WAYS["np.load"](table_of(outputs, final) / "test.label.npy")  # afterwards it is open again


@pytest.mark.parametrize(
    "ask",
    [len, lambda split: split.label, lambda split: split.take(slice(2)), lambda split: split.pctr],
    ids=["rows", "labels", "rows of it", "click probability"],
)
def test_a_sealed_split_answers_nothing(ask: Callable[[Any], object]) -> None:
    with pytest.raises(UserError, match="sealed"):
        ask(SealedSplit())


def test_the_seal_closes_the_whole_dataset_and_only_for_a_while(outputs: Path, final: Path) -> None:
    dataset = load_run(final).dataset
    with sealed_test(dataset) as sealed:
        assert len(sealed.valid) == len(dataset.valid)
        np.load(dataset.folder / "valid.label.npy")
        for name in ("label", "ids", "pctr"):
            with pytest.raises(UserError, match="sealed"):
                np.load(dataset.folder / f"test.{name}.npy")
    assert len(np.load(dataset.folder / "test.label.npy")) == len(dataset.test)


def test_each_evaluation_on_test_is_in_the_ledger(outputs: Path, final: Path, trial: Path) -> None:
    table = table_of(outputs, final)
    before = reads_of_test(table)
    assert (before[0]["command"], before[0]["run"]) == ("train", str(final.resolve()))
    assert str(trial.resolve()) not in {entry["run"] for entry in before}
    load_run(final).evaluate("test")
    load_run(final).evaluate("valid")
    after = reads_of_test(table)
    assert [entry["command"] for entry in after[len(before) :]] == ["evaluate"]
    runs, configurations = read_often(table)
    assert (runs, configurations) == (1, 1)  # evaluating a run again shows nothing new
    other = trained(outputs, "other", "seed=2")
    assert read_often(table) == (2, 2)
    assert reads_of_test(table)[-1]["config_digest"] == json.loads((other / "result.json").read_text())["config_digest"]


def test_tables_of_the_same_test_rows_share_the_ledger(outputs: Path, final: Path) -> None:
    fewer = trained(outputs, "fewer", "~dataset.fields.pid")
    assert table_of(outputs, fewer) != table_of(outputs, final)
    assert ledger(table_of(outputs, fewer)) == ledger(table_of(outputs, final))
    elsewhere = trained(outputs, "elsewhere", "dataset.source.seed=8")
    assert ledger(table_of(outputs, elsewhere)) != ledger(table_of(outputs, final))


def test_the_ledger_is_no_stage_and_no_run(outputs: Path, final: Path) -> None:
    path = ledger(table_of(outputs, final))
    assert path.exists()
    assert path not in (*stage_folders(outputs), *run_folders(outputs, None))


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.mkdir()
    np.save(table / "test.label.npy", np.ones(3, np.float32))
    note_test_read(table, command="train", run=tmp_path / "a", config_digest="1")
    path = ledger(table)
    path.write_bytes(path.read_bytes() + b'{"run": "b')
    note_test_read(table, command="train", run=tmp_path / "c", config_digest="2")
    assert [entry["config_digest"] for entry in reads_of_test(table)] == ["1", "2"]


def test_a_ledger_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table"
    table.mkdir()
    np.save(table / "test.label.npy", np.ones(3, np.float32))
    ledger(table).mkdir()
    note_test_read(table, command="train", run=None, config_digest="1")
    assert "not in the ledger" in capsys.readouterr().err

"""The page of a run in the terminal."""

import json
import shutil
from pathlib import Path

import pytest

from fieldctr.commands.show import main, page, summary, table
from fieldctr.errors import UserError


def test_the_page_of_a_run_says_what_its_files_do(trained: Path, calls: object, tmp_path: Path) -> None:
    run = trained / "r"
    text = "\n".join(page(run, f"{trained.parent}/conf"))
    result = json.loads((run / "result.json").read_text())
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [line.split() for line in text.splitlines()]
    assert ["optimizer.lr", "0.5", "(default", "0.02)"] in rows
    assert ["test", *(f"{result['test'][name]:.4f}" for name in ("auc", "logloss", "gauc", "ne", "ece"))] in rows
    for record in history:
        mark = "*" * (record["step"] == result["best_step"])
        assert any(row[:1] == [f"{record['step']}{mark}"] and f"{record['valid/auc']:.4f}" in row for row in rows)
    assert "learning.png" in text
    assert text.startswith("lr on mini, seed 1: test AUC ")
    assert summary(result | {"enhancer": "kar"}, run).startswith("lr with kar on mini, seed 1: test AUC ")
    assert "optimizer.lr=0.5" in next(line for line in text.splitlines() if line.startswith("made "))
    assert "no defaults to compare with: dataset=mini" in "\n".join(page(run))


def test_a_run_that_has_not_finished_says_why_and_how_to_go_on(trained: Path, tmp_path: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "run.json"):
        shutil.copy(trained / "r" / name, tmp_path)
    first = next(page(tmp_path))
    assert first.endswith(f"has not finished: killed, or still running. Go on: resume=true hydra.run.dir={tmp_path}")
    (tmp_path / "error.txt").write_text("Traceback\nValueError: boom\n")
    assert "ValueError: boom" in next(page(tmp_path))


@pytest.mark.parametrize("words", [(), ("a", "b"), ("--all",), ("split=test",)])
def test_a_wrong_call_says_the_right_one(words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="usage: fieldctr show RUN"):
        main(*words)
    with pytest.raises(UserError, match="no run folder"):
        main("nowhere")


def test_columns_of_a_table_stand_below_each_other() -> None:
    assert list(table([("", "AUC"), ("valid", "0.7")])) == ["         AUC", "  valid  0.7"]

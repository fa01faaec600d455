"""A run's folder: result.json if and only if the run finished; nothing lost, nothing mixed."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from fieldctr import runs
from fieldctr.errors import UserError
from fieldctr.runs import Run, config_digest, finished, load_config, load_result

CONFIG: dict[str, Any] = {"seed": 1, "trainer": {"lr": 0.1}, "tracker": {"name": "none"}, "resume": False}
RESULT = {"valid": {"auc": 0.71}, "test": {"auc": 0.72}}


def test_a_finished_run_can_be_found_by_its_configuration(tmp_path: Path) -> None:
    with Run.start(tmp_path, CONFIG, resume=False) as run:
        assert finished(tmp_path, CONFIG) is None
        run.finish(RESULT)
    result = finished(tmp_path, CONFIG | {"tracker": {"name": "wandb"}, "resume": True})
    assert result is not None
    assert result["test"]["auc"] == 0.72
    assert result["config_digest"] == config_digest(CONFIG)
    assert {"torch", "python", "fieldctr"} <= set(result["versions"])
    assert finished(tmp_path, CONFIG | {"seed": 2}) is None


def test_a_failure_leaves_its_traceback_and_no_result(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Run.start(tmp_path, CONFIG, resume=False):
        _ = 1 / 0
    assert "ZeroDivisionError" in (tmp_path / "error.txt").read_text()
    assert not (tmp_path / "result.json").exists()
    Run.start(tmp_path, CONFIG, resume=True)
    assert not (tmp_path / "error.txt").exists()


def test_a_second_run_in_the_folder_moves_the_first_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        Run.start(tmp_path, CONFIG, resume=False).finish({"number": number})
        (tmp_path / "evaluate-valid.json").write_text(str(number))
        (tmp_path / "notes.txt").touch()
    assert (tmp_path / "earlier-1/evaluate-valid.json").read_text() == "0"
    assert not (tmp_path / "earlier-1/notes.txt").exists()
    kept = [json.loads((tmp_path / f"earlier-{n}/result.json").read_text())["number"] for n in (1, 2)]
    assert kept == [0, 1]
    assert json.loads((tmp_path / "result.json").read_text())["number"] == 2
    assert "earlier-2" in capsys.readouterr().err


def test_numbers_of_earlier_runs_go_on_behind_a_hole(tmp_path: Path) -> None:
    for name in ("earlier-1", "earlier-7", "earlier-x", "earlier-"):
        (tmp_path / name).mkdir(parents=True)
    Run.start(tmp_path, CONFIG, resume=False).finish(RESULT)
    Run.start(tmp_path, CONFIG, resume=False)
    assert (tmp_path / "earlier-8/result.json").exists()


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("moved", range(5))
def test_a_move_that_was_cut_short_is_finished_first(
    moved: int, resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other settings too: nothing of the earlier run answers for the new one."""
    run = Run.start(tmp_path, CONFIG, resume=False)
    run.log({"step": 1})
    run.finish(RESULT)
    run.release()
    real, count = Path.rename, 0

    def cut(self: Path, to: Path) -> Path:
        nonlocal count
        count += 1
        if count > moved:
            raise KeyboardInterrupt
        return real(self, to)

    monkeypatch.setattr(Path, "rename", cut)
    with pytest.raises(KeyboardInterrupt):
        Run.start(tmp_path, CONFIG | {"seed": 2}, resume=False)
    monkeypatch.undo()
    assert finished(tmp_path, CONFIG | {"seed": 2}) is None
    Run.start(tmp_path, CONFIG | {"seed": 2}, resume=resume)
    assert load_result(tmp_path / "earlier-1")["test"]["auc"] == 0.72
    assert load_config(tmp_path)["seed"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "earlier-1", "run.json"]


@pytest.mark.parametrize("name", ["result.json", "config.json", "checksums.json"])
@pytest.mark.parametrize("damage", [b"", b"[]", b'{"test": {"auc": 0.99}}\n', b"\xff", b"[" * 100_000])
def test_a_damaged_result_is_a_sentence_and_is_not_used(name: str, damage: bytes, tmp_path: Path) -> None:
    run = tmp_path / "0_run"
    Run.start(run, CONFIG, resume=False).finish(RESULT)
    (run / name).write_bytes(damage)
    for use in (lambda: finished(run, CONFIG), lambda: load_result(run)):
        with pytest.raises(UserError, match=rf"{name} is damaged.*(copy|anew)"):
            use()


def test_a_run_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    Run.start(tmp_path, CONFIG, resume=False).finish(RESULT)
    result = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "checksums.json").unlink()
    with pytest.raises(UserError, match=r"checksums\.json is missing"):
        load_result(tmp_path)
    del result["sealed"]
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert load_result(tmp_path)["test"] == RESULT["test"]


def test_a_run_s_folder_is_one_process_s_alone(tmp_path: Path) -> None:
    """Two calls that resume the same sweep must not write into one metrics.jsonl."""
    with Run.start(tmp_path, CONFIG, resume=False) as run:
        run.log({"step": 1})
        for resume in (True, False):
            with pytest.raises(UserError, match="being made by another process"):
                Run.start(tmp_path, CONFIG, resume=resume)
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    with pytest.raises(ZeroDivisionError), Run.start(tmp_path, CONFIG, resume=True):
        _ = 1 / 0
    Run.start(tmp_path, CONFIG, resume=True)


def test_resume_refuses_another_configuration(tmp_path: Path) -> None:
    Run.start(tmp_path, CONFIG, resume=False)
    with pytest.raises(UserError, match=r"trainer\.lr=0\.2 \(was 0\.1\)"):
        Run.start(tmp_path, CONFIG | {"trainer": {"lr": 0.2}}, resume=True)
    assert load_config(tmp_path) == CONFIG


def test_a_run_of_before_a_key_is_the_run_at_what_that_key_now_says(tmp_path: Path) -> None:
    now = CONFIG | {"trainer": {"lr": 0.1, "grace_steps": 100}, "optimizer": {"base_width": 16}}
    assert config_digest(now) == config_digest(CONFIG)
    Run.start(tmp_path, CONFIG, resume=False).finish(RESULT)
    assert finished(tmp_path, now) is not None
    Run.start(tmp_path, now, resume=True)
    for node, key, then in (("trainer", "grace_steps", 100), ("optimizer", "base_width", 16)):
        other = now | {node: now[node] | {key: 7}}
        assert config_digest(other) != config_digest(now)
        with pytest.raises(UserError, match=rf"{node}\.{key}=7 \(was {then}\)"):
            Run.start(tmp_path, other, resume=True)


def test_a_field_without_keys_counts(tmp_path: Path) -> None:
    """`~dataset.fields.user` is another table: its result must not pass for that of the whole one."""
    whole = CONFIG | {"dataset": {"fields": {"user": {}, "item": {}, "hour": None}}}
    for fewer in ({"item": {}, "hour": None}, {"user": {}, "item": {}}):
        assert config_digest(whole) != config_digest(CONFIG | {"dataset": {"fields": fewer}})
    Run.start(tmp_path, whole, resume=False).finish(RESULT)
    part = CONFIG | {"dataset": {"fields": {"user": {}, "item": {}}}}
    assert finished(tmp_path, part) is None
    with pytest.raises(UserError, match=r"dataset\.fields\.hour=absent \(was None\)"):
        Run.start(tmp_path, part, resume=True)


def test_what_cannot_be_noted_of_a_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table, real = Run.start(tmp_path / "run", CONFIG, resume=False), tmp_path / "table", Path.open
    table.mkdir()

    def refuse(self: Path, mode: str = "r", **named: Any) -> Any:
        if self.parent == table:
            raise OSError(errno.EROFS, "no", str(self))
        return real(self, mode, **named)

    monkeypatch.setattr(Path, "open", refuse)
    run.reads([table])
    assert "the file system is read-only. `fieldctr clean` by its owner cannot know" in capsys.readouterr().err


def test_a_failure_that_cannot_be_written_down_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    run = Run.start(tmp_path, CONFIG, resume=False)
    monkeypatch.setattr(runs, "write_text", full)
    with pytest.raises(ZeroDivisionError), run:
        _ = 1 / 0
    assert "error.txt: the disk is full" in capsys.readouterr().err


def test_metrics_are_appended_and_rewritten_whole(tmp_path: Path) -> None:
    run = Run.start(tmp_path, CONFIG, resume=False)
    run.log({"step": 1})
    run.log({"step": 2})
    run.rewrite_metrics([{"step": 1}])
    run.log({"step": 2})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_folder_without_a_run_is_named() -> None:
    with pytest.raises(UserError, match="no run folder"):
        load_config(Path("nowhere"))

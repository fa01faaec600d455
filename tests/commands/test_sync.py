"""`fieldctr sync`: a mirror is made of what a run's folder holds, whatever became of the one before."""

import json
from pathlib import Path
from typing import Any

import pytest
from mirrored import read_offline

from fieldctr import tracking
from fieldctr.commands import sync
from fieldctr.config import TrackerConfig, flat
from fieldctr.errors import UserError
from fieldctr.runs import config_digest
from fieldctr.tracking import Tracker

STEPS = (10, 20, 30, 40)
TRACKER = {"name": "wandb", "project": "p", "mode": "offline", "group": "made", "tags": ["fat"]}


def write_run(folder: Path, *, tracker: dict[str, Any] = TRACKER, trial: bool = False) -> dict[str, Any]:
    """A finished run; gives its configuration."""
    folder.mkdir(parents=True)
    config = {"seed": 1, "tracker": tracker, "model": {"name": "fat", "layers": 2, "extra": {}}}
    result = {"valid": {"auc": 0.7}, "test": {"auc": 0.71, "logloss": 0.5}, "config_digest": config_digest(config)}
    if trial:
        del result["test"]
    lines = [{"step": step, "train_loss": 1 / step, "valid/auc": 0.7 - 1 / step} for step in STEPS]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text(json.dumps(result))
    return config


def call(runs: Path, **changes: Any) -> None:
    node = {"data_root": "", "outputs": "", "runs": str(runs), "mode": None, "project": None, "group": None}
    sync.main(node | changes)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the client's own
def test_what_a_tracker_that_died_did_not_take_is_there_after_a_sync_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/fat_seed1"
    config = write_run(run)
    metrics = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text(f"{metrics[0]}\n")
    live = Tracker(TrackerConfig(**TRACKER), run, run.name, config)
    live.log(json.loads(metrics[0]), step=STEPS[0])
    assert live.mirror is not None
    monkeypatch.setattr(live.mirror, "log", lambda *_: 1 / 0)
    live.log(json.loads(metrics[1]), step=STEPS[1])
    assert live.failed
    (run / "metrics.jsonl").write_text("\n".join(metrics) + "\n")

    call(run)
    call(run)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["synced", "is"]
    (found,) = read_offline(run)
    assert (found.run_id, found.group, found.tags) == (tracking.identity(run, config), "made", ["fat"])
    assert [found.history[step]["valid/auc"] for step in STEPS] == [0.7 - 1 / step for step in STEPS]
    assert found.summary["test/auc"] == 0.71
    assert found.config | flat(config) == found.config
    assert found.config["model.layers"] == 2


class Recorded:
    """In the place of W&B."""

    made: list[tuple[Any, ...]] = []  # noqa: RUF012  of the class, as nobody else sees an instance

    def __init__(self, *start: Any) -> None:
        self.start = start

    def finish(self, *given: Any) -> None:
        self.made.append((*self.start, *given))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    monkeypatch.setattr(tracking, "WandbMirror", Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    return Recorded.made


def test_a_call_may_say_otherwise_than_the_run_and_then_it_is_made_anew(
    tmp_path: Path, made: list[tuple[Any, ...]]
) -> None:
    write_run(tmp_path / "a", tracker=TRACKER | {"name": "none"})
    write_run(tmp_path / "b", trial=True)
    (tmp_path / "a/attention.png").write_bytes(b"x")
    call(tmp_path)
    call(tmp_path)
    assert [(one[1].name, one[4]) for one in made] == [
        ("a", {"valid/auc": 0.7, "test/auc": 0.71, "test/logloss": 0.5}),
        ("b", {"valid/auc": 0.7}),
    ]
    assert made[0][5] == {"attention": tmp_path / "a/attention.png"}
    call(tmp_path, mode="online", project="q")
    assert [(one[0].name, one[0].mode, one[0].project, one[0].group) for one in made[2:]] == [
        ("wandb", "online", "q", "made")
    ] * 2


def test_a_run_whose_mirror_fails_is_named_and_not_taken_for_mirrored(
    tmp_path: Path, made: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a")
    with monkeypatch.context() as broken:
        broken.setattr(Recorded, "finish", lambda *_: 1 / 0)
        with pytest.raises(SystemExit, match="1"):
            call(tmp_path)
    assert "failed" in capsys.readouterr().out
    call(tmp_path)
    assert len(made) == 1


def test_what_has_not_finished_is_left_out(tmp_path: Path, made: list[tuple[Any, ...]]) -> None:
    write_run(tmp_path / "a")
    (tmp_path / "a/result.json").unlink()
    with pytest.raises(UserError, match="none of its 1 runs has finished"):
        call(tmp_path)
    assert not made

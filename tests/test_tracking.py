"""Mirrors: the real clients, offline; and what happens when one fails."""

import os
import signal
import time
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from fieldctr import tracking
from fieldctr.analysis.plots import Words, heatmap, save
from fieldctr.config import TrackerConfig
from fieldctr.signals import Interrupted
from fieldctr.tracking import Tracker


def tracker(name: str, folder: Path) -> Tracker:
    config = TrackerConfig(name=name, project="test", mode="offline", group=None, tags=[])  # type: ignore[arg-type]
    return Tracker(config, folder, "a run", {"seed": 1})


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the client's own
def test_wandb_runs_offline_without_account_prompt_or_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    began = time.monotonic()
    mirror = tracker("wandb", tmp_path)
    mirror.log({"valid/auc": 0.7}, step=10)
    picture = save(heatmap(["a", "b"], np.eye(2), "pairs", Words("a", "b", "c")), tmp_path / "pairs")
    mirror.finish({"test/auc": 0.71}, {"field_pairs": picture})
    recorded = list(tmp_path.rglob("*.wandb"))
    assert len(recorded) == 1
    while b"field_pairs" not in recorded[0].read_bytes():  # its service writes on after the run has ended
        assert time.monotonic() - began < 1800
        time.sleep(0.2)
    assert "WANDB_DIR" not in os.environ


def test_tensorboard_writes_its_event_file(tmp_path: Path) -> None:
    mirror = tracker("tensorboard", tmp_path)
    mirror.log({"valid/auc": 0.7}, step=10)
    mirror.finish({"test/auc": 0.71})
    content = next((tmp_path / "tensorboard").iterdir()).read_bytes()
    assert b"valid/auc" in content
    assert b"final/test/auc" in content


def test_tensorboard_shows_the_pictures(tmp_path: Path) -> None:
    picture = save(heatmap(["a", "b"], np.eye(2), "pairs", Words("a", "b", "c")), tmp_path / "pairs")
    tracker("tensorboard", tmp_path).finish({}, {"field_pairs": picture})
    content = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"field_pairs" in content
    assert picture.read_bytes() in content


def test_a_failing_tracker_is_said_once_and_never_ends_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = tracker("tensorboard", tmp_path)
    mirror.log({"a": 1.0}, step=1)
    monkeypatch.setattr(mirror.mirror, "log", lambda *_: 1 / 0)
    mirror.log({"a": 1.0}, step=2)
    mirror.log({"a": 1.0}, step=3)
    mirror.finish({})
    assert capsys.readouterr().err.count("tracker failed") == 1


def test_a_run_that_fails_closes_its_mirror_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = []
    mirror = tracker("tensorboard", tmp_path)
    mirror.log({"a": 1.0}, step=1)
    monkeypatch.setattr(mirror.mirror, "finish", lambda summary, pictures, exit_code: codes.append(exit_code))
    with pytest.raises(ValueError, match="boom"), mirror:
        raise ValueError("boom")
    assert codes == [1]


def test_a_tracker_does_not_hold_a_run_that_a_signal_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service that waits for a network that is down would wait for the end of the process."""
    codes, down = [], Event()

    def finish(summary: object, pictures: object, exit_code: int) -> None:
        codes.append(exit_code)
        down.wait()

    mirror = tracker("tensorboard", tmp_path)
    mirror.log({"a": 1.0}, step=1)
    monkeypatch.setattr(mirror.mirror, "finish", finish)
    monkeypatch.setattr(tracking, "CLOSING_S", 0.01)
    with pytest.raises(Interrupted), mirror:
        raise Interrupted(signal.SIGTERM)
    down.set()
    assert codes == [1]
    assert "left behind" in capsys.readouterr().err


def test_none_writes_nothing(tmp_path: Path) -> None:
    mirror = tracker("none", tmp_path)
    mirror.log({"a": 1.0}, step=1)
    mirror.finish({})
    assert not list(tmp_path.iterdir())

"""Plain lines when redirected, a bar on a terminal, and no loss read that is not shown."""

import io
import sys

import pytest

from fieldctr.training import progress as p

RECORD = {"epoch": 0.5, "step": 5, "train_loss": 0.61, "valid/auc": 0.7123, "valid/logloss": 0.59}


def unread() -> float:
    raise AssertionError("the loss was read")


def test_a_redirected_run_prints_one_line_for_each_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    with p.Progress(total_steps=10, step=0, batch_size=4) as progress:
        for step in range(1, 6):
            progress.tick(step, step / 10, unread)
        progress.evaluated(RECORD, better=True)
    assert capsys.readouterr().err == "epoch 0.50  step 5  loss 0.6100  valid auc 0.7123  valid logloss 0.5900 *\n"


def test_a_long_run_also_prints_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([100.0, 110.0, 140.0])
    monkeypatch.setattr(p.time, "monotonic", lambda: next(now))
    with p.Progress(total_steps=100, step=10, batch_size=4) as progress:
        progress.tick(20, 0.2, unread)
        progress.tick(50, 0.5, lambda: 0.6543)
    assert capsys.readouterr().err == "step 50/100  epoch 0.50  loss 0.6543  4 samples/s  at most 50 s left\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(p, "BAR_INTERVAL_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with p.Progress(total_steps=10, step=0, batch_size=4) as progress:
        progress.tick(3, 0.3, lambda: 0.6)
        progress.evaluated(RECORD, better=False)
    shown = terminal.getvalue()
    assert "3/10" in shown
    assert "loss 0.6000" in shown
    assert "valid auc 0.7123" in shown

"""What SIGTERM, SIGHUP and SIGINT do to a command: a sentence, an exit code, and a call that goes on."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from calls import Calls
from hydra.core.override_parser.overrides_parser import OverridesParser

from fieldctr import signals
from fieldctr.errors import UserError
from fieldctr.signals import SIGNALS, Interrupted
from fieldctr.training import checkpoint

ROOT = Path(__file__).parents[1]
TABLE = ["dataset=synthetic", "dataset.source.rows=6000", "dataset.source.users=300"]
TRAIN = [
    "train",
    *TABLE,
    "trainer.max_epochs=2",
    "trainer.batch_size=256",
    "trainer.evals_per_epoch=2",
    "tracker=none",
    "runtime.matmul=mkl",
]
SAVE, SHARD = "fieldctr.training.checkpoint:save", "fieldctr.data.shards:_Writer.finish"


@pytest.fixture(autouse=True)
def _the_old_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    yield
    for number, action in before.items():
        signal.signal(number, action)
    with signals.handled():  # forgets what it heard
        pass


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_at_once_or_where_it_was_put_off_to(number: signal.Signals) -> None:
    reached = []

    def step(*, last: bool) -> None:
        with signals.deferred():
            signal.raise_signal(number)
            reached.append("step")
            if not last:
                signals.check()
                reached.append("next step")

    for action in (lambda: signal.raise_signal(number), lambda: step(last=False), lambda: step(last=True)):
        with pytest.raises(Interrupted, match=number.name), signals.handled():
            action()
    assert reached == ["step", "step"]


def refused_at_a_signal() -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    except Interrupted as error:
        raise UserError("the table cannot be read") from error


def failed_after_a_signal() -> None:
    with contextlib.suppress(ValueError), signals.deferred():  # as a sweep goes on after a failed job
        signal.raise_signal(signal.SIGTERM)
        raise ValueError


def test_what_a_library_makes_of_a_signal_is_an_interruption() -> None:
    with pytest.raises(Interrupted, match="SIGINT"), signals.handled():
        raise KeyboardInterrupt
    for action in (refused_at_a_signal, failed_after_a_signal):
        with pytest.raises(Interrupted, match="SIGTERM"), signals.handled():
            action()
    with pytest.raises(UserError), signals.handled():
        raise UserError("nothing of signals")


@pytest.mark.parametrize("number", SIGNALS)
def test_an_ignored_signal_stays_ignored_and_handlers_are_put_back(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    before = [signal.getsignal(one) for one in SIGNALS]
    with signals.handled():
        signal.raise_signal(number)
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_signals_that_a_library_took_are_taken_back() -> None:
    def as_ray_does() -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        signals.retake()
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), signals.handled():
        as_ray_does()


@pytest.mark.parametrize(("second", "echo_s", "ends"), [("HUP", 1e9, True), ("TERM", -1.0, True), ("TERM", 1e9, False)])
def test_a_second_signal_ends_the_process_and_an_echo_does_not(second: str, echo_s: float, ends: bool) -> None:
    program = f"""
import signal
from fieldctr import signals
signals.ECHO_S = {echo_s}
try:
    with signals.handled(), signals.deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIG{second})
except signals.Interrupted as stop:
    assert stop.signum == signal.SIGTERM
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == (128 + getattr(signal, f"SIG{second}") if ends else 0), done.stderr
    assert ("the second signal" in done.stderr) == ends


@pytest.mark.parametrize(
    "folder",
    ["outputs/train/2026-11-30_09-20-37_a_b_seed1", "/a b/c", "it's", "1e3", "x,y", "a=b", "(1) [2] {3}", "ä", "-"],
)
def test_the_call_that_goes_on_can_be_pasted(folder: str) -> None:
    stop = Interrupted(signal.SIGTERM)
    stop.kept, stop.go_on = " at step 1", {"hydra.run.dir": folder, "resume": "true"}
    mine = ["train", "-m", "--config-dir", "my conf", "model=lr,fm", "+resume=false", "hydra.run.dir=old", "tag='a b'"]
    name, *words = shlex.split(stop.sentence(mine).partition("Go on: ")[2])
    assert name == "fieldctr"
    assert words[:-2] == [word for word in mine if "resume" not in word and "hydra" not in word]
    where, resume = OverridesParser.create().parse_overrides(words[-2:])
    assert (where.key_or_group, str(where.value()), resume.value()) == ("hydra.run.dir", folder, True)


def call(
    calls: Calls, folder: Path, arguments: list[str], number: int = 0, function: str = SAVE, times: int = 1
) -> int:
    """The exit code of a call that gets the signal, if any, behind a function's n-th return; it said said.txt."""
    fault = {"kind": "signal", "number": number, "function": function, "times": times} if number else None
    code, said = calls(folder, *arguments, fault=fault, say=folder / "said.txt")
    assert "Traceback" not in said
    return code


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, calls: Calls) -> Path:
    """A folder with an undisturbed run in `whole`."""
    home = tmp_path_factory.mktemp("signals")
    assert call(calls, home, [*TRAIN, "model=fm", "hydra.run.dir=whole"]) == 0
    return home


def told(folder: Path, number: signal.Signals) -> tuple[str, list[str]]:
    """What the last line says of an interrupted call, and how it goes on."""
    said, _, call = (folder / "said.txt").read_text().splitlines()[-1].partition(" Go on: ")
    assert said.startswith(f"fieldctr: stopped by {number.name}")
    return said, shlex.split(call)[1:]


def leavings(run: Path) -> list[object]:
    """All that a run computed."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    plain = [{key: value for key, value in record.items() if key != "seconds"} for record in records]
    results = json.loads((run / "result.json").read_text())
    same = ("valid", "test", "best_step", "stopped", "samples")
    files = [(run / name).read_bytes() for name in ("model.safetensors", "valid.scores.npy", "test.scores.npy")]
    return [plain, *(results[key] for key in same), *files]


@pytest.mark.slow
def test_stopped_by_each_signal_in_turn_the_calls_that_it_names_end_undisturbed(home: Path, calls: Calls) -> None:
    arguments = [*TRAIN, "model=fm", "hydra.run.dir=the run", "resume=false"]
    for number in SIGNALS:
        assert call(calls, home, arguments, number) == 128 + number
        said, arguments = told(home, number)
        step = checkpoint.newest(home / "the run")
        assert f"at step {step:,}; a checkpoint of it is in the run." in said
        assert (home / "the run/error.txt").read_text() == f"interrupted by {number.name}\n"
        assert not list((home / "the run").rglob(".*"))
    assert call(calls, home, arguments) == 0
    assert leavings(home / "the run") == leavings(home / "whole")
    assert not (home / "the run/error.txt").exists()


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_in_the_job_of_that_moment(home: Path, calls: Calls) -> None:
    arguments = [*TRAIN, "-m", "model=lr,fm,dnn"]
    assert call(calls, home, arguments, signal.SIGTERM, times=6) == 128 + signal.SIGTERM
    said, again = told(home, signal.SIGTERM)
    assert "at step" in said
    assert "synthetic_fm_seed1" in said
    assert again[: len(arguments)] == arguments
    statuses = [
        line.split()[1] for line in (home / "said.txt").read_text().splitlines() if line.startswith("synthetic_")
    ]
    assert statuses == ["done", "interrupted"]
    (sweep,) = [path.parent for path in home.glob("outputs/train/*/synthetic_lr_seed1")]
    before = (sweep / "synthetic_lr_seed1/result.json").stat().st_mtime_ns
    assert call(calls, home, again) == 0
    assert (sweep / "synthetic_lr_seed1/result.json").stat().st_mtime_ns == before
    assert leavings(sweep / "synthetic_fm_seed1") == leavings(home / "whole")
    assert (sweep / "synthetic_dnn_seed1/result.json").exists()
    assert not list(home.glob("outputs/train/*/*/earlier-*"))


@pytest.mark.slow
def test_prepare_goes_on_behind_what_it_read(home: Path, calls: Calls) -> None:
    arguments = ["prepare", *TABLE, "outputs=other"]
    assert call(calls, home, arguments, signal.SIGHUP, SHARD) == 128 + signal.SIGHUP
    _, again = told(home, signal.SIGHUP)
    assert again == arguments
    assert call(calls, home, again) == 0
    assert "goes on behind the 6,000 rows" in (home / "said.txt").read_text()
    (whole,), (table,) = (list(home.glob(f"{outputs}/data/[!.]*/")) for outputs in ("outputs", "other"))
    assert table.name == whole.name
    assert all((table / path.name).read_bytes() == path.read_bytes() for path in whole.glob("*.npy"))
    assert not list(table.parent.glob(".*.*"))


@pytest.mark.slow
def test_a_run_that_is_stopped_before_a_checkpoint_says_so(home: Path, calls: Calls) -> None:
    arguments = [*TRAIN, "model=fm", "hydra.run.dir=early", "outputs=third"]
    assert call(calls, home, arguments, signal.SIGINT, SHARD) == 128 + signal.SIGINT
    said, again = told(home, signal.SIGINT)
    assert said == "fieldctr: stopped by SIGINT before its first checkpoint in early."
    assert call(calls, home, again) == 0
    assert leavings(home / "early") == leavings(home / "whole")


@pytest.mark.slow
def test_what_cannot_go_on_is_called_again(home: Path, calls: Calls) -> None:
    arguments = ["evaluate", "run=whole", "split=valid"]
    assert call(calls, home, arguments, signal.SIGTERM, "fieldctr.data.dataset:Dataset.load") == 128 + signal.SIGTERM
    assert (home / "said.txt").read_text() == (
        "fieldctr: stopped by SIGTERM; nothing is half-written. Again: fieldctr evaluate run=whole split=valid\n"
    )
    assert not (home / "whole/evaluate-valid.json").exists()


def test_every_command_is_told_of_signals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from fieldctr import cli

    def stopped(*_: str) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(cli, "run", stopped)
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(sys, "argv", ["fieldctr", "doctor"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 143
    assert capsys.readouterr().err == "fieldctr: stopped by SIGTERM; nothing is half-written. Again: fieldctr doctor\n"

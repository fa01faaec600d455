"""kill -9 at ten random moments, resume each time, and the weights are those of an undisturbed run, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROGRAM, ROOT = Path(__file__).with_name("planted.py"), Path(__file__).parents[2]
WEIGHTS, KILLS = "weights.safetensors", 10


class Fits:
    """planted.py as a server of fits, one at a time."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self.server = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def start(self, folder: Path, update: str) -> int:
        """The process id of a fit in `folder`."""
        folder.mkdir(exist_ok=True)
        assert self.server.stdin
        self.server.stdin.write(f"{folder} {update}\n")
        self.server.stdin.flush()
        return self.answer()

    def answer(self) -> int:
        assert self.server.stdout
        return int(self.server.stdout.readline())


@pytest.fixture(scope="module")
def fits() -> Iterator[Fits]:
    fits = Fits()
    yield fits
    fits.server.communicate()


def newest(folder: Path) -> int:
    steps = [int(path.name.removeprefix("step-")) for path in (folder / "checkpoint").glob("step-*")]
    return max(steps, default=0)


def kill_past(pid: int, folder: Path, step: int) -> None:
    """Kill the fit up to 20 ms, several steps, after it has saved one past `step`."""
    deadline = time.monotonic() + 60
    while newest(folder) <= step and not (folder / WEIGHTS).exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)  # the server has not reaped it: the id is still its own


@pytest.mark.slow
@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_killed_at_random_moments_and_resumed_is_undisturbed(fits: Fits, tmp_path: Path, update: str) -> None:
    fits.start(tmp_path / "whole", update)
    assert fits.answer() == 0
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        kill_past(fits.start(killed, update), killed, newest(killed))
        assert fits.answer() == signal.SIGKILL, "the fit ended before it was killed: make it longer"
    fits.start(killed, update)
    assert fits.answer() == 0
    whole, resumed = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

"""Kill a fit at ten random moments, resume each time, and the weights are those of an undisturbed run, bit for bit."""

import os
import random
import signal
import subprocess
import sys
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

    def start(self, folder: Path, update: str, *, seconds: float = 0.0) -> None:
        """A fit in `folder`; one that dies so many seconds after its first checkpoint, unless they are 0."""
        folder.mkdir(exist_ok=True)
        assert self.server.stdin
        self.server.stdin.write(f"{folder} {update} {seconds}\n")
        self.server.stdin.flush()

    def answer(self) -> int:
        """The exit status of the fit: 0, or the signal that ended it."""
        assert self.server.stdout
        return int(self.server.stdout.readline())


@pytest.fixture(scope="module")
def fits() -> Iterator[Fits]:
    fits = Fits()
    yield fits
    fits.server.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_killed_at_random_moments_and_resumed_is_undisturbed(fits: Fits, tmp_path: Path, update: str) -> None:
    """The kernel kills it up to 20 ms, several steps, after its first checkpoint: no load lets it get further."""
    fits.start(tmp_path / "whole", update)
    assert fits.answer() == 0
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        fits.start(killed, update, seconds=random.uniform(1e-6, 0.02))
        status = fits.answer()
        if status == 0:  # a processor so fast that the fit has come to its end
            break
        assert status == signal.SIGALRM
    fits.start(killed, update)
    assert fits.answer() == 0
    whole, resumed = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

"""kill -9 at random moments, start again, and the weights are those of an undisturbed run, bit for bit."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROGRAM, ROOT = Path(__file__).with_name("planted.py"), Path(__file__).parents[2]


def start(folder: Path, update: str) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder), update], stderr=subprocess.DEVNULL, env=environment
    )


def kill_once_past(process: subprocess.Popen[bytes], folder: Path, step: int, moments: random.Random) -> bool:
    """Kill a random moment after the first checkpoint past `step`; False if the program was faster."""
    while process.poll() is None and newest(folder) <= step:
        time.sleep(0.002)
    time.sleep(moments.uniform(0, 0.05))
    process.kill()
    process.wait()
    return not (folder / "weights.safetensors").exists()


def newest(folder: Path) -> int:
    steps = [int(path.name.removeprefix("step-")) for path in (folder / "checkpoint").glob("step-*")]
    return max(steps, default=-1)


@pytest.mark.slow
@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_killed_at_random_moments_and_resumed_is_undisturbed(tmp_path: Path, update: str) -> None:
    undisturbed = start(tmp_path / "whole", update)
    assert undisturbed.wait(timeout=120) == 0
    folder, moments, kills = tmp_path / "killed", random.Random(), 0
    for _ in range(3):
        kills += kill_once_past(start(folder, update), folder, newest(folder), moments)
    assert kills > 0
    assert start(folder, update).wait(timeout=120) == 0
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

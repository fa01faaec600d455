"""What every test gets: one torch thread, and no place to write but its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two torch threads on a busy core cost up to ten times the CPU of one


@pytest.fixture(scope="session")
def call() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the installed console script in a folder; it may fail, but never with a traceback."""
    script = Path(sys.executable).parent / "fieldctr"

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([script, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def result() -> Callable[[Path], dict[str, Any]]:
    """The result.json of a run's folder."""
    return lambda folder: json.loads((folder / "result.json").read_text())

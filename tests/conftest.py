"""What every test gets: one torch thread, few of polars, no place to write but its own, and as long as it takes.

A time limit in a test ends what hangs. No test may fail because the machine is slow or busy: none compares seconds, and
what happens to another process at a moment that matters happens in that process, or waits for it.
"""

import gc
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calls import TRAIN, Calls

from fieldctr.trust import trusted

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two torch threads on a busy core cost up to ten times the CPU of one
os.environ.setdefault("POLARS_MAX_THREADS", "2")  # each takes memory, and tests of memory know nothing of cores
HANGS_S = 1800


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through it for garbage was a sixth of the CPU time of a test in here."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def call(calls: Calls) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Do in a folder what the console script does; it may fail, but never with a traceback."""

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = calls.script(folder, *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def trust_tests() -> Iterator[None]:
    """Lets a configuration name what the tests themselves define."""
    trusted().add("tests")
    yield
    trusted().discard("tests")


@pytest.fixture(scope="session")
def until() -> Callable[[subprocess.Popen[str], Callable[[], object]], None]:
    """Wait until something is true, or the process that would make it so has ended."""

    def wait(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + HANGS_S
        while process.poll() is None and not condition():
            assert time.monotonic() < deadline
            time.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def result() -> Callable[[Path], dict[str, Any]]:
    """The result.json of a run's folder."""
    return lambda folder: json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    calls = Calls(tmp_path_factory.mktemp("faults"))
    yield calls
    calls.close()


@pytest.fixture(scope="session")
def prepared(calls: Calls) -> Path:
    """A folder in which the table is prepared."""
    home = calls.place / "prepared"
    status, said = calls(home, "prepare", "DATASET")
    assert status == 0, said
    return home


@pytest.fixture(scope="session")
def trained(calls: Calls, prepared: Path) -> Path:
    """The same with a run of other settings in r, and its pictures as they are drawn."""
    home = shutil.copytree(prepared, calls.place / "trained")
    done = calls.script(home, "train", *calls.dataset, *TRAIN, "optimizer.lr=0.5", "hydra.run.dir=r")
    assert done.returncode == 0, done.stderr
    return home


@pytest.hookimpl(trylast=True)  # behind the list of durations
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what nobody sees in a row of dots: that no test read a public table, or opened a page."""
    reasons = [str(report.longrepr[-1]) for report in terminalreporter.getreports("skipped")]
    if any("BROWSER" in reason for reason in reasons):
        terminalreporter.write_line(
            "NOT TESTED: the report's page in a browser. Without chromium and playwright nothing here shows that it "
            "sorts, opens its drawers, fits a phone and fetches nothing.",
            yellow=True,
            bold=True,
        )
    if any("TorchRec" in reason for reason in reasons):
        terminalreporter.write_line(
            "NOT TESTED: tables in shards. TorchRec has an environment of its own, which scripts/README.md says how to "
            "make. Without it nothing here shows that embedding.engine=torchrec learns what plain tables learn.",
            yellow=True,
            bold=True,
        )
    absent = sum("FIELDCTR_DATA" in reason for reason in reasons)
    if absent:
        terminalreporter.write_line(
            f"NOT TESTED: {absent} tests of public tables, which are not in the folder that FIELDCTR_DATA names. "
            "Without them nothing here shows that what was published is what is prepared.",
            yellow=True,
            bold=True,
        )

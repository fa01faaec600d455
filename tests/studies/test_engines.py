"""Engines: whatever happens to a worker, the study hears of it; none outlives the study."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fieldctr import UserError
from fieldctr.studies.engines.choose import engine as chosen
from fieldctr.studies.engines.local import Local, gpus, log_of
from fieldctr.studies.jobs import Engine, Job, Outcome
from fieldctr.studies.plan import EngineConfig

HERE = Path(__file__).parent
WORK = "workers:work"
END_S = 60.0  # a busy machine may take as long


@pytest.fixture(autouse=True)
def workers_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def local() -> Iterator[Local]:
    with Local(WORK, slots=3, gpus=()) as engine:
        yield engine


def job(folder: Path, word: str, name: str = "") -> Job:
    name = name or word
    return Job(name, folder / name, "train", (word,))


def ended(engine: Engine, count: int) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    end = time.monotonic() + END_S
    while len(found) < count:
        assert time.monotonic() < end
        found |= {outcome.job.name: outcome for outcome in engine.wait(1.0)}
    return found


def within_time(condition: Callable[[], object]) -> bool:
    """Whether it comes true before END_S are over."""
    end = time.monotonic() + END_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


def test_each_way_to_end_is_told(local: Local, tmp_path: Path) -> None:
    for word in ("good", "fail", "raise"):
        local.start(job(tmp_path, word))
    first = ended(local, 3)
    for word in ("die", "exit"):
        local.start(job(tmp_path, word))
    found = {name: (outcome.status, outcome.error) for name, outcome in (first | ended(local, 2)).items()}
    assert found == {
        "good": ("done", ""),
        "fail": ("failed", "as asked"),
        "raise": ("failed", "RuntimeError: a defect"),
        "die": ("again", "its process was killed"),
        "exit": ("again", "its process was killed"),
    }
    assert log_of(job(tmp_path, "good")).read_text() == "said by good\n"
    assert "Traceback" in log_of(job(tmp_path, "raise")).read_text()


def test_a_job_that_is_stopped_leaves_its_checkpoint_and_can_go_on(local: Local, tmp_path: Path) -> None:
    jobs = [job(tmp_path, "long", name) for name in ("a", "b")]
    for one in jobs:
        local.start(one)
    assert within_time(lambda: all((one.folder / "begun").exists() for one in jobs))
    local.stop(jobs[0])
    assert ended(local, 1).keys() == {"a"}
    assert (tmp_path / "a/checkpoint").exists()
    assert not (tmp_path / "b/checkpoint").exists()
    local.__exit__()
    assert (tmp_path / "b/checkpoint").exists()


def test_the_server_of_processes_may_die_too(local: Local, tmp_path: Path) -> None:
    local.start(job(tmp_path, "good", "first"))
    assert ended(local, 1)["first"].status == "done"
    from multiprocessing.forkserver import _forkserver  # ty: ignore[unresolved-import]

    os.kill(_forkserver._forkserver_pid, signal.SIGKILL)
    time.sleep(0.2)
    local.start(job(tmp_path, "good", "second"))
    assert ended(local, 1)["second"].status == "done"


STUDY = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from fieldctr.studies.engines.local import Local
from fieldctr.studies.jobs import Job
if __name__ == "__main__":
    with Local("workers:work", slots=2, gpus=()) as engine:
        for name in ("a", "b"):
            engine.start(Job(name, Path({folder!r}) / name, "train", ("long",)))
        while True:
            engine.wait(1.0)
"""


def test_workers_end_in_order_when_the_study_is_killed(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(STUDY.format(here=str(HERE), folder=str(tmp_path)))
    process = subprocess.Popen([sys.executable, str(tmp_path / "study.py")])
    begun = [tmp_path / name / "begun" for name in ("a", "b")]
    assert within_time(lambda: all(path.exists() and path.read_text().endswith("\n") for path in begun))
    process.kill()
    process.wait()
    assert within_time(lambda: all((tmp_path / name / "checkpoint").exists() for name in ("a", "b")))
    workers = [int(path.read_text().split()[0]) for path in begun]
    assert within_time(lambda: not any(alive(pid) for pid in workers))


def alive(pid: int) -> bool:
    """A process that has ended and that nobody has waited for is dead."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_gpus_are_slots(tmp_path: Path) -> None:
    with Local(WORK, slots=3, gpus=["0", "GPU-7"]) as engine:
        jobs = [job(tmp_path, "long", name) for name in "abc"]
        for one in jobs:
            engine.start(one)
        assert within_time(lambda: all((one.folder / "begun").exists() for one in jobs))
    seen = [(one.folder / "begun").read_text().split()[1] for one in jobs]
    assert sorted(seen) == ["0", "0", "GPU-7"]


@pytest.mark.parametrize(
    ("named", "expected"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("GPU-a", ["GPU-a"]), ("NoDevFiles", [])]
)
def test_gpus_are_those_that_the_environment_names(
    named: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus() == expected


def config(name: str, **options: object) -> EngineConfig:
    return EngineConfig(name=name, workers=2, gpus="none", options=options)  # ty: ignore[invalid-argument-type]


def test_options_belong_to_slurm_and_slurm_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"engine\.options are for engine\.name=slurm"):
        chosen(config("local", mem_gb=3), WORK, logs=tmp_path)
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match=r"engine\.name=slurm: "):
        chosen(config("slurm"), WORK, logs=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("submitit"), reason="submitit is not installed: Slurm is untested")
def test_submitit_runs_jobs_and_tells_how_they_end(tmp_path: Path) -> None:
    """Its cluster `local` runs them as processes: what Slurm itself does with them is not tested here."""
    with chosen(config("slurm", cluster="local"), WORK, logs=tmp_path / "logs") as engine:
        for word in ("good", "fail", "raise"):
            engine.start(job(tmp_path, word))
        found = ended(engine, 3)
    assert {name: outcome.status for name, outcome in found.items()} == {
        "good": "done", "fail": "failed", "raise": "failed"
    }  # fmt: skip
    assert found["raise"].error.endswith("a defect")


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is not installed: its engine is untested")
def test_ray_runs_jobs_and_tells_how_they_end(tmp_path: Path) -> None:
    with chosen(config("ray"), WORK, logs=tmp_path) as engine:
        for word in ("good", "fail", "raise", "exit"):
            engine.start(job(tmp_path, word))
        found = ended(engine, 4)
    assert {name: outcome.status for name, outcome in found.items()} == {
        "good": "done", "fail": "failed", "raise": "failed", "exit": "again"
    }  # fmt: skip
    assert "a defect" in found["raise"].error

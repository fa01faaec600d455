"""The console command: from nothing to a report; killed anywhere it ends in the same tables; mistakes and failures."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

KILLS, TRIALS, SEEDS = (20, 3, 6) if os.environ.get("ALL_MOMENTS") else (1, 2, 2)
JOBS = 2 * (TRIALS + SEEDS)
ROWS = 400
STUDY = [
    *("models=lr,fm", "dataset=small", f"trials={TRIALS}", f"seeds={SEEDS}", "name=s", "engine.workers=2"),
    *("trainer.batch_size=64", "trainer.max_epochs=2", "runtime.matmul=mkl"),
]
TABLES = ("comparison.md", "comparison.csv", "comparison.tex")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a raw table and its YAML."""
    place, draw = tmp_path_factory.mktemp("study"), random.Random(3)
    (place / "conf/dataset").mkdir(parents=True)
    rows = []
    for _ in range(ROWS):
        user, ad = draw.randrange(12), draw.randrange(9)
        rows.append(f"{draw.random() < 0.1 + 0.05 * (user % 5) + 0.05 * ad:d},u{user},a{ad}\n")
    (place / "clicks.csv").write_text("clicked,user,ad\n" + "".join(rows))
    (place / "conf/dataset/small.yaml").write_text(
        f"name: small\nraw_dir: {place}\nsource:\n  _target_: fieldctr.data.sources.tidy.read\n"
        "  files: clicks.csv\n  origin: x\n  separator: ','\n  null_values: []\n  label: {column: clicked}\n"
        "  split: {by: random, fractions: [0.6, 0.2, 0.2], seed: 1}\nmin_count: 1\ngroup: user\n"
        "fields: {user: {}, ad: {}}\n"
    )
    return place


def started(home: Path, outputs: str, *words: str) -> subprocess.Popen[str]:
    call = [sys.executable, "-m", "fieldctr", "study", "--config-dir", str(home / "conf"), *STUDY, f"outputs={outputs}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    return subprocess.Popen([*call, *words], cwd=home, text=True, env=environment, **pipes)


def done(home: Path, outputs: str, *words: str) -> tuple[int, str, str]:
    process = started(home, outputs, *words)
    said, told = process.communicate(timeout=600)
    return process.returncode, said, told


def tables(folder: Path) -> dict[str, str]:
    """What the study says, and what each of its runs and trials does."""
    found = {name: (folder / "report" / name).read_text() for name in TABLES}
    for path in folder.rglob("result.json"):
        result = json.loads(path.read_text())
        found[path.relative_to(folder).as_posix()] = json.dumps([result.get("valid"), result.get("test")])
    return found


@pytest.fixture(scope="module")
def undisturbed(home: Path) -> Path:
    code, said, told = done(home, "whole")
    assert code == 0, told
    assert "small, test: arms by arm, against" in said
    return home / "whole/studies/s"


@pytest.mark.slow
def test_a_study_searches_trains_compares_and_reports(undisturbed: Path) -> None:
    study, record = (json.loads((undisturbed / name).read_text()) for name in ("study.json", "record.json"))
    assert (study["datasets"], list(study["arms"]), study["seeds"]) == (["small"], ["lr", "fm"], [*range(1, SEEDS + 1)])
    for search in record["searches"]:
        best = max(search["trials"], key=lambda one: (one["valid"]["auc"], -one["number"]))
        assert search["chosen"] == best["params"]
        assert search["budget"]["finished"] == TRIALS
        for seed in study["seeds"]:
            config = json.loads((undisturbed / f"runs/small/{search['arm']}/seed{seed}/config.json").read_text())
            assert config["optimizer"]["lr"] == search["chosen"]["optimizer.lr"]
            assert config["seed"] == seed
    for trial in undisturbed.glob("search/small/*/trial_*/result.json"):
        assert "test" not in json.loads(trial.read_text())
    settings = {json.loads(path.read_text())["settings"] for path in undisturbed.glob("runs/*/*/*/result.json")}
    assert settings == {f"searched, {TRIALS} trials"}
    (ledger,) = (undisturbed.parents[1] / "data").glob("test_reads-*.jsonl")
    assert len(ledger.read_text().splitlines()) == 2 * SEEDS
    assert f"{2 * SEEDS} runs of {2 * SEEDS} configurations" in (undisturbed / "report/comparison.md").read_text()


@pytest.mark.slow
def test_a_study_that_is_killed_ends_in_the_same_tables(home: Path, undisturbed: Path) -> None:
    draw, folder = random.Random(5), home / "killed/studies/s"
    for _ in range(KILLS):
        process = started(home, "killed")
        until_further(folder, process, draw)
        family = descendants(process.pid)
        kill(process.pid)
        process.communicate(timeout=60)
        wait_for(lambda family=family: not any(map(alive, family)))
    assert done(home, "killed")[0] == 0
    assert tables(folder) == tables(undisturbed)


@pytest.mark.slow
def test_workers_that_are_killed_change_no_table(home: Path, undisturbed: Path) -> None:
    """Also where it is the server that they are forked from, or what looks after their resources."""
    draw, folder = random.Random(6), home / "wounded/studies/s"
    process = started(home, "wounded")
    for _ in range(KILLS):
        until_further(folder, process, draw)
        family = descendants(process.pid)
        for victim in draw.sample(family, min(1, len(family))):
            kill(victim)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert tables(folder) == tables(undisturbed)


def until_further(folder: Path, process: subprocess.Popen[str], draw: random.Random) -> None:
    """Wait until a few more jobs have finished, and a moment."""
    goal = len(list(folder.rglob("result.json"))) + draw.randrange(max(2, JOBS // KILLS))
    wait_for(lambda: process.poll() is not None or len(list(folder.rglob("result.json"))) >= goal)
    time.sleep(draw.random())


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended by itself
        return


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that these did."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, front = [], [pid]
    while front:
        front = [child for child, parent in parents.items() if parent in front]
        found += front
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_a_failing_arm_stops_no_other_and_is_told_with_its_cause(home: Path, undisturbed: Path) -> None:
    words = [
        "arms.ill='model=fm trainer.extra_metrics=[torchmetrics.NoSuch]'",
        "seeds=1",
        "settings=defaults",
        "name=ill",
    ]
    code, said, told = done(home, "whole", *words)
    assert code == 1
    assert "failed jobs:" in said
    assert "runs/small/ill/seed1" in said
    assert "NoSuch" in said
    assert "Traceback" not in told
    assert (home / "whole/studies/ill/report/report.html").exists()
    assert "ill" in (home / "whole/studies/ill/report/report.html").read_text()


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_the_study_is_not_run_twice_at_a_time(home: Path, undisturbed: Path) -> None:
    process = started(home, "stopped")
    folder = home / "stopped/studies/s"
    wait_for(lambda: bool(list(folder.rglob("metrics.jsonl"))))
    code, _, told = done(home, "stopped")
    assert code == 2
    assert "is being run by another process" in told
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what has finished is kept" in told
    assert "Go on: fieldctr study" in told
    code, _, told = done(home, "stopped", "search_seed=77")
    assert (code, "holds a study with search_seed=1000, not 77" in told) == (2, True)
    code, _, told = done(home, "stopped", "trainer.max_epochs=1")
    assert (code, "had another configuration or search space" in told) == (2, True)

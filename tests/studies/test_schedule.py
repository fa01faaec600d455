"""The order of a study's jobs, with an engine that only pretends: failures, kills and restarts at random moments."""

import functools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fieldctr import compose
from fieldctr.commands import study
from fieldctr.commands.conclude import conclude
from fieldctr.config import parse
from fieldctr.errors import UserError
from fieldctr.studies import record
from fieldctr.studies.jobs import Job, Outcome
from fieldctr.studies.plan import StudyConfig
from fieldctr.studies.schedule import RESTARTS, Finished, Schedule, run
from fieldctr.studies.spaces import words_of

WORDS = ("models=lr,fm", "dataset=synthetic", "arms.same={words: 'model=fm', settings_of: fm}", "trials=6", "seeds=3")


class Power(BaseException):
    """The study's process is killed."""


class Pretended:
    """An engine that ends a random one of its jobs at each wait, as `fate` says, and leaves what a run would leave."""

    def __init__(self, draw: random.Random, *, slots: int = 2, fate: Any = None, life: int | None = None) -> None:
        self.draw, self.slots, self.fate, self.life = draw, slots, fate or (lambda job: "done"), life
        self.running: list[Job] = []
        self.started: list[str] = []
        self.stopped: list[str] = []

    def __enter__(self) -> "Pretended":
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, job: Job) -> None:
        assert len(self.running) < self.slots
        assert job.name not in {one.name for one in self.running}
        self.running.append(job)
        self.started.append(job.name)

    def wait(self, seconds: float) -> Sequence[Outcome]:
        if self.life is not None:
            self.life -= 1
            if self.life < 0:
                raise Power
        job = self.running.pop(self.draw.randrange(len(self.running)))
        status = "again" if job.name in self.stopped else self.fate(job)
        if status == "done" and job.kind != "stages":
            leave(job)
        return [Outcome(job, status, "" if status == "done" else "as fate wills")]

    def stop(self, job: Job) -> None:
        self.stopped.append(job.name)


def leave(job: Job) -> None:
    """A result whose score is a function of the words alone."""
    words = [word for word in job.words if not word.startswith(("outputs", "evaluate"))]
    auc = random.Random(str(words)).random()
    result: dict[str, Any] = {"valid": {"auc": auc, "logloss": 1 - auc}, "seconds": {"fit": 10 * auc}}
    if "evaluate_test=false" not in job.words:
        result["test"] = result["valid"]
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "result.json").write_text(json.dumps(result))


@pytest.fixture(autouse=True)
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words give the same configuration: composing is most of what a restart costs here."""
    once = functools.cache(lambda command, words, config_dir: compose(command, words, config_dir=config_dir))
    monkeypatch.setattr(
        study, "compose", lambda command, words, config_dir=None: once(command, tuple(words), config_dir)
    )


def schedule(folder: Path, *words: str) -> Schedule:
    return study.scheduled(parse(StudyConfig, compose("study", [*WORDS, f"outputs={folder}", *words]), ""))


def go(folder: Path, engine: Pretended, *words: str) -> Schedule:
    made = schedule(folder, *words)
    run(made, engine, say=lambda line: None, changed=lambda: record.write_status(made, engine.slots))
    record.write(made)
    return made


def left(folder: Path) -> dict[str, str]:
    """The final runs with what they came to, and the record; folders are named without `folder`."""
    found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("runs/*/*/*/result.json")}
    return found | {path.name: path.read_text() for path in folder.rglob(record.RECORD)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    go(folder, Pretended(random.Random(0)))
    return left(folder)


def test_all_that_was_asked_is_done_in_its_order(tmp_path: Path) -> None:
    engine = Pretended(random.Random(1))
    made = go(tmp_path, engine)
    assert made.counts() == {"jobs": 1 + 2 * 6 + 3 * 3, "done": 22, "running": 0, "failed": 0, "open": 0}
    order = {name: place for place, name in enumerate(engine.started)}
    assert len(order) == len(engine.started) == 22
    assert engine.started[0].startswith("stages/")
    for arm in ("lr", "fm"):
        last = max(order[f"search/synthetic/{arm}/trial_{number:03d}"] for number in range(6))
        assert all(order[f"runs/synthetic/{arm}/seed{seed}"] > last for seed in (1, 2, 3))
    assert all(order[f"runs/synthetic/same/seed{seed}"] > order["search/synthetic/fm/trial_005"] for seed in (1, 2, 3))
    settings = {state.cell.arm.name: state.settings for state in made.cells}
    assert settings["same"] == settings["fm"] != settings["lr"]


def test_a_second_call_touches_nothing_before_the_study_is_its_own(tmp_path: Path) -> None:
    folder = go(tmp_path, Pretended(random.Random(1))).folder
    for journal in folder.rglob("journal.jsonl"):  # as its owner is just writing it
        journal.with_name("journal.jsonl.lock").touch()
        journal.write_bytes(journal.read_bytes()[:-5])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    schedule(tmp_path)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("begun", [False, True])
def test_what_was_wrong_may_change_until_a_run_has_begun(begun: bool, tmp_path: Path) -> None:
    def call(*words: str) -> Schedule:
        made = schedule(tmp_path, *words)
        study.forget_what_never_began(made.folder)
        study.begin(parse(StudyConfig, compose("study", [*WORDS, f"outputs={tmp_path}", *words]), ""), made)
        return made

    first = call()
    (stage,) = {job.name: job for job in first.ready()}.values()  # which all cells wait for
    first.started(stage)
    first.ended(Outcome(stage, "failed", "no such column"))
    if begun:
        first.states[stage.name] = "done"
        trial = next(first.ready())
        trial.folder.mkdir(parents=True)
        (trial.folder / "config.json").write_text("{}")
        with pytest.raises(UserError, match="had another configuration"):
            call("trainer.batch_size=77")
        return
    again = call("trainer.batch_size=77")
    assert {job.name for job in again.ready()} == {stage.name}
    again.states[stage.name] = "done"
    assert len([job for job in again.ready() if job.name.startswith("search/")]) == 8


@pytest.mark.parametrize(("seed", "slots"), [(0, 1), (1, 4)])
def test_a_study_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    seed: int, slots: int, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """The parent dies at random moments, workers die at random moments; nothing is run twice that had finished."""
    draw = random.Random(seed)
    finished: set[str] = set()
    for _ in range(200):
        life = draw.randrange(6)
        engine = Pretended(draw, slots=slots, fate=lambda _: draw.choice(["done", "done", "again"]), life=life)
        try:
            made = go(tmp_path, engine)
        except Power:
            runs = {name for name in engine.started if not name.startswith("stages")}
            assert not runs & finished
            done = (path.parent for path in tmp_path.rglob("result.json"))
            finished |= {path.relative_to(next((tmp_path / "studies").iterdir())).as_posix() for path in done}
        else:
            if not made.errors:  # a job whose worker died four times in one call failed, and the next call takes it
                break
    assert left(tmp_path) == undisturbed


def test_failures_stop_no_other_and_the_next_call_tries_them_alone(undisturbed: dict[str, str], tmp_path: Path) -> None:
    ill = {"search/synthetic/lr/trial_002", "runs/synthetic/fm/seed2"}
    made = go(tmp_path, Pretended(random.Random(2), fate=lambda job: "failed" if job.name in ill else "done"))
    assert made.errors.keys() == ill
    (folder,) = (tmp_path / "studies").iterdir()
    assert [one["job"] for one in record.failures(folder)] == sorted(ill)
    assert all(name in record.failure_table(record.failures(folder)) for name in ill)
    engine = Pretended(random.Random(3))
    assert not go(tmp_path, engine).errors
    assert {name for name in engine.started if not name.startswith("stages")} >= ill
    final = {key: value for key, value in left(tmp_path).items() if "/fm/" in key}
    assert final == {key: value for key, value in undisturbed.items() if "/fm/" in key}


def test_stop_begins_nothing_after_a_failure_and_retry_tries_once_more(tmp_path: Path) -> None:
    engine = Pretended(random.Random(4), slots=1, fate=lambda job: "done" if job.kind == "stages" else "failed")
    assert len(go(tmp_path / "stop", engine, "on_failure=stop").errors) == 1
    assert len(engine.started) == 2
    failed: set[str] = set()

    def once(job: Job) -> str:
        first = job.name not in failed
        failed.add(job.name)
        return "failed" if first else "done"

    engine = Pretended(random.Random(4), fate=once)
    assert not go(tmp_path / "retry", engine, "on_failure=retry").errors
    assert len(engine.started) == 2 * 22


def test_a_job_whose_worker_always_dies_fails_in_the_end(tmp_path: Path) -> None:
    dying = "runs/synthetic/lr/seed1"
    engine = Pretended(random.Random(5), fate=lambda job: "again" if job.name == dying else "done")
    made = go(tmp_path, engine)
    assert made.errors.keys() == {dying}
    assert engine.started.count(dying) == RESTARTS + 1


def test_seconds_end_a_search_before_its_trials(tmp_path: Path) -> None:
    made = go(tmp_path, Pretended(random.Random(6)), "seconds=1")
    (folder,) = (tmp_path / "studies").iterdir()
    budgets = [one["budget"] for one in json.loads((folder / record.RECORD).read_text())["searches"]]
    assert [one["finished"] for one in budgets] == [4, 4]  # a round is drawn at once
    assert all(state.settings for state in made.cells)


def test_more_seeds_arms_and_trials_repeat_nothing(tmp_path: Path) -> None:
    go(tmp_path, Pretended(random.Random(7)), "name=one")
    engine = Pretended(random.Random(8))
    go(tmp_path, engine, "name=one", "seeds=4", "models=lr,fm,fwfm")
    again = {
        name
        for name in engine.started
        if not name.startswith(("stages", "search/synthetic/fwfm", "runs/synthetic/fwfm"))
    }
    assert again == {f"runs/synthetic/{arm}/seed4" for arm in ("lr", "fm", "same")}


def test_without_seeds_a_study_only_searches_and_seeds_may_follow(tmp_path: Path) -> None:
    engine = Pretended(random.Random(1))
    made = go(tmp_path, engine, "seeds=[]")
    assert made.counts()["jobs"] == 1 + 2 * 6
    assert not any(name.startswith("runs/") for name in engine.started)
    conclude(made)
    said = (made.folder / record.ANSWER).read_text().splitlines()
    assert said[0] == "Searches alone, best trials on valid; the test split was not read:"
    chosen = {state.cell.arm.name: " ".join(words_of(state.settings or {})) for state in made.cells}
    assert said[1:] == [f"synthetic/{arm}: {chosen[arm]}" for arm in ("lr", "fm")]
    later = Pretended(random.Random(2))
    go(tmp_path, later)
    assert [name.partition("/")[0] for name in later.started] == ["stages", *["runs"] * 9]


def test_what_is_left_is_told_by_what_a_cell_s_own_jobs_took(tmp_path: Path) -> None:
    made = schedule(tmp_path, "arms.same=null", "settings=defaults")
    assert made.remaining_s() is None
    made.results = {f"runs/synthetic/{arm}/seed1": Finished({}, took) for arm, took in (("lr", 1.0), ("fm", 100.0))}
    made.states = dict.fromkeys(made.results, "done")
    assert made.remaining_s() == 2 * 1.0 + 2 * 100.0
    made.states["runs/synthetic/fm/seed2"] = "failed"
    assert made.remaining_s() == 2 * 1.0 + 1 * 100.0
    del made.results["runs/synthetic/lr/seed1"], made.states["runs/synthetic/lr/seed1"]
    assert made.remaining_s() == 3 * 100.0 + 1 * 100.0


def test_what_seeds_were_trained_with_stays_where_a_trial_that_failed_would_be_better(tmp_path: Path) -> None:
    best = {
        state.cell.arm.name: state.search.best()
        for state in go(tmp_path / "whole", Pretended(random.Random(1))).cells
        if state.search
    }
    ill = {f"search/synthetic/{arm}/trial_{trial.number:03d}" for arm, trial in best.items() if trial}
    first = go(tmp_path, Pretended(random.Random(2), fate=lambda job: "failed" if job.name in ill else "done"))
    again = go(tmp_path, Pretended(random.Random(3)))
    assert not again.errors
    assert [state.settings for state in again.cells] == [state.settings for state in first.cells]
    assert all(state.settings != best[state.cell.arm.name].settings for state in again.cells if state.search)


def test_another_number_of_trials_is_refused_once_seeds_were_trained(tmp_path: Path) -> None:
    made = schedule(tmp_path)
    study.begin(made.config, made)
    more = schedule(tmp_path, "trials=7")
    study.begin(more.config, more)
    go(tmp_path, Pretended(random.Random(1)), "trials=7")
    with pytest.raises(UserError, match=r"searches of trials=7 chose, not 6: give another name="):
        study.begin(made.config, made)


def test_status_says_how_far_it_is(tmp_path: Path) -> None:
    texts = []
    made = schedule(tmp_path)
    engine = Pretended(random.Random(9))

    def changed() -> None:
        record.write_status(made, engine.slots)
        status = json.loads((made.folder / record.STATUS).read_text())
        assert sum(status["counts"][key] for key in ("done", "running", "failed", "open")) == status["counts"]["jobs"]
        texts.append(record.status_text(made.folder, status, alive=True))

    run(made, engine, say=lambda line: None, changed=changed)
    assert "0 of 22 jobs done, 1 running, 0 failed, 21 open" in texts[0]
    assert any("left" in text for text in texts)
    assert "not running; 21 of 22" in record.status_text(
        made.folder, json.loads((made.folder / record.STATUS).read_text()), alive=False
    )

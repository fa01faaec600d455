"""`fieldctr search` alone: the best settings on valid, written where train finds them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from fieldctr import UserError, compose
from fieldctr.commands import search as command
from fieldctr.commands import study
from fieldctr.commands.job import work
from fieldctr.studies.jobs import Job, Outcome

WORDS = [
    *("model=fm", "dataset=synthetic", "dataset.source.rows=2000", "embedding_dim=2", "trainer.max_epochs=1"),
    *("trials=3", "runtime.matmul=mkl"),
]


class InProcess:
    """An engine that does each job at once, in this process."""

    slots = 1

    def __init__(self, ill: frozenset[str] = frozenset()) -> None:
        self.ill, self.outcomes, self.names = ill, list[Outcome](), list[str]()

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, job: Job) -> None:
        self.names.append(job.name)
        self.outcomes.append(Outcome(job, *(("failed", "ill") if job.name in self.ill else work(job))))

    def wait(self, seconds: float) -> Sequence[Outcome]:
        ended, self.outcomes = self.outcomes, []
        return ended

    def stop(self, job: Job) -> None: ...


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "my").mkdir()
    return tmp_path / "my"


def searched(
    own: Path, monkeypatch: pytest.MonkeyPatch, *words: str, ill: frozenset[str] = frozenset()
) -> tuple[Path, list[str]]:
    engine = InProcess(ill)
    monkeypatch.setattr(study, "engine_of", lambda schedule: engine)
    node = compose("search", [*WORDS, f"outputs={own.parent / 'o'}", *words], config_dir=own)
    return command.search(node), engine.names


@pytest.mark.slow
def test_the_settings_are_the_best_trial_s_and_train_takes_them(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, names = searched(own, monkeypatch)
    assert path == own / "tuned/synthetic_fm.yaml"
    assert len(names) == 4
    trials = sorted((own.parent / "o/search/synthetic_fm").rglob("result.json"))
    results = {one.parent.name: json.loads(one.read_text()) for one in trials}
    assert all("test" not in result for result in results.values())
    assert not list((own.parent / "o/search").rglob("checkpoint"))
    best = max(results, key=lambda name: results[name]["valid"]["auc"])
    config = json.loads((next(one.parent for one in trials if one.parent.name == best) / "config.json").read_text())
    settings = yaml.safe_load(path.read_text())
    assert settings["optimizer"]["lr"] == config["optimizer"]["lr"]
    assert settings["trainer"]["max_epochs"] == 1  # what the call fixed belongs to the settings
    assert "dataset" not in settings
    assert "fieldctr search model=fm" in path.read_text()
    taken = compose("train", ["model=fm", "dataset=synthetic"], config_dir=own)
    assert taken["optimizer"]["lr"] == config["optimizer"]["lr"]
    assert taken["choices"]["tuned"] == "synthetic_fm"
    assert compose("train", ["model=fm", "dataset=synthetic"])["choices"]["tuned"] == "none"
    assert "trial" in capsys.readouterr().err

    before = path.read_text()
    path.write_text("# mine\nseed: 3\n")
    again, names = searched(own, monkeypatch)
    assert again.read_text() == before
    assert {name.split("/")[0] for name in names} == {"stages"}  # all trials were there
    assert path.with_name("synthetic_fm.yaml.earlier").read_text() == "# mine\nseed: 3\n"


@pytest.mark.slow
def test_a_failed_trial_is_told_and_tried_again(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ill = frozenset({"search/synthetic/fm/trial_001"})
    node_of = {"outputs": str(own.parent / "o")}
    path, _ = searched(own, monkeypatch, ill=ill)
    assert path.exists()
    from fieldctr.studies.record import failures

    (failed,) = failures(Path(node_of["outputs"]) / "search/synthetic_fm")
    assert (failed["job"], failed["error"]) == ("search/synthetic/fm/trial_001", "ill")
    _, names = searched(own, monkeypatch)
    assert [name for name in names if name.startswith("search")] == ["search/synthetic/fm/trial_001"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=fmm"], "no model 'fmm'"),
        (["space=fmm"], "no search space 'fmm'"),
        (["trails=3"], "no key 'trails' of search or train. Nearest: trials"),
        (["optimizer.lr=0.1", "optimizer.embedding_l2=0"], "nothing to search"),
        (["optimizer.lr=x"], "optimizer.lr"),
        (["objective=test/auc"], "objective=test/auc is not allowed"),
    ],
)
def test_a_mistake_is_answered_before_anything_runs(
    words: list[str], said: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=said):
        searched(own, monkeypatch, *words)
    assert not list(own.parent.rglob("result.json"))


def test_without_a_folder_of_one_s_own_the_wheel_says_where_settings_could_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "conf_dir", lambda: command.PACKAGE / "conf")
    with pytest.raises(UserError, match="--config-dir DIR writes DIR/tuned"):
        command.tuned_folder(None)

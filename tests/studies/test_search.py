"""A search: what it draws depends on the seed and on what came out, not on time, order or where it was stopped."""

import random
from pathlib import Path

import optuna
import pytest

from fieldctr.studies.search import JOURNAL, ROUND, Sampler, Search, Trial, score_of
from fieldctr.studies.spaces import Settings, read_space

SPACE = read_space(
    {"optimizer.lr": {"log": [1e-4, 1e-1]}, "model.dims": [[300, 300], [64]], "model.layers": {"range": [1, 4]}}, "x"
)
GRID = read_space({"optimizer.lr": [1e-3, 1e-2], "model.layers": {"range": [1, 4]}}, "x")
START = {"optimizer.lr": 1e-3, "model.dims": [64], "model.layers": 2}


def opened(folder: Path, sampler: Sampler, trials: int = 18, seed: int = 5) -> Search:
    space = GRID if sampler == "grid" else SPACE
    return Search(folder, space, sampler=sampler, trials=trials, seed=seed, start=START)


def score(settings: Settings) -> float:
    return -abs(settings["optimizer.lr"] - 0.01) - settings["model.layers"] / 100


def searched(folder: Path, sampler: Sampler, *, stops: random.Random | None = None, trials: int = 18) -> list[Trial]:
    """All trials of a search that is opened anew wherever `stops` says so."""
    search = opened(folder, sampler, trials)
    while trials_of_round := search.draw():
        if stops and stops.random() < 0.7:
            search = opened(folder, sampler, trials)
            assert search.draw() == trials_of_round
        scores = {trial.number: score(trial.settings) for trial in trials_of_round}
        if stops and stops.random() < 0.7:  # told only in part: a killed process
            part = dict(sorted(scores.items())[: stops.randrange(len(scores))])
            search.tell(part)
            search = opened(folder, sampler, trials)
            assert [trial.number for trial in search.draw()] == sorted(scores.keys() - part.keys())
            scores = {number: value for number, value in scores.items() if number not in part}
        search.tell(scores)
    return search.trials()


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
@pytest.mark.parametrize("seed", range(3))
def test_a_search_that_is_stopped_draws_what_an_undisturbed_one_draws(
    sampler: Sampler, seed: int, tmp_path: Path
) -> None:
    whole = searched(tmp_path / "whole", sampler)
    assert searched(tmp_path / "stopped", sampler, stops=random.Random(seed)) == whole
    assert len(whole) == (8 if sampler == "grid" else 18)
    assert all(trial.state == "done" for trial in whole)


def test_the_first_trial_is_the_configuration_s_own_settings(tmp_path: Path) -> None:
    assert opened(tmp_path, "tpe").draw()[0].settings == START
    outside = Search(tmp_path / "o", SPACE, sampler="tpe", trials=4, seed=5, start={**START, "optimizer.lr": 1.0})
    assert outside.draw()[0].settings != START


def test_other_seeds_draw_others_and_tpe_learns(tmp_path: Path) -> None:
    first, second = (
        [trial.settings for trial in opened(tmp_path / str(seed), "random", seed=seed).draw()] for seed in (5, 6)
    )
    assert first[0] == second[0]
    assert all(a != b for a, b in zip(first[1:], second[1:], strict=True))
    trials = searched(tmp_path / "tpe", "tpe", trials=40)
    early, late = ([score(trial.settings) for trial in part] for part in (trials[:10], trials[-10:]))
    assert sum(late) > sum(early)


def test_the_best_is_the_first_of_equal_ones_and_failed_ones_do_not_count(tmp_path: Path) -> None:
    search = opened(tmp_path, "random", trials=6)
    search.draw()
    search.tell({0: None, 1: 0.5, 2: 0.7, 3: float("nan")})
    search.draw()
    search.tell({4: 0.7, 5: 0.6})
    assert (search.best() or search.trials()[0]).number == 2
    assert [trial.state for trial in search.trials()] == ["failed", "done", "done", "failed", "done", "done"]
    assert search.draw() == []


def test_failed_trials_are_open_again_in_the_next_call_and_the_others_stay(tmp_path: Path) -> None:
    search = opened(tmp_path, "random", trials=6)
    search.draw()
    search.tell({0: None, 1: 0.5, 2: 0.7, 3: None})
    search.draw()
    search.tell({4: 0.7, 5: 0.6})
    before = search.trials()
    again = opened(tmp_path, "random", trials=6)
    assert [trial.settings for trial in again.trials()] == [trial.settings for trial in before]
    assert [trial.number for trial in again.draw()] == [0, 3]
    again.tell({0: 0.9, 3: 0.1})
    assert (again.best() or before[0]).number == 0
    assert opened(tmp_path, "random", trials=6).trials() == again.trials()


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_half_a_line_of_the_journal_is_taken_away(cut: int, tmp_path: Path) -> None:
    search = opened(tmp_path, "random")
    drawn = search.draw()
    whole = (tmp_path / JOURNAL).read_bytes()
    search.tell({trial.number: 0.5 for trial in drawn})
    after = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(after[: len(whole) + cut])
    (tmp_path / f"{JOURNAL}.lock").write_text("")  # of the killed process
    again = opened(tmp_path, "random")
    assert again.draw() == drawn
    again.tell({trial.number: 0.5 for trial in drawn})
    assert len(opened(tmp_path, "random").draw()) == ROUND


def test_more_trials_go_on_after_those_that_are_there(tmp_path: Path) -> None:
    few = searched(tmp_path, "random", trials=8)
    assert searched(tmp_path, "random", trials=16)[:8] == few


def test_a_trial_below_the_median_is_given_up(tmp_path: Path) -> None:
    search = opened(tmp_path, "random")
    drawn = search.draw()
    for trial in drawn:
        assert not search.report(trial.number, [0.6, 0.7, 0.75, 0.75])
    search.tell({trial.number: 0.75 for trial in drawn})
    good, bad, young, _ = search.draw()
    assert search.report(bad.number, [0.5, 0.5, 0.5, 0.5])
    assert not search.report(good.number, [0.6, 0.8, 0.8, 0.8])
    assert not search.report(young.number, [0.4])
    search.tell({bad.number: None}, {bad.number})
    assert search.trials()[bad.number].state == "pruned"


@pytest.mark.parametrize(
    ("objective", "expected"), [("auc", 0.7), ("logloss", -0.5), ("auc-logloss", pytest.approx(0.2))]
)
def test_a_score_is_larger_where_the_model_is_better(objective: str, expected: float) -> None:
    assert score_of({"auc": 0.7, "logloss": 0.5}, objective) == expected  # ty: ignore[invalid-argument-type]


def test_the_journal_is_optuna_s_own(tmp_path: Path) -> None:
    search = opened(tmp_path, "random")
    search.draw()
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    study = optuna.load_study(storage=optuna.storages.JournalStorage(backend), study_name="search")
    assert len(study.trials) == ROUND

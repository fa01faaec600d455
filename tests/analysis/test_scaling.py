"""A scaling study of run folders whose metrics follow a planted law: what is read, refused, written and drawn."""

import csv
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldctr.analysis.scaling.laws import grouped, loss_law, study
from fieldctr.analysis.scaling.report import Report, curve_rows, markdown, size_rows, verdict_rows
from fieldctr.analysis.scaling.shuffled import supported_by_chance
from fieldctr.analysis.scaling.trials import baseline_auc, cells_of, load_trials
from fieldctr.commands.scaling import ScalingConfig, draw, reported
from fieldctr.config import TrackerConfig
from fieldctr.errors import UserError
from fieldctr.run_folders import find_runs
from fieldctr.runs import config_digest

WIDTHS = (16, 24, 32, 48, 64, 96, 128)
NOISE = 2e-4


def write_run(folder: Path, model: str, *, width: int, rows: int, seed: int, auc: float, logloss: float) -> None:
    """One finished run, as `fieldctr train` leaves it; lr has no width, and FAT's size grows with its square."""
    lr = model == "lr"
    dense, flop = (1, 0) if lr else (220 * width**2 + 3400, 880 * width**2)
    config = {"seed": seed, "embedding_dim": width, "model": {"name": model}, "dataset": {"train_fraction": rows / 1e5}}
    result: dict[str, Any] = {"dataset": "planted", "model": model, "seed": seed}
    result |= {"valid": {"auc": 0.5, "logloss": 1.0}, "test": {"auc": auc, "logloss": logloss}}
    result |= {"num_parameters": {"dense": dense, "embedding": 1000, "total": dense + 1000}, "num_fields": 40}
    result |= {"num_rows": {"train": rows, "valid": 10_000, "test": 10_000}}
    result |= {"flops_per_sample": flop, "samples": 2 * rows, "fit_seconds": {"train": 1.0 + 1e-4 * rows}}
    result |= {"runtime": "cpu", "data_digest": "0" * 16, "commit": None, "config_digest": config_digest(config)}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text(json.dumps(result))


def write_sweep(folder: Path, *, widths: Sequence[int] = WIDTHS, rows: Sequence[int] = (100_000,)) -> Path:
    """Gains of 0.04 points times (N / smallest N)^0.433 over lr; the loss falls by powers of N and of D."""
    rng, job = np.random.default_rng(7), 0
    for seed in (1, 2, 3):
        for count in rows:
            for width in widths:
                size = (220 * width**2 + 3400) / (220 * 16**2 + 3400)
                auc = 0.72 + 4e-4 * size**0.433 + NOISE * rng.standard_normal()
                logloss = 0.55 + 0.02 * size**-0.4 + 0.02 * (count / 1e4) ** -0.5 + NOISE * rng.standard_normal()
                run = {"width": width, "rows": count, "seed": seed, "auc": auc, "logloss": logloss}
                write_run(folder / f"{job}_fat", "fat", **run)
                job += 1
            lr = 0.72 + NOISE * rng.standard_normal()
            write_run(folder / f"{job}_lr", "lr", width=16, rows=count, seed=seed, auc=lr, logloss=0.6)
            job += 1
    return folder


def config(**changes: Any) -> ScalingConfig:
    tracker = TrackerConfig(name="none", project="p", mode="offline", group=None, tags=[])
    plain: dict[str, Any] = {"data_root": "", "outputs": "", "runs": "", "scaled": None, "baseline": "lr"}
    plain |= {"size": "dense", "split": "test", "hold_out": 1, "resamples": 200, "seed": 1, "tracker": tracker}
    return ScalingConfig(**plain | changes)


def study_of(folder: Path, **changes: Any) -> list[Report]:
    finished, _ = find_runs([f"{folder}"])
    chosen = config(**changes)
    trials = load_trials(finished, scaled=chosen.scaled, baseline=chosen.baseline, split=chosen.split)
    return reported(trials, chosen)[0]


def test_runs_are_found_by_sweep_by_glob_and_once(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", widths=(16, 24))
    (tmp_path / "sweep/2_lr/result.json").unlink()
    finished, unfinished = find_runs([f"{tmp_path}/sweep{rest}" for rest in ("", "/*", "/0_fat")])
    assert [run.name for run in finished] == ["0_fat", "1_fat", "3_fat", "4_fat", "5_lr", "6_fat", "7_fat", "8_lr"]
    assert [run.name for run in unfinished] == ["2_lr"]
    with pytest.raises(UserError, match=r"nothing.*no run folder"):
        find_runs([str(tmp_path / "nothing*")])


def test_seeds_of_one_configuration_are_one_cell_and_the_baseline_is_a_mean_over_seeds(tmp_path: Path) -> None:
    finished, _ = find_runs([str(write_sweep(tmp_path, widths=(16, 24), rows=(50_000, 100_000)))])
    trials = load_trials(finished, scaled=None, baseline="lr", split="test")
    assert trials.varied == {"embedding_dim": [16, 24], "dataset.train_fraction": [0.5, 1.0]}
    auc = np.array([trial.result["test"]["auc"] for trial in trials.scaled])
    cells, sizes = cells_of(trials.scaled, auc, "dense")
    assert cells.sizes.tolist() == [[59720, 5e4], [130120, 5e4], [59720, 1e5], [130120, 1e5]]
    assert cells.seeds.tolist() == [3] * 4
    mine = [x for x, size in zip(auc, sizes.tolist(), strict=True) if size == [59720, 1e5]]
    assert cells.mean[2] == pytest.approx(np.mean(mine))
    whole = [trial.result["test"]["auc"] for trial in trials.baseline if trial.train_rows == 100_000]
    assert baseline_auc(trials, "lr", "test") == pytest.approx((np.mean(whole), np.std(whole, ddof=1) / 3**0.5))
    assert baseline_auc(trials, 0.7, "test") == (0.7, 0.0)


def test_a_planted_law_is_found_in_run_folders(tmp_path: Path) -> None:
    gain, loss = study_of(write_sweep(tmp_path))
    assert gain.study.supported, gain.study.verdict
    assert gain.study.parameters["b"].low < 0.433 < gain.study.parameters["b"].high
    assert loss.study.supported, loss.study.verdict
    assert loss.study.parameters["alpha"].low < 0.4 < loss.study.parameters["alpha"].high
    rows = size_rows(gain)
    assert [row["held_out"] for row in rows] == [False] * 6 + [True]
    drawn = curve_rows(gain)
    assert all(row["low"] <= row["fit"] <= row["high"] for row in drawn)
    assert [row["fit"] for row in drawn] == sorted(row["fit"] for row in drawn)


def test_rows_and_parameters_vary_together(tmp_path: Path) -> None:
    (loss,) = study_of(write_sweep(tmp_path, rows=(10_000, 30_000, 100_000)), scaled="fat", baseline=None)
    assert loss.study.form.name == "E + A / N^alpha + B / D^beta"
    assert loss.study.supported, loss.study.verdict
    assert {row["D"] for row in curve_rows(loss)} == {1e4, 3e4, 1e5}


def test_flop_can_stand_for_size_and_rows_alone_can_vary(tmp_path: Path) -> None:
    _, loss = study_of(write_sweep(tmp_path / "a"), size="flops")
    assert loss.study.cells.sizes[0, 0] == 880 * 16**2
    rows = (10_000, 17_000, 30_000, 55_000, 100_000)
    (only,) = study_of(write_sweep(tmp_path / "b", widths=(16,), rows=rows))
    assert only.study.form.name == "E + B / D^beta"
    assert only.axis == 1


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", widths=(16, 24))
    for words, changes in (
        ("all runs have one size", {"size": "embedding"}),
        ("baseline=fm: no run of it", {"baseline": "fm"}),
        ("scaled=fta: no run of it. Nearest: fat", {"scaled": "fta"}),
        ("scaled is not set, and the runs have fat, lr", {"baseline": None}),
    ):
        with pytest.raises(UserError, match=words):
            study_of(folder, **changes)
    write_run(folder / "90_lr", "lr", width=16, rows=100_000, seed=1, auc=0.7, logloss=0.6)
    trials = load_trials(find_runs([str(folder)])[0], scaled="fat", baseline="lr", split="test")
    assert trials.notes == [f"{folder}/90_lr repeats {folder}/2_lr and was left out"]
    path = folder / "0_fat/result.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in record.items() if key != "test"}))
    trials = load_trials(find_runs([str(folder)])[0], scaled="fat", baseline="lr", split="test")
    assert f"{folder}/0_fat, a trial of a search, has not read test: left out" in trials.notes
    assert len(trials.scaled) == 5
    with pytest.raises(UserError, match="trials of a search and have not read test: give split=valid"):
        load_trials([path.parent], scaled="fat", baseline=None, split="test")
    path.write_text(json.dumps(record | {"dataset": "other"}))
    with pytest.raises(UserError, match=r"2 datasets \(other, planted\)"):
        study_of(folder)
    path.write_text(json.dumps({key: value for key, value in record.items() if key != "samples"}))
    with pytest.raises(UserError, match="no samples, so an earlier version made it"):
        study_of(folder)


def test_a_baseline_has_one_size_and_all_the_rows(tmp_path: Path) -> None:
    trials = load_trials(find_runs([str(write_sweep(tmp_path))])[0], scaled="fat", baseline="lr", split="test")
    with pytest.raises(UserError, match=r"baseline=fat: its runs have 60,720, .* parameters; a baseline has one size"):
        baseline_auc(trials._replace(baseline=trials.scaled), "fat", "test")
    with pytest.raises(UserError, match="baseline=lr: no run of it has the 100,000 train rows"):
        baseline_auc(trials._replace(baseline=[]), "lr", "test")


@pytest.mark.slow
def test_the_picture_shows_each_size_and_the_band(tmp_path: Path) -> None:
    finished, _ = find_runs([str(write_sweep(tmp_path / "sweep"))])
    trials = load_trials(finished, scaled=None, baseline="lr", split="test")
    reports, _ = reported(trials, config())
    pictures = draw(reports, trials, config(), tmp_path / "out", "title")
    assert set(pictures) == {"auc_law", "loss_law", "cost"}
    for path in pictures.values():
        assert path.read_bytes()[:4] == b"\x89PNG"
        assert path.with_suffix(".svg").exists()
    text = (tmp_path / "out/auc_law.svg").read_text()
    for word in ("dense parameters N", "test AUC over lr, points", "held out", "line in log N", "supported"):
        assert word in text


@pytest.mark.slow
def test_the_command_leaves_page_tables_and_pictures_and_the_same_ones_again(
    tmp_path: Path, call: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    write_sweep(tmp_path / "sweep")
    for folder in ("first", "second"):
        done = call(tmp_path, "scaling", "runs=sweep", "baseline=lr", "tracker=none", f"hydra.run.dir={folder}")
        assert done.returncode == 0, done.stderr
    assert "test AUC over lr, points: supported: a N^b" in done.stdout
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / one).iterdir()} for one in ("first", "second")
    )
    assert first == second
    assert {"scaling.md", "scaling.json", "runs.csv", "curves.csv", "auc_law.png", "auc_law.svg", "cost.png"} <= set(
        first
    )
    record = json.loads(first["scaling.json"])
    assert [one["supported"] for one in record["verdicts"]] == [True, True]
    with (tmp_path / "first/runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3 * (len(WIDTHS) + 1)


def test_every_report_says_how_often_shuffled_sizes_support_its_law(tmp_path: Path) -> None:
    reports = study_of(write_sweep(tmp_path))
    for report in reports:
        assert report.study.supported
        assert report.shuffled <= 10
        assert f"supported in {report.shuffled} of 100 permutations" in markdown("title", {}, reports, [])
    rows = verdict_rows(reports)
    assert [(row["shuffled_supported"], row["permutations"]) for row in rows] == [(r.shuffled, 100) for r in reports]
    assert [r.shuffled for r in study_of(tmp_path)] == [r.shuffled for r in reports], "by the seed alone"


def test_what_shuffled_sizes_support_is_what_whole_studies_of_them_would() -> None:
    rng = np.random.default_rng(5)
    size = np.repeat(np.geomspace(1e4, 1e6, 7), 2)
    sizes, cell = np.stack([size, np.full(14, 1e5)], axis=1), np.arange(14) // 2
    form, how = loss_law((0,)), {"better": "lower", "unit": "LogLoss", "hold_out": 1, "seed": 1}
    planted = grouped(sizes, 0.5 + 0.1 * (size / 1e4) ** -0.5 + 1e-3 * rng.standard_normal(14), cell)
    found = study(form, planted, resamples=200, **how)
    assert supported_by_chance(found, [planted] * 3, better="lower", seed=1) == 3
    noise = [grouped(sizes, 1e-3 * rng.standard_normal(14), cell) for _ in range(30)]
    whole = sum(study(form, one, resamples=200, **how).supported for one in noise)
    by_chance = supported_by_chance(found, noise, better="lower", seed=1)
    assert abs(by_chance - whole) <= 1  # intervals of other resamples
    assert by_chance <= 3
    few = study(form, planted.take(np.arange(3)), resamples=200, **how)
    assert supported_by_chance(few, [planted], better="lower", seed=1) == 0

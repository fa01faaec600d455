"""Multiruns: folders that say what a job is, how long it may take, and a table that says how it went."""

import json
import random
import re
import shutil
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
from calls import TRAIN, Calls

from fieldctr.commands.sweep_table import sweep_table
from fieldctr.commands.sweeps import (
    LONGEST,
    SAFE,
    fixed_keys,
    folder_name,
    number_of_jobs,
    progress,
    refuse_misplaced,
    spelled,
)
from fieldctr.errors import UserError
from fieldctr.runs import Run
from fieldctr.signals import Interrupted

CONFIG: dict[str, Any] = {"seed": 1, "model": {"_target_": "lr"}, "resume": False}
RESERVED = re.compile(r'[<>:"/\\|?*\x00-\x1f\s]|^[.-]|[. ]$')  # what some file system or shell would not take


def test_names_of_folders_are_safe_and_those_of_different_jobs_differ_on_every_file_system() -> None:
    draw, names = random.Random(1), {}
    letters = "aAbB01.-_=,+[]{}'\"$/\\: *?é年\n~"
    for _ in range(3000):
        varying = "".join(draw.choice(letters) for _ in range(draw.choice([0, 1, 2, 3, 20, 300])))
        name = folder_name("table_fm_seed1", varying)
        assert len(name.encode()) <= LONGEST
        assert not RESERVED.search(name)
        assert names.setdefault(name.casefold(), varying) == varying


def test_a_name_can_be_read() -> None:
    assert folder_name("coupon_fm_seed1", "") == "coupon_fm_seed1"
    assert folder_name("coupon_fm_seed2", "optimizer.lr-0.01") == "coupon_fm_seed2_optimizer.lr-0.01"
    assert re.fullmatch(r"a_fm_seed1_x-0.9-0.99-[0-9a-f]{8}", folder_name("a_fm_seed1", "x-[0.9,0.99]"))
    assert SAFE.fullmatch(folder_name("Mine_fm_seed1", "").casefold())


@pytest.mark.parametrize(
    ("words", "jobs", "fixed"),
    [
        (["model=lr,fm", "seed=1,2,3", "a.b=1"], 6, {"a.b"}),
        (["seed=range(1,5)", "+x=choice(1,2)"], 8, set()),
        (["model=lr", "~a.b", "c=[1,2]"], 1, {"a.b", "c"}),
        (["model=glob(f*)", "seed=1,2"], None, set()),
    ],
)
def test_what_varies_and_how_many_jobs_that_makes(words: list[str], jobs: int | None, fixed: set[str]) -> None:
    assert number_of_jobs(words) == jobs
    assert set(fixed_keys(words)) == {"dataset", "model", "seed"} | fixed


def test_how_far_a_sweep_is() -> None:
    assert progress(1, 6, 0, []) == "run 1 of 6"
    assert progress(3, 6, 0, [200, 160]) == "run 3 of 6, about 12 min left"
    assert progress(3, 6, 2, [200, 160]) == "run 3 of 6, about 6 min left"  # two of the four are done already
    assert progress(6, 6, 5, [0.01]) == "run 6 of 6, about 1 s left"
    assert [spelled(seconds) for seconds in (40, 119, 180, 7199, 9000)] == [
        "40 s",
        "119 s",
        "3 min",
        "120 min",
        "2.5 h",
    ]


@pytest.mark.parametrize("words", [["hydra.run.dir=r"], ["+hydra.run.dir=r", "seed=1,2"]])
def test_the_folder_of_one_run_is_refused_for_many_and_the_reverse(words: list[str]) -> None:
    refuse_misplaced(words, multirun=False)
    for mode in (words, [*words, "hydra.mode=MULTIRUN"]):
        with pytest.raises(UserError, match=r"-m makes many: give hydra\.sweep\.dir=FOLDER"):
            refuse_misplaced(mode, multirun=mode is words)
    refuse_misplaced(["hydra.sweep.dir=s"], multirun=True)
    with pytest.raises(UserError, match=r"add -m, or give hydra\.run\.dir=FOLDER"):
        refuse_misplaced(["hydra.sweep.dir=s"], multirun=False)


def finish(folder: Path, model: str, seed: int, auc: float, settings: str = "defaults", dataset: str = "a") -> None:
    config = CONFIG | {"seed": seed, "model": {"_target_": model}, "dataset": {"name": dataset}}
    scores = {"auc": auc, "logloss": 1 - auc}
    result = {"dataset": dataset, "model": model, "seed": seed, "settings": settings, "valid": scores, "test": scores}
    Run.start(folder / f"{dataset}_{model}_seed{seed}", config, resume=False).finish(result)


def test_jobs_that_are_not_done_say_why(tmp_path: Path) -> None:
    finish(tmp_path, "fm", 1, 0.72)
    with pytest.raises(ValueError, match="boom"), Run.start(tmp_path / "b_2", CONFIG, resume=False):
        raise ValueError("boom")
    for name, error in (("b_3", Interrupted(signal.SIGTERM)), ("b_4", KeyboardInterrupt())):
        with pytest.raises(type(error)), Run.start(tmp_path / name, CONFIG, resume=False):
            raise error
    Run.start(tmp_path / "b_10", CONFIG, resume=False)
    finish(tmp_path, "lr", 1, 0.7)
    (tmp_path / "a_lr_seed1/result.json").write_text("[")
    rows = {line.split()[0]: line for line in sweep_table(tmp_path).splitlines()}
    assert list(rows) == ["job", "a_fm_seed1", "a_lr_seed1", "b_2", "b_3", "b_4", "b_10", "in"]
    assert rows["a_fm_seed1"].split()[1:] == ["done", "0.7200", "0.7200", "0.2800"]
    assert "damaged" in rows["a_lr_seed1"]
    assert rows["b_2"].endswith("failed       ValueError: boom")
    assert rows["b_3"].split(maxsplit=1)[1] == "interrupted  by SIGTERM"
    assert rows["b_4"].split(maxsplit=1)[1] == "interrupted  by SIGINT"
    assert rows["b_10"].split()[1] == "lost"


def test_seeds_are_one_row_with_mean_and_sd(tmp_path: Path) -> None:
    draw = random.Random(1)
    aucs = {model: [draw.random() for _ in range(3)] for model in ("lr", "fm")}
    for model, values in aucs.items():
        for seed, auc in enumerate(values):
            finish(tmp_path, model, seed, auc)
    finish(tmp_path, "dnn", 1, 0.5)
    rows = {line.split()[0]: line.split() for line in sweep_table(tmp_path).splitlines()}
    for model, values in aucs.items():
        mean, sd = statistics.fmean(values), statistics.stdev(values)
        assert rows[f"a_{model}"][1:4] == ["3", f"{mean:.4f}", f"{sd:.4f}"]
    assert rows["a_dnn"][1:4] == ["1", "0.5000", "-"]
    assert not any("seed1" in name for name in rows)


def test_a_trial_has_not_read_test(tmp_path: Path) -> None:
    Run.start(tmp_path / "t", CONFIG, resume=False).finish({"valid": {"auc": 0.7}})
    assert sweep_table(tmp_path).splitlines()[1].split() == ["t", "done", "0.7000", "unread", "unread"]


def test_unequal_footing_stands_in_the_table_and_equal_one_does_not(tmp_path: Path) -> None:
    finish(tmp_path, "lr", 1, 0.7, "defaults")
    finish(tmp_path, "fm", 1, 0.8, "tuned/a_fm")
    finish(tmp_path, "fm", 1, 0.8, "tuned/b_fm", "b")  # another table: nobody compares them
    assert "UNEQUAL SETTINGS: a_fm on tuned/a_fm; a_lr on defaults." in sweep_table(tmp_path)
    assert "search for all arms, or for none (tuned=none)" in sweep_table(tmp_path)
    assert "b_fm on" not in sweep_table(tmp_path)
    finish(tmp_path, "fm", 1, 0.8, "defaults")
    assert "UNEQUAL" not in sweep_table(tmp_path)


def test_a_seed_and_a_model_more_repeat_nothing(calls: Calls, prepared: Path, tmp_path: Path) -> None:
    home = shutil.copytree(prepared, tmp_path / "home")  # others count its files
    words = ["train", "-m", "DATASET", *TRAIN, f"hydra.sweep.dir={tmp_path}/s", "resume=true"]
    assert calls(home, *words, "seed=1,2")[0] == 0
    (tmp_path / "s/mini_lr_seed2").rename(tmp_path / "s/1_mini_lr_seed2")  # as earlier versions named it
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(before) == 2
    code, said = calls(home, *words, "model=lr,fm", "seed=1,2,3", "tuned=none")
    assert code == 0, said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    names = {"mini_lr_seed1", "1_mini_lr_seed2", "mini_lr_seed3", *(f"mini_fm_seed{seed}" for seed in (1, 2, 3))}
    assert {path.name for path in (tmp_path / "s").iterdir()} == {*names, "multirun.yaml"}
    assert re.search(r"run 6 of 6, about \d+ s left", said)
    assert "UNEQUAL" not in said
    config = json.loads((tmp_path / "s/mini_fm_seed3/config.json").read_text())
    assert config["choices"]["tuned"] == "none"
    code, said = calls(home, *words, "model=lr,fm", "hydra.run.dir=r")
    assert (code, "give hydra.sweep.dir=FOLDER" in said) == (2, True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["seed=1,-1"], "seed=-1 is not allowed"),
        (["model=deepfm", "model.dropout=0.1,two"], "model.dropout=two is not allowed"),
        (["model=fm,fn"], "no model 'fn'"),
        (["optimizer.lr=1e-3,1e-2,fast"], "optimizer.lr=fast is not allowed"),
        (["dataset.fraction_seed=1,one"], "dataset.fraction_seed=one is not allowed"),
    ],
)
def test_no_job_runs_where_a_later_one_is_wrong(
    calls: Calls, prepared: Path, tmp_path: Path, wrong: list[str], said: str
) -> None:
    code, text = calls(prepared, "train", "-m", "DATASET", *TRAIN, f"hydra.sweep.dir={tmp_path}/s", *wrong)
    assert (code, text.startswith("fieldctr: ")) == (2, True), text
    assert re.search(said, text)
    assert not (tmp_path / "s").exists()


def test_a_value_that_only_a_job_knows_is_read_at_its_turn(calls: Calls, prepared: Path, tmp_path: Path) -> None:
    words = ["train", "-m", "DATASET", *TRAIN, f"hydra.sweep.dir={tmp_path}/s", "tuned=none"]
    code, said = calls(prepared, *words, "seed=5,6", "dataset.fraction_seed=${hydra:job.num}")
    assert (code, "raised" in said) == (0, False), said

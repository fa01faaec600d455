"""The console script as a user meets it: help, typos, completion. No torch, no traceback, the right word offered."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fieldctr.catalog import groups, headline, options
from fieldctr.commands.completion import SCRIPTS, completions
from fieldctr.commands.launch import flags_first

SCRIPT = Path(sys.executable).parent / "fieldctr"


def call(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    without = {key: value for key, value in os.environ.items() if key not in ("FIELDCTR_DATA", "HYDRA_FULL_ERROR")}
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, cwd=folder, env=without | environment, timeout=1800
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian", "model=fat"], ["trian", "train"]),
        (["bench", "trian"], ["trian", "train"]),
        (["list", "modles"], ["modles", "models"]),
        (["train", "model=fta"], ["model 'fta'", "fat"]),
        (["train", "dataset=kuairnad"], ["kuairnad", "kuairand"]),
        (["train", "modle=fm"], ["modle", "model"]),
        (["train", "sede=1"], ["sede", "seed"]),
        (["train", "trianer.max_epochs=1"], ["trianer.max_epochs", "trainer.max_epochs"]),
        (["train", "trainer.max_epoch=1"], ["trainer.max_epoch", "trainer.max_epochs"]),
        (["train", "lr=1"], ["lr", "optimizer.lr"]),
        (["train", "~optimizer.lrr"], ["optimizer.lrr", "optimizer.lr"]),
        (["train", "seed=abc"], ["seed=abc", "int"]),
        (["train", "trainer.precision=fp8"], ["trainer.precision=fp8", "bf16"]),
        (["train", "+trainer.foo=1"], ["trainer.foo"]),
        (["train", "+model.foo=1"], ["model.foo"]),
        (["train", "enhancer=null"], ["enhancer=null", "none"]),
        (["train", "seed"], ["seed", "KEY=VALUE"]),
        (["evaluate"], ["run"]),
        (["scaling"], ["runs"]),
        (["scaling", "runs=nowhere"], ["nowhere", "run folder"]),
        (["scaling", "runs=x", "model=fat"], ["no key 'model'", "scaled"]),  # a group that this command has not
        (["scaling", "buond"], ["buond", "bound"]),
        (["train", "dataset=tidy", "dataset.source.split={day: 1}"], ["no key 'dataset.source.split.day'", "split.by"]),
        (["train", "ablation=fat_shared_fnn"], ["fat_shared_fnn", "fat_shared_ffn"]),
        (["evaluate", "run=nowhere"], ["nowhere", "run folder"]),
    ],
    ids=" ".join,
)
def test_a_mistake_gets_one_or_two_lines_that_name_it(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    done = call(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


OWN_MODEL = "# Mine.\n_target_: mine.Mine\nembedding_std: 0.1\nhidden: 8\n"
OWN_TABLE = "# Shop.\nname: shop\nraw_dir: .\nsource: {_target_: os.system}\nmin_count: 1\ngroup: null\nfields: {a: }\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "sede=2"], ["no key 'sede'. Nearest: seed"]),
        (["train", "-m", "sede=2,3"], ["no key 'sede'. Nearest: seed"]),
        (["train", "model=mine", "model.hiden=3"], ["no key 'model.hiden'. Nearest: model.hidden"]),
        (["train", "-m", "model=mine,fm", "model.hiden=3"], ["no key 'model.hiden'. Nearest: model.hidden"]),
        (["train", "model=mnie"], ["no model 'mnie'. Nearest: mine"]),
        (["train", "model={hiden: 3}"], ["no key 'model.hiden'. All: model._target_"]),
        (["prepare", "dataset=shop"], ["dataset.source._target_=os.system is refused: os is a part of Python"]),
        (["prepare", "dataset=broken"], ["broken.yaml line 3: no valid YAML"]),
        (["lint", "tiem=1"], ["no key 'tiem'. Nearest: time"]),
        (["train", "--experimental-rerun", "x.pickle"], ["--experimental-rerun reads a pickle"]),
        (["train", "-m", "--cfg", "job"], ["--multirun and --cfg do not go together"]),
        (["train", "trust=os"], ["trust=os: this is a part of Python"]),
    ],
    ids=" ".join,
)
def test_a_mistake_beside_config_dir_is_named(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    for name, text in {"model/mine": OWN_MODEL, "dataset/shop": OWN_TABLE, "dataset/broken": "# b\na: [\n"}.items():
        path = tmp_path / f"conf/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = call(*arguments, "--config-dir", "conf", folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=ffm", "enhancer=llactr_random"], "model=ffm and enhancer=llactr_random do not fit together: LLaCTR"),
        (
            ["optimizer.embedding_update=lazy"],
            "embedding_update=lazy cannot be had with optimizer.embedding_l2=1e-05",
        ),
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit_are_refused_before_a_table_is_made(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    done = call("train", "tracker=none", *arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert not (tmp_path / "outputs/data").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = call("train", "model=fta", "--debug", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_cfg_job_prints_the_configuration_without_a_run(tmp_path: Path) -> None:
    done = call("train", "model=fm", "--cfg", "job", "seed=7", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "seed: 7" in done.stdout
    assert not list(tmp_path.iterdir())


def test_flags_may_stand_anywhere() -> None:
    assert flags_first(("a=1", "-m", "b=2")) == ["-m", "a=1", "b=2"]
    assert flags_first(("a=1", "--config-dir", "mine", "b=2")) == ["--config-dir", "mine", "a=1", "b=2"]
    assert flags_first(("a=1", "--cfg", "job")) == ["--cfg", "job", "a=1"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ["train", "predict", "list"]),
        ("tr", ["train"]),
        ("list mod", ["models"]),
        ("list models data", ["dataset=kuairand", "datasets"]),
        ("bench ", ["data", "train"]),
        ("scaling ", ["bound", "runs=", "tracker="]),
        ("scaling bound dataset=kuai", ["dataset=kuairand"]),
        ("train ablation=fat_no", ["ablation=fat_no_modulation"]),
        ("train model=f", ["model=fat", "model=fm"]),
        ("train -m model=lr,f", ["model=lr,fat", "model=lr,fm"]),
        ("train trainer.max", ["trainer.max_epochs="]),
        ("train trainer.precision=b", ["trainer.precision=bf16"]),
        ("train resume=", ["resume=true", "resume=false"]),
        ("ssft encoder=random encoder.tuning.l", ["encoder.tuning.lr=", "encoder.tuning.lora_rank="]),
        ("train enhancer=llactr enhancer.def", []),
        ("doctor ", []),
    ],
)
def test_completion_offers(line: str, expected: list[str]) -> None:
    offered = completions(line.split() + ([""] if line.endswith(" ") or not line else []))
    assert set(expected) <= set(offered)
    assert expected or not offered


def test_bash_accepts_the_completion_script() -> None:
    script = f"{SCRIPTS['bash']}\nCOMP_LINE='fieldctr train track'; COMP_POINT=20; _fieldctr; echo ${{COMPREPLY[*]}}"
    path = f"{SCRIPT.parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert "tracker=" in done.stdout.split(), done.stderr


@pytest.mark.parametrize("group", groups())
def test_every_option_has_a_line_of_its_own_for_the_list(group: str) -> None:
    lines = {option: headline(group, option) for option in options(group)}
    for option, line in lines.items():
        assert line.endswith("."), f"{group}/{option}.yaml needs a first comment that is a sentence, not {line!r}"
        assert len(line.split()) >= 5, f"{group}/{option}.yaml says too little: {line}"
    assert len(set(lines.values())) == len(lines), f"two options of {group} say the same"

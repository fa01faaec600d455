"""The console script as a user meets it: help, typos, completion. No torch, no traceback, the right word offered."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.utils import get_args_parser
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from fieldctr.catalog import conf_dir, groups, headline, options, without_own
from fieldctr.cli import main, run
from fieldctr.commands.completion import SCRIPTS, completions
from fieldctr.commands.explain import explained
from fieldctr.commands.help import page
from fieldctr.commands.launch import FLAGS_WITH_VALUE, compose, flags_first
from fieldctr.commands.list import table
from fieldctr.commands.mistakes import Call, translate
from fieldctr.commands.spelling import refuse_spelling
from fieldctr.commands.words import COMMANDS
from fieldctr.config import flat
from fieldctr.errors import UserError

SCRIPT = Path(sys.executable).parent / "fieldctr"


def call(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    without = {key: value for key, value in os.environ.items() if key not in ("FIELDCTR_DATA", "HYDRA_FULL_ERROR")}
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, cwd=folder, env=without | environment, timeout=1800
    )


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a call says that ends with 2, made in this process: starting another one takes ten times as long."""

    def call_here(*arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["fieldctr", *arguments])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        monkeypatch.delenv("FIELDCTR_DATA", raising=False)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # a call sets it
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr().err
        assert end.value.code == 2, said
        assert "Traceback" not in said
        assert len(said.strip().splitlines()) <= 2, said
        return said

    return call_here


def test_the_console_script_says_what_a_call_in_this_process_does(tmp_path: Path, refused: Callable[..., str]) -> None:
    arguments = ("train", "trianer.max_epochs=1")
    done = call(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian", "model=fat"], ["trian", "train"]),
        (["bench", "trian"], ["trian", "train"]),
        (["bench"], ["fieldctr bench train", "growth"]),
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
def test_a_mistake_gets_one_or_two_lines_that_name_it(
    arguments: list[str], words: list[str], refused: Callable[..., str]
) -> None:
    said = refused(*arguments)
    assert all(word in said for word in words), said


OWN_MODEL = "# Mine.\n_target_: mine.Mine\nembedding_std: 0.1\nhidden: 8\n"
OWN_TABLE = "# Shop.\nname: shop\nraw_dir: .\nsource: {_target_: os.system}\nmin_count: 1\ngroup: null\nfields: {a: }\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "sede=2"], ["no key 'sede'. Nearest: seed"]),
        (["train", "-m", "sede=2,3"], ["no key 'sede'. Nearest: seed"]),
        (["train", "model=mine", "model.hiden=3"], ["no key 'model.hiden'. Nearest: model.hidden"]),
        (["train", "-m", "model=mine,fm", "model.hiden=3"], ["no key 'model.hiden'. Nearest: model.hidden"]),
        (["train", "model=mnie"], ["no model 'mnie'. Nearest: mine", "All: fieldctr list models --config-dir conf"]),
        (["train", "model={hiden: 3}"], ["no key 'model.hiden'. All: model._target_"]),
        (["prepare", "dataset=shop"], ["dataset.source._target_=os.system is refused: os is a part of Python"]),
        (["prepare", "dataset=broken"], ["broken.yaml line 3: no valid YAML"]),
        (["lint", "tiem=1"], ["no key 'tiem'. Nearest: time"]),
        (["train", "--experimental-rerun", "x.pickle"], ["--experimental-rerun reads a pickle"]),
        (["train", "-m", "--cfg", "job"], ["--multirun and --cfg do not go together"]),
        (["train", "trust=os"], ["trust=os: this is a part of Python"]),
        (["train", "-m", "model=glob(mi*)", "model.hiden=3"], ["no key 'model.hiden'. Nearest: model.hidden"]),
        (["train", "-m", "model=choice(mine,fm)", "model.hiden=3"], ["no key 'model.hiden'. Nearest: model.hidden"]),
        (["evaluate", "rum=x"], ["no key 'rum'. Nearest: run"]),
        (["predict", "imput=x"], ["no key 'imput'. Nearest: input"]),
    ],
    ids=" ".join,
)
def test_a_mistake_beside_config_dir_is_named(
    arguments: list[str], words: list[str], tmp_path: Path, refused: Callable[..., str]
) -> None:
    for name, text in {"model/mine": OWN_MODEL, "dataset/shop": OWN_TABLE, "dataset/broken": "# b\na: [\n"}.items():
        path = tmp_path / f"conf/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    said = refused(*arguments, "--config-dir", "conf")
    assert all(word in said for word in words), said


def test_a_mistake_beside_a_folder_in_hydras_own_words_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text(OWN_MODEL)
    call = Call(["model=mine", "model.hiden=3", f"hydra.searchpath=['file://{tmp_path}']"])
    error = ConfigCompositionException("Could not override 'model.hiden'.")
    assert translate(error, "train", call).startswith("no key 'model.hiden'. Nearest: model.hidden")
    call = Call(["model=mine", "model.hiden=3"])  # a choice that is wrong as well
    assert translate(error, "train", call).startswith("no key 'model.hiden'. ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train --model deepfm", "no flag '--model'. A key has no dashes: write model=deepfm"),
        ("train --model=deepfm", "write model=deepfm"),
        ("train -model deepfm seed=1", "write model=deepfm"),
        ("train --trainer.batch-size 5", "write trainer.batch_size=5"),
        ("train --seed", "write seed=VALUE"),
        ("train model = deepfm", "'model =': write model=deepfm, without blanks around ="),
        ("train seed=1 model =deepfm", "write model=deepfm, without blanks"),
        ("train model= deepfm", "write model=deepfm, without blanks"),
        ("train trainer.patience = 5", "write trainer.patience=5, without blanks"),
        ("train seed =", "write seed=VALUE, without blanks"),
        ("train = 3", "'=' names no key"),
        ("train model deepfm", "'model deepfm': write model=deepfm"),
        ("train deepfm", "'deepfm' stands alone: write model=deepfm or space=deepfm"),
        ("train --config-dir conf model deepfm", "write model=deepfm"),
        ("train --multirn seed=1,2", "no flag '--multirn'. Nearest: --multirun"),
        ("bench train --steps 3", "write steps=3"),
    ],
)
def test_a_call_in_another_spelling_is_told_the_right_one(words: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        run(*words.split())


@pytest.mark.parametrize(
    "words", ["", "seed=1", "-m --config-dir conf", "--cfg job seed=1", "-cd conf -p trainer", "~seed +a.b=1"]
)
def test_what_hydra_takes_is_no_mistake_of_spelling(words: str) -> None:
    """Nor does it hide one: of all the words only the mistake at the end is refused."""
    flags = get_args_parser()._option_string_actions
    refuse_spelling(words.split(), flags, FLAGS_WITH_VALUE)
    with pytest.raises(UserError, match=r"^'model deepfm': write model=deepfm$"):
        refuse_spelling([*words.split(), "model", "deepfm"], flags, FLAGS_WITH_VALUE)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("model=lr,fm", "model=lr,fm has several values. For a run of each add -m: fieldctr train -m model=lr,fm"),
        ("seed=1,2", "fieldctr train -m seed=1,2, or seed=[1,2] if one list is meant"),
        ("model=glob(f*)", "fieldctr train -m model=glob(f*)"),
        ("seed=range(1,4)", "fieldctr train -m seed=range(1,4)"),
    ],
)
def test_several_values_point_to_a_sweep(word: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        compose("train", [word])


@pytest.mark.parametrize(
    "words",
    [
        *COMMANDS,
        "bench train",
        "bench data",
        "bench serve",
        "bench llm",
        "bench limits",
        "bench growth",
        "scaling bound",
        "study status",
    ],
)
def test_every_command_has_help(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(*words.split(), "--help")
    said = capsys.readouterr().out
    assert f"usage: fieldctr {words}" in said or words == "completion"
    assert "usage: " in said


@pytest.mark.parametrize("action", ["list", "show", "verify"])
def test_inspections_of_ssft_have_help(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("ssft", action, "--help")
    assert "usage: fieldctr ssft list | show DIGEST | verify" in capsys.readouterr().out


@pytest.mark.parametrize("command", [path.stem for path in conf_dir().glob("*.yaml") if path.stem != "base"])
def test_help_shows_each_key_once_and_groups_that_the_command_reads(command: str) -> None:
    said = list(page(command, {}))
    keys = [line.split("=")[0].strip() for line in said if re.match(r"  [\w.]+=", line)]
    node: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{command}.yaml"), resolve=False)
    for key in flat({name: value for name, value in node.items() if name not in ("defaults", "hydra")}):
        assert key in keys, key
    read = {key for entry in node["defaults"] if isinstance(entry, dict) for key in entry}
    told = {line.split("=")[0] for line in said if re.match(r"[a-z]+=", line.lstrip("\n"))}
    assert {name.strip() for name in told} <= read


def test_help_has_default_range_and_comment_of_a_key_of_the_choice(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text("# Mine.\nhidden: [8, 4] # units\nname: 'a # b'\nmore:\n  a: 1 # one\n")
    said = "\n".join(page("train", {"model": "mine"}, tmp_path))
    for key, told in {
        "seed=1": "int from 0 to 4294967295",
        "trainer.precision=fp32": "fp32 | tf32 (CUDA) | bf16",
        "trainer.lr_decay=": "float from 0 to 1; ",
        "model.hidden=[8, 4]": "units",
        "model.name='a # b'": "",
        "model.more.a=1": "one",
        "model=mine": "Mine.",
    }.items():
        assert re.search(rf"^  {re.escape(key)}\S*\s+{re.escape(told)}", said, re.M), key
    with pytest.raises(UserError, match="no model 'mine'"):
        list(page("train", {"model": "mine"}))
    with pytest.raises(UserError, match="evaluate reads no group 'model'"):
        list(page("evaluate", {"model": "fat"}))


def test_explain_prints_the_yaml_and_what_it_starts_from() -> None:
    said = "\n".join(explained("model=fat_llm"))
    for name in ("fat_llm", "fat"):
        assert (conf_dir() / f"model/{name}.yaml").read_text(encoding="utf-8").strip() in said
    assert [line for line in explained("trainer.patience") if "evaluations" in line]
    assert "\n".join(explained("model.num_layers")).count("model.num_layers=") > 1


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("model=fta", "no model 'fta'. Nearest: fat"),
        ("fwfm", "Write model=fwfm or space=fwfm"),
        ("trainer.patiense", "Nearest: trainer.patience"),
        ("train", "fieldctr train --help explains the command"),
    ],
)
def test_explain_names_what_it_does_not_know(word: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        list(explained(word))


def test_own_yaml_is_listed_explained_and_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my/model").mkdir(parents=True)
    (tmp_path / "my/model/mine.yaml").write_text("# Mine, of which one says more.\nhidden: 8 # units\n")
    monkeypatch.chdir(tmp_path)
    assert "  mine         Mine, of which one says more." in table("model", "my")
    assert "mine " not in table("model")
    assert "hidden: 8 # units" in "\n".join(explained("model=mine", "my"))
    own = ["--config-dir", "my"]
    assert completions(["train", *own, "model=mi"]) == ["model=mine"]
    assert completions(["train", "--config-dir=my", "model=lr,mi"]) == ["model=lr,mine"]
    assert completions(["train", *own, "model=mine", "model.h"]) == ["model.hidden="]
    assert completions(["explain", *own, "model=mi"]) == ["model=mine"]
    assert completions(["train", "model=mi"]) == []


def test_completion_offers_files_where_a_file_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "rows.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert sorted(completions(["predict", "input=r"])) == ["input=rows.csv", "input=runs/"]
    assert completions(["evaluate", "run=runs/"]) == ["run=runs/one/"]
    assert completions(["train", f"warm_start={tmp_path}/ru"]) == [f"warm_start={tmp_path}/runs/"]
    assert completions(["train", "--config-dir", ""]) == ["runs/"]
    assert completions(["train", "runtime.matmul=m"]) == ["runtime.matmul=mkl"]
    assert completions(["evaluate", "run=nowhere/"]) == []


@pytest.mark.parametrize("call", ["list models --config-dir nowhere", "explain model=fm --config-dir", "doctor -cd no"])
def test_a_folder_of_yaml_that_is_none_is_named(call: str) -> None:
    with pytest.raises(UserError, match="expected a folder of your own YAML"):
        without_own(call.split())


def test_so_is_one_of_a_command_that_reads_the_configuration() -> None:
    with pytest.raises(UserError, match="--config-dir nowhere: expected a folder of your own YAML"):
        run("train", "--config-dir", "nowhere", "model=mine")


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
    arguments: list[str], words: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert words in refused("train", "tracker=none", *arguments)
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
        ("bench ", ["data", "growth", "limits", "llm", "serve", "train"]),
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

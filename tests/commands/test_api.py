"""fieldctr from Python: the same numbers as the command line's, twice in one process, from any folder."""

import dataclasses
import io
import json
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import fieldctr
from fieldctr import FinishedRun, UserError, compose, evaluate, load_run, prepare, train, trust
from fieldctr.commands.clean import unused
from fieldctr.commands.evaluate import main as print_evaluation
from fieldctr.data.frames import AnyFrame, as_polars, stored
from fieldctr.runs import Run, config_digest

Call = Callable[..., subprocess.CompletedProcess[str]]
TABLE = [
    "dataset=tidy", "dataset.source.label.column=click", "+dataset.fields.user={}", "+dataset.fields.item={}",
    "+dataset.fields.price={kind: value}",
]  # fmt: skip
TRAIN = [
    "model=dnn", "model.dropout=0.1", *TABLE, "tracker=none", "trainer.max_epochs=2", "trainer.batch_size=64",
    "runtime.threads=1", "runtime.matmul=mkl", "optimizer.lr=0.01",
]  # fmt: skip
FILES = ("model.safetensors", "valid.scores.npy", "test.scores.npy")


def clicks(rows: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    user, item = rng.integers(0, 9, rows), rng.integers(0, 5, rows)
    frame = pl.DataFrame({"user": user, "item": item, "price": rng.random(rows).round(3)})
    return frame.with_columns(
        pl.format("u{}", "user").alias("user"), click=pl.Series((rng.random(rows) < 0.1 + 0.2 * item).astype(int))
    )


def files(run: FinishedRun) -> list[bytes]:
    return [(run.folder / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def config(home: Path) -> dict[str, Any]:
    return compose("train", [*TRAIN, f"outputs={home / 'outputs'}"])


@pytest.fixture(scope="module")
def run(config: dict[str, Any]) -> FinishedRun:
    """Trained on a frame, in a folder of its own."""
    return train(config, clicks())


def test_a_second_call_and_the_command_line_give_the_same_bytes(
    run: FinishedRun, config: dict[str, Any], home: Path, call: Call
) -> None:
    again = train(config, clicks().lazy())
    assert again.folder != run.folder
    stored_at = json.loads((run.folder / "config.json").read_text())["dataset"]["raw_dir"]
    table = [f"dataset.raw_dir={stored_at}", "dataset.source.files=frame.parquet", f"outputs={home / 'outputs'}"]
    done = call(home, "train", *TRAIN, *table, "hydra.run.dir=called")
    assert done.returncode == 0, done.stderr
    called = load_run(home / "called", outputs=home / "outputs")
    assert files(run) == files(again) == files(called)
    assert run.config == again.config == called.config
    for key in ("config_digest", "data_digest", "schema_digest", "valid", "test", "best_step"):
        assert run.result[key] == again.result[key] == called.result[key], key


def test_calls_with_other_settings_between_change_nothing(
    run: FinishedRun, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = config | {
        "trainer": config["trainer"] | {"deterministic": False, "max_epochs": 1},
        "runtime": config["runtime"] | {"threads": 2},
    }
    torch.manual_seed(5)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    different = train(other, clicks())
    monkeypatch.chdir(tmp_path)
    again = train(config, clicks())
    assert files(again) == files(run) != files(different)
    assert run.evaluate("valid") == run.metrics["valid"]
    assert different.evaluate("test")["auc"] == pytest.approx(different.metrics["test"]["auc"], abs=1e-6)
    assert run.evaluate("test") == run.metrics["test"], "its own settings, after those of another run"
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert not any(tmp_path.iterdir())


def test_a_run_offers_plain_objects_and_frames(run: FinishedRun) -> None:
    assert run.metrics["test"] == json.loads((run.folder / "result.json").read_text())["test"]
    assert run.history["step"].to_list() == [
        json.loads(line)["step"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()
    ]
    best = run.history.filter(pl.col("step") == run.result["best_step"])
    assert best["valid/auc"].item() == run.metrics["valid"]["auc"]
    for split, frame in run.scores.items():
        assert len(frame) == run.result["num_rows"][split]
        loss = -pl.when(pl.col("label") == 1).then(pl.col("pctr").log()).otherwise((1 - pl.col("pctr")).log())
        assert frame.select(loss.mean()).item() == pytest.approx(run.metrics[split]["logloss"], abs=1e-6)
    loaded = load_run(str(run.folder))
    assert (loaded.folder, loaded.metrics, loaded.outputs) == (run.folder, run.metrics, run.outputs)
    assert loaded.scores["test"].equals(run.scores["test"])
    assert loaded.dataset.digest == run.result["data_digest"]


def test_a_frame_and_its_file_get_the_same_predictions(
    run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = clicks()
    found = load_run(run.folder).predict(rows)
    assert found.columns == [*rows.columns, "pctr"]
    assert found.drop("pctr").equals(rows)
    known = run.scores["test"]["pctr"].to_numpy()
    nearest = np.abs(found["pctr"].to_numpy()[:, None] - known[None]).min(0)
    assert nearest.max() < 1e-6, "each test row's score is among those of the frame"
    rows.write_csv(tmp_path / "rows.csv")
    assert run.predict(tmp_path / "rows.csv")["pctr"].equals(found["pctr"])
    assert run.predict(rows[::-1].lazy().drop("click"), column="p")["p"].equals(found["pctr"][::-1].alias("p"))
    assert len(run.predict(rows[:0])) == 0
    capsys.readouterr()
    run.predict(rows.with_columns(user=pl.lit("nobody")))
    assert "field 'user': all of the values were not seen" in capsys.readouterr().err
    with pytest.raises(UserError, match="has a column 'pctr' already"):
        run.predict(found)
    with pytest.raises(UserError, match="no column 'user'"):
        run.predict(rows.drop("user"))
    with pytest.raises(UserError, match=r"nowhere\.csv is missing"):
        run.predict("nowhere.csv")
    with pytest.raises(UserError, match="expected a polars or pandas frame, or the path of a file, got list"):
        run.predict([1, 2])  # ty: ignore[invalid-argument-type]


def test_a_run_finds_its_table_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [train(compose("train", TRAIN), clicks()), train(compose("train", TRAIN), clicks(), folder="named")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for run in made:
        assert load_run(run.folder).evaluate("valid") == run.metrics["valid"]
    shutil.move(tmp_path / "outputs", tmp_path / "moved")
    assert load_run(tmp_path / "moved/train" / made[0].folder.name).outputs == tmp_path / "moved"
    with pytest.raises(UserError, match=r"its prepared table .* is gone\. Set outputs="):
        load_run("../named").evaluate()
    assert load_run("../named", outputs="../moved").evaluate() == made[1].metrics["test"]


def test_evaluate_takes_a_composed_call_and_leaves_its_file(run: FinishedRun) -> None:
    words = [f"run={run.folder}", "split=valid", f"outputs={run.outputs}", "runtime.threads=1", "runtime.matmul=mkl"]
    assert evaluate(compose("evaluate", words)) == run.metrics["valid"]
    assert json.loads((run.folder / "evaluate-valid.json").read_text()) == run.metrics["valid"]
    with pytest.raises(UserError, match=r"split=all is not allowed: expected train \| valid \| test"):
        run.evaluate("all")


def test_evaluate_by_frequency_counts_the_rows_that_the_model_was_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(compose("train", [*TRAIN, "train_rows=30", "seed=5"]), clicks())
    here = [f"run={run.folder}", "split=valid", "runtime.threads=1", "runtime.matmul=mkl"]
    found = evaluate(compose("evaluate", [*here, "by=frequency:user"]))
    by = found.pop("by")
    assert found == run.metrics["valid"]
    column = run.dataset.schema.column_offsets[run.dataset.schema.index("user")]
    seen = run.dataset.train.sample(30, seed=5).ids[:, column].tolist()
    digits = [
        len(str(seen.count(one))) if one and one in seen else 0 for one in run.dataset.valid.ids[:, column].tolist()
    ]
    names = {0: "none", 1: "1 to 9", 2: "10 to 99"}
    assert [(part["value"], part["num_rows"]) for part in by["parts"]] == [
        (names[code], digits.count(code)) for code in sorted(set(digits))
    ]
    print_evaluation(compose("evaluate", [*here, "by=user"]))
    said = capsys.readouterr().out
    assert "95 % interval" in said
    assert "Intervals are over other rows" in said
    assert json.loads((run.folder / "evaluate-valid.json").read_text())["by"]["field"] == "user"
    with pytest.raises(UserError, match=r"by=frequency:usr: no field 'usr'\. Nearest: user"):
        evaluate(compose("evaluate", [*here, "by=frequency:usr"]))
    with pytest.raises(UserError, match=r"by=frequency: dataset '.*' does not say what an item is.* frequency:user"):
        evaluate(compose("evaluate", [*here, "by=frequency"]))


def test_a_frame_with_side_tables_is_prepared_as_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clicks().write_parquet("clicks.parquet")
    pl.DataFrame({"item": range(5), "kind": ["a", "b", "a", "c", "b"]}).write_csv("items.csv")
    sides = [
        "dataset.raw_dir=.",
        "dataset.source.joins={items: {files: items.csv, on: item}}",
        "+dataset.fields.kind={}",
    ]
    node = compose("prepare", [*TABLE, *sides, "dataset.source.files=clicks.parquet"])
    of_file, of_frame = prepare(node), prepare(node, clicks())
    assert of_file.folder != of_frame.folder
    for name in ("train.ids.npy", "test.label.npy", "schema.json"):
        assert (of_file.folder / name).read_bytes() == (of_frame.folder / name).read_bytes(), name
    assert prepare(node, clicks()).folder == of_frame.folder
    with pytest.raises(UserError, match=r"'synthetic' takes no frame.*dataset=tidy takes any table"):
        prepare(compose("prepare"), clicks())


def test_the_content_of_a_frame_decides_its_digest(tmp_path: Path) -> None:
    draw = random.Random(3)
    for _ in range(10):
        rows = draw.randrange(2, 60)
        frame = pl.DataFrame(
            {
                "text": [draw.choice([None, "", "a", "é", "long " * 9]) for _ in range(rows)],
                "number": [draw.choice([None, 0.0, -0.0, 1.5, float("inf")]) for _ in range(rows)],
                "list": [draw.choice([None, [], ["x"], ["x", "y"]]) for _ in range(rows)],
                "row": range(rows),
            }
        )
        folder, cut = stored(frame, tmp_path), draw.randrange(rows)
        for same in (
            pl.concat([frame[:cut], frame[cut:]], rechunk=False),
            pl.concat([frame[cut:], frame])[rows - cut :],
            frame.lazy(),
            frame[::-1].with_columns(pl.col("text").cast(pl.Categorical))[::-1],
            pl.read_ipc(io.BytesIO(frame.write_ipc(None).getvalue())),
        ):
            assert stored(same, tmp_path) == folder
        for other in (
            frame.with_columns(row=pl.when(pl.col("row") == cut).then(-1).otherwise("row")),
            frame.with_columns(pl.col("row").cast(pl.Int32)),
            frame.rename({"row": "rows"}),
            frame.select(reversed(frame.columns)),
            frame[::-1],
            frame[1:],
        ):
            assert stored(other, tmp_path) != folder
        assert pl.read_parquet(folder / "frame.parquet").equals(frame)


@dataclasses.dataclass
class Column:
    """As much of a pandas column as is asked for."""

    values: np.ndarray
    dtype: Any

    def to_numpy(self) -> np.ndarray:
        return self.values

    def tolist(self) -> list[Any]:
        return self.values.tolist()

    def isna(self) -> "Column":
        return Column(np.array([value is None or value != value for value in self.values]), bool)


class Pandas:
    """As much of a pandas frame as is asked for."""

    def __init__(self, **columns: Column) -> None:
        self.made = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Column:
        return self.made[name]

    def isna(self) -> None: ...


def test_a_pandas_frame_is_converted_without_pandas() -> None:
    nan, texts = float("nan"), np.array(["a", None, "b"], object)
    frame = Pandas(
        user=Column(texts, texts.dtype),
        label=Column(np.array([1, 0, 1]), np.dtype(int)),
        price=Column(np.array([0.5, nan, 2]), np.dtype(float)),
        whole=Column(np.array([2**60 + 1, None, 3], object), "Int64"),
        when=Column(np.array(["2020-01-01", "NaT", "2020-01-03"], "datetime64[s]"), np.dtype("datetime64[s]")),
        mixed=Column(np.array([nan, nan, "x"], object), np.dtype(object)),
    )
    found = as_polars(frame)
    assert found.drop("when").to_dict(as_series=False) == {
        "user": ["a", None, "b"],
        "label": [1, 0, 1],
        "price": [0.5, None, 2.0],
        "whole": [2**60 + 1, None, 3],
        "mixed": [None, None, "x"],
    }
    assert found["when"].dt.date().cast(pl.String).to_list() == ["2020-01-01", None, "2020-01-03"]
    with pytest.raises(UserError, match="column 'bad' of the frame holds values of several types"):
        as_polars(Pandas(bad=Column(np.array([1, "a", 2.5], object), np.dtype(object))))


def test_a_frame_of_pandas_itself() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed here: its stand-in is tested above")
    rows = clicks()
    frame: AnyFrame = pandas.DataFrame(rows.to_dict(as_series=False))
    assert as_polars(frame).equals(rows)


def test_an_interrupt_keeps_a_checkpoint_and_no_handler_is_installed(
    run: FinishedRun, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    log, seen = Run.log, list[Any]()

    def interrupted(self: Run, record: dict[str, float]) -> None:
        seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])
        if len(seen) == 2:
            raise KeyboardInterrupt
        log(self, record)

    monkeypatch.setattr(Run, "log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, clicks(), folder=tmp_path / "run")
    assert seen == [handlers, handlers]
    assert list((tmp_path / "run/checkpoint").glob("step-*"))
    with pytest.raises(UserError, match="it has not finished"):
        load_run(tmp_path / "run")
    monkeypatch.undo()
    resumed = train(config | {"resume": True}, clicks(), folder=tmp_path / "run")
    assert files(resumed) == files(run)
    assert resumed.history["step"].to_list() == run.history["step"].to_list()
    before = (resumed.folder / "result.json").stat().st_mtime_ns
    train(config | {"resume": True}, clicks(), folder=tmp_path / "run")
    assert (resumed.folder / "result.json").stat().st_mtime_ns == before


def test_names_change_no_digest_and_are_asked_for(config: dict[str, Any], tmp_path: Path) -> None:
    earlier = {key: value for key, value in config.items() if key != "choices"}
    assert config["choices"]["model"] == "dnn"
    assert config_digest(earlier) == config_digest(config) == config_digest(config | {"choices": {"model": "x"}})
    with Run.start(tmp_path, earlier, resume=False):
        pass
    with Run.start(tmp_path, config, resume=True):
        pass
    assert json.loads((tmp_path / "config.json").read_text())["choices"]["dataset"] == "tidy"
    with pytest.raises(UserError, match=r"key 'choices\.model' is missing.*compose\(\.\.\.\) sets it"):
        train(earlier, clicks(), folder=tmp_path / "none")
    with pytest.raises(UserError, match="no key 'engine'"):
        train(compose("prepare"), folder=tmp_path / "none")
    with pytest.raises(UserError, match=r"trainer\.dry_run=true trains nothing"):
        train(config | {"trainer": config["trainer"] | {"dry_run": True}}, folder=tmp_path / "none")


def test_what_the_command_line_composes_is_what_python_composes(home: Path, call: Call) -> None:
    words = ["model=dcnv2", "dataset=coupon", "enhancer=llactr", "seed=7", "experiment=llactr_placebo"]
    done = call(home, "train", *words, "--cfg", "job", "--resolve")
    printed: Any = OmegaConf.to_container(OmegaConf.create(done.stdout))
    found = compose("train", words)
    choices = found.pop("choices")
    assert found == printed
    assert (choices["model"], choices["enhancer"], choices["tuned"]) == ("dcnv2", "llactr", "none")


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        ("trian", [], "no command to compose for 'trian'. Nearest: train"),
        ("train", "model=fat", "expected a list of texts KEY=VALUE"),
        ("train", ["model=fat", 3], "expected a list of texts KEY=VALUE"),
        ("train", ["model=fta"], "no model 'fta'. Nearest: fat"),
        ("train", ["modle=fat"], "no key 'modle'. Nearest: model"),
        ("train", ["optimizer.lrr=1"], r"no key 'optimizer\.lrr'. Nearest: optimizer\.lr"),
        ("train", ["model=lr,fm"], "lr,fm"),
        ("train", ["model="], "model=: a group is chosen by name"),
        ("train", ["tuned=coupon_fmm"], "no tuned 'coupon_fmm'"),
        ("train", ["seed=[1"], r"cannot read 'seed=\[1'"),
        ("train", ["-m"], "-m belongs to the command line"),
        ("train", ["hydra.run.dir=x"], r"train\(\.\.\., folder=\.\.\.\)"),
        ("train", ["+hydra.searchpath=[pkg://x]"], "belongs to the command line"),
        ("train", ["hydra/launcher=joblib"], "belongs to the command line"),
        ("train", ["trust=os"], "trust=os: this is a part of Python"),
        ("evaluate", [], "evaluate needs a value for 'run'"),
        ("prepare", ["dataset.name=${nope}"], "Interpolation key 'nope' not found"),
    ],
)
def test_a_mistake_is_one_sentence(command: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compose(command, overrides)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of somebody's YAML and the package that it names; what is trusted is forgotten afterwards."""
    folder = tmp_path / "it's mine"
    for name, text in {
        "model/mine.yaml": "_target_: mine_of_api.Model\nnote: ${hydra:runtime.choices.model}\n",
        "experiment/hostile.yaml": "# @package _global_\nhydra: {callbacks: {x: {_target_: os.system, command: ls}}}\n",
        "experiment/bomb.yaml": "# @package _global_\na: &a [1, *a]\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = set(trust.trusted())
    monkeypatch.setenv(trust.VARIABLE, "")
    yield folder
    trust.trusted().intersection_update(before)


def test_a_folder_of_one_s_own_is_read_trusted_by_name_and_guarded(own: Path) -> None:
    state = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    node = compose("train", ["model=mine"], config_dir=own)
    assert (node["choices"]["model"], node["model"]["note"]) == ("mine", "mine")
    assert "mine_of_api" not in trust.trusted()
    compose("train", ["model=mine"], config_dir=str(own), trust="mine_of_api")
    assert {"mine_of_api"} <= trust.trusted()
    with pytest.raises(UserError, match=r"no key 'modle'\. Nearest: model"):
        compose("train", ["modle=mine"], config_dir=own)
    with pytest.raises(UserError, match=r"hydra\.callbacks\.x\._target_=os\.system is refused"):
        compose("train", ["experiment=hostile"], config_dir=own)
    with pytest.raises(UserError, match="stands inside itself"):
        compose("train", ["experiment=bomb"], config_dir=own)
    with pytest.raises(UserError, match="config_dir=nowhere: no such folder"):
        compose("train", config_dir="nowhere")
    with pytest.raises(UserError, match="expected the name of a package"):
        compose("train", trust=["a.b"])
    assert (GlobalHydra.instance().hydra, HydraConfig.instance().cfg) == state


def test_composing_inside_another_program_of_hydra_leaves_it_as_it_was(own: Path) -> None:
    with initialize_config_dir(str(own), version_base="1.3"):
        theirs = GlobalHydra.instance().hydra
        assert compose("prepare", ["dataset=coupon"])["dataset"]["name"] == "coupon"
        assert GlobalHydra.instance().hydra is theirs is not None
        assert hydra_compose("model/mine").model._target_ == "mine_of_api.Model"


def test_clean_keeps_the_frames_of_runs(run: FinishedRun) -> None:
    other = stored(clicks(7), run.outputs / "frames")
    frame = Path(run.config["dataset"]["raw_dir"])
    found = [folder for folder, _ in unused(run.outputs, None)]
    assert other in found
    assert frame.is_dir()
    assert frame not in found


def test_importing_fieldctr_is_light() -> None:
    names = "{'torch', 'hydra', 'polars', 'numpy'} & set(sys.modules)"
    script = (
        f"import sys, fieldctr; print(sorted({names})); from fieldctr import UserError, compose; compose('train');"
        "from fieldctr import load_run; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "False"], done.stderr
    assert set(fieldctr.__all__) <= set(dir(fieldctr))
    for name in fieldctr.__all__:
        assert getattr(fieldctr, name).__module__.startswith("fieldctr.")
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        fieldctr.trian  # noqa: B018
    assert Path(fieldctr.__file__).with_name("py.typed").exists()


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(Path(__file__).parents[2] / "scripts/example.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "pctr" in said
    assert "fm" in said


def test_the_snippets_of_the_documentation_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """One after the other, as in a notebook. Their toy tables may be warned about."""
    monkeypatch.chdir(tmp_path)
    text = Path(fieldctr.__file__).with_name("README.md").read_text(encoding="utf-8")
    snippets, names = re.findall(r"```python\n(.*?)```", text, re.DOTALL), dict[str, Any]()
    warnings.simplefilter("always")
    for snippet in snippets:
        exec(snippet, names)
    assert len(snippets) == 4
    assert names["run"].result["model"] == "lr"
    assert len(list((tmp_path / "outputs/train").iterdir())) == 2

"""`fieldctr export`: a folder that says without fieldctr what `fieldctr predict` says, whole or absent."""

import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from by_path import loaded
from own_keys import own_keys
from torch import nn
from torch._inductor import cpp_builder, exc

from fieldctr import FinishedRun, UserError, compose, train
from fieldctr.artifacts import file_digest
from fieldctr.catalog import conf_dir, options
from fieldctr.commands import bench_serve, export
from fieldctr.commands.entity_vectors import drawn_texts
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.inputs import Inputs
from fieldctr.models.contract import batch_of
from fieldctr.models.ctr_model import Output, build_model
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.schema import Field, Schema
from fieldctr.serving.graph import FILES, Format, Served, searched, traced, write_graph
from fieldctr.serving.scorer import Scorer, load_graph
from fieldctr.serving.tables import Int8Table, to_int8

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
each_format = pytest.mark.parametrize(
    "kind",
    [
        "pt2",
        pytest.param("onnx", marks=pytest.mark.skipif(not ONNX, reason="onnx, onnxscript, onnxruntime")),
        pytest.param("aoti", marks=pytest.mark.skipif(not shutil.which("c++"), reason="a C++ compiler")),
    ],
)
pytestmark = pytest.mark.filterwarnings("ignore:model.num_bases", "ignore::DeprecationWarning")


def neighbour(path: str) -> ModuleType:
    """A module of tests, for what it makes."""
    return loaded(Path(__file__).parents[1] / path)


TABLES, MODELS = neighbour("serving/test_transforms.py"), neighbour("models/conftest.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A model of every kind of field, trained on a table whose non-clicks were down-sampled."""
    home = tmp_path_factory.mktemp("run")
    words = ["model=dcnv2", "dataset=tidy", "tracker=none", "trainer.max_epochs=1", "trainer.batch_size=64"]
    node = compose("train", [*words, "runtime.threads=1", "runtime.matmul=mkl", f"outputs={home / 'outputs'}"])
    fields = {name: field for name, field in TABLES.FIELDS.items() if name != "cost"}  # too large for a model
    node["dataset"] |= TABLES.node_of(home, TABLES.table(1), fields) | {"name": "mini", "negative_rate": 0.5}
    return train(node, folder=home / "run")


def exported(run: FinishedRun, output: Path, *words: str) -> dict[str, Any]:
    outputs = run.folder.parent / "outputs"
    own = [f"run={run.folder}", f"output={output}", f"outputs={outputs}", "runtime.threads=1", "runtime.matmul=mkl"]
    export.main(compose("export", [*own, *words]))
    return json.loads((output / "card.json").read_text())


@pytest.mark.slow
@each_format
def test_raw_rows_get_the_pctr_of_predict(kind: Format, run: FinishedRun, tmp_path: Path) -> None:
    card = exported(run, tmp_path / "bundle", f"format={kind}")
    rows = TABLES.table(7, 100)
    expected = run.predict(rows)["pctr"].to_numpy()
    scorer = Scorer(tmp_path / "bundle")
    assert np.abs(scorer.pctr(rows.to_dicts()) - expected).max() <= export.LIMITS[kind]
    np.testing.assert_allclose(scorer.pctr(rows.head(1).to_dicts()), expected[:1], atol=1e-5)
    assert len(scorer.pctr([])) == 0
    assert card["parity"]["rows"] == len(run.dataset.valid)
    assert card["parity"]["largest"] <= card["parity"]["limit"] == export.LIMITS[kind]
    files = {path.relative_to(tmp_path / "bundle").as_posix() for path in (tmp_path / "bundle").rglob("*.*")}
    assert set(card["files"]) == files - {"card.json"}
    assert all(file_digest(tmp_path / "bundle" / name) == digest for name, digest in card["files"].items())
    if kind != "aoti":  # torch writes the compiler's call into it, with the folders of its libraries
        assert str(conf_dir().parent).encode() not in (tmp_path / "bundle" / FILES[kind]).read_bytes()
    if kind == "onnx":
        alone(tmp_path / "bundle", rows, expected)


def alone(bundle: Path, rows: pl.DataFrame, expected: np.ndarray) -> None:
    """In a process in which nothing but numpy and onnxruntime can be imported of what fieldctr needs."""
    rows.write_ndjson(bundle.parent / "rows.jsonl")
    hidden = ["fieldctr", "torch", "polars", "hydra", "omegaconf", "scipy", "safetensors", "onnx", "onnxscript"]
    code = (
        f"import runpy, sys; sys.modules |= dict.fromkeys({hidden}); sys.argv[1:] = ['rows.jsonl']; "
        "sys.path.insert(0, 'bundle'); runpy.run_module('scorer', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=bundle.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, atol=1e-5)


@pytest.mark.slow
def test_tables_of_eight_bits_say_what_they_cost(run: FinishedRun, tmp_path: Path) -> None:
    small = exported(run, tmp_path / "bundle", "int8=true")["int8"]
    assert small["table_bytes"] < small["table_bytes_before"]
    assert small["loss_of_auc"] == pytest.approx(small["valid_auc_before"] - small["valid_auc"])
    assert small["valid_auc_before"] == pytest.approx(run.metrics["valid"]["auc"])
    assert f"a loss of {small['loss_of_auc']:z.6f}" in (tmp_path / "bundle/README.md").read_text()
    rows = TABLES.table(8, 50)
    pctr = Scorer(tmp_path / "bundle").pctr(rows.to_dicts())
    assert 0 < np.abs(pctr - run.predict(rows)["pctr"].to_numpy()).max() < 0.02


def test_what_cannot_be_exported_leaves_nothing(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=r"there is there already. Name another folder"):
        exported(run, tmp_path / "there")
    with pytest.raises(UserError, match=r"format=tflite is not allowed: expected pt2 \| aoti \| onnx"):
        exported(run, tmp_path / "bundle", "format=tflite")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", ModuleType("onnx"))
    with pytest.raises(UserError, match=r"format=onnx needs onnxscript: pip install 'fieldctr\[onnx\]'"):
        exported(run, tmp_path / "bundle", "format=onnx")
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", no_compiler)
    with pytest.raises(UserError, match=r"format=aoti needs a C\+\+ compiler, got none: install .* or set format=pt2"):
        exported(run, tmp_path / "bundle", "format=aoti")
    monkeypatch.setattr(export, "traced", lambda *_, **__: None)
    monkeypatch.setattr(export, "write_graph", lambda *_: None)
    monkeypatch.setattr(export.scorer, "Scorer", lambda *_, **__: Far())
    with pytest.raises(UserError, match="format=pt2: the graph's pCTR differs from the model's by up to"):
        exported(run, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_bench_measures_both_forms_on_each_batch(run: FinishedRun, capsys: pytest.CaptureFixture[str]) -> None:
    own = [f"run={run.folder}", f"outputs={run.folder.parent / 'outputs'}", "runtime.threads=1", "runtime.matmul=mkl"]
    bench_serve.main(compose("bench serve", [*own, "batch_sizes=[1,8,100000]", "answers=5"]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("dcnv2 on mini, cpu, 1 thread")
    told = [re.fullmatch(r"  (\w+) +batch +(\d+): p50 (.+), p95 (.+), p99 (.+) ms; (.+) rows/s", x) for x in lines[1:]]
    assert [line and line.group(1, 2) for line in told] == [
        ("folded", "1"), ("folded", "8"), None, ("unfolded", "1"), ("unfolded", "8"), None
    ]  # fmt: skip
    for line in filter(None, told):
        p50, p95, p99 = map(float, line.group(3, 4, 5))
        assert 0 < p50 <= p95 <= p99
    assert lines[3].endswith("valid has fewer rows")


def no_compiler() -> str:
    raise exc.InvalidCxxCompiler


class Far:
    """A graph that computes something else."""

    def run(self, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.full(len(ids), 3.0, np.float32)


# ---- graphs ----

NAMES = [
    path.stem
    for path in sorted((conf_dir() / "model").glob("*.yaml"))
    if "embedding_dim:" not in path.read_text(encoding="utf-8")  # another model at a size of its own
]
# One enhancer for each class: others differ in numbers, or in what their language model read. CTRL is in none.
ENHANCERS = [
    name for name in options("enhancer") if name not in ("none", "ctrl") and "_target_" in own_keys("enhancer", name)
]
WITH = dict(zip(("fm", "fwfm", "fmfm", "dcnv2", "dnn"), ENHANCERS, strict=True))
PARTS = [(name, WITH.get(name, "none")) for name in NAMES]
SCHEMA = Schema((*MODELS.FIELDS, Field("past", 7, width=3, shares="item"), Field("last", 7, shares="item")))


def narrow(value: Any) -> Any:
    """A node with smaller whole numbers."""
    if isinstance(value, dict):
        return {key: narrow(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [narrow(inner) for inner in value]
    return min(value, 32) if isinstance(value, int) and not isinstance(value, bool) else value


def made(name: str, enhancer: str) -> nn.Module:
    vectors = torch.randn(SCHEMA.num_fields, 12, generator=torch.Generator().manual_seed(9))
    node = MODELS.model_node(enhancer, "enhancer") if enhancer != "none" else None
    both = {"model": vectors, "enhancer": vectors}
    model = build_model(
        SCHEMA,
        dim=8,
        model=narrow(MODELS.model_node(name)),
        enhancer=node,
        seed=1,
        field_embeddings=both,
        text_vectors=drawn_texts(SCHEMA),
        value_vectors=drawn_values(SCHEMA),
    )
    MODELS.scramble(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.4)  # logits as models have them
    return model.fold()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "enhancer"), PARTS)
def test_the_graph_of_every_model_says_what_the_model_says(
    name: str, enhancer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, inputs = made(name, enhancer), batch_of(SCHEMA, 40)
    assert inputs.values is not None
    with torch.no_grad():
        expected = model(inputs).logit.numpy()
    program = traced(Served(model, []), num_columns=SCHEMA.num_columns, num_numeric=SCHEMA.num_numeric)
    for kind in ("pt2", "onnx") if ONNX else ("pt2",):
        (tmp_path / kind).mkdir()
        write_graph(program, tmp_path / kind, kind)
        graph = load_graph(tmp_path / kind, threads=1)
        limit = export.LIMITS[kind] * max(1, np.abs(expected).max())
        for rows in (1, 2, 40):
            logit = graph(inputs.ids[:rows].numpy(), inputs.values[:rows].numpy())
            np.testing.assert_allclose(logit, expected[:rows], rtol=0, atol=limit)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


class Branching(nn.Module):
    """A model of somebody who asks for the value of a tensor."""

    def forward(self, inputs: Inputs) -> Output:
        logit = inputs.ids.float().sum(1)
        if logit.sum() > 0:
            logit = 2 * logit
        return Output(logit, logit.sum())


class OfSevenRows(nn.Module):
    """A model of somebody who counts on a number of rows."""

    def forward(self, inputs: Inputs) -> Output:
        logit = inputs.ids.float().sum(1) + torch.zeros(7)
        return Output(logit, logit.sum())


@pytest.mark.parametrize(
    ("model", "words"), [(Branching(), "Data-dependent branching"), (OfSevenRows(), "Constraints")]
)
def test_a_model_without_a_graph_is_refused_with_its_line(
    model: nn.Module, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=rf"cannot trace \S*test_export\.py, line \d+: {words}.*torch\.where") as caught:
        traced(Served(model, []), num_columns=3, num_numeric=0)
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


class OfBits(nn.Module):
    """A model of somebody who reads a number by its bits."""

    def forward(self, inputs: Inputs) -> Output:
        logit = inputs.ids.float().view(torch.int32).sum(1).float()
        return Output(logit, logit.sum())


@pytest.mark.skipif(not ONNX, reason="onnx is not installed")
def test_an_operation_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    program = traced(Served(OfBits(), []), num_columns=3, num_numeric=0)
    with pytest.raises(UserError, match=r"an operation aten\.view that ONNX lacks\. Take format=pt2"):
        write_graph(program, tmp_path, "onnx")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 1000])
def test_a_search_by_halving_is_a_search(size: int) -> None:
    values = torch.randint(-40, 40, (size,)).sort().values
    wanted = torch.cat([torch.arange(-42, 43), torch.tensor([-(2**63), 2**63 - 1])])
    assert torch.equal(searched(values, wanted), torch.searchsorted(values, wanted))


@pytest.fixture
def tables() -> Callable[[int], EmbeddingTable]:
    return lambda width: EmbeddingTable(50, width, init_std=0.3)


def test_a_row_of_eight_bits_is_within_half_a_step(tables: Callable[[int], EmbeddingTable]) -> None:
    wide, narrow_one = tables(8), tables(1)
    with torch.no_grad():
        wide.weight[3] = 0.0
        wide.weight[4] *= 1e-6
    model = nn.ModuleDict({"wide": wide, "narrow": narrow_one})
    saved = to_int8(model)
    assert model["narrow"] is narrow_one
    assert isinstance(model["wide"], Int8Table)
    assert saved == (4 * 50 * 9, 50 * 12 + 4 * 50)
    rows = torch.arange(50).view(10, 5)
    step = wide.weight.abs().amax(1, keepdim=True)[rows] / 127
    assert ((model["wide"](rows) - wide(rows)).abs() <= step * 0.5001).all()

"""A configuration is data: what it names is run only if it is trusted and of the kind that is asked for.

Each payload would write the file `ran`; each test asserts that it is not there.
"""

import ast
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fieldctr import trust
from fieldctr.artifacts import file_digest
from fieldctr.data.prepare import prepared
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import build_model
from fieldctr.provenance import provenance
from fieldctr.schema import Field, Schema
from fieldctr.targets import Kind, locate
from fieldctr.training.metrics import torchmetric

PACKAGE = Path(trust.__file__).parent
PAYLOAD = "from pathlib import Path\nPath({!r}).touch()\ndef read(raw_dir): ...\nclass Model: ...\n"
FM = {"_target_": "fieldctr.models.fm.FM", "embedding_std": 0.1}
SCHEMA = Schema((Field("a", 3), Field("b", 4)))


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that shows that a payload ran; the module `stranger`, which can be imported, writes it."""
    sentinel = tmp_path / "ran"
    (tmp_path / "stranger.py").write_text(PAYLOAD.format(str(sentinel)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield sentinel
    assert not sentinel.exists()
    assert "stranger" not in sys.modules


def as_source(path: str) -> None:
    source = {"_target_": path, "command": "touch ran"}
    node = {"name": "s", "raw_dir": "touch ran", "min_count": 1, "group": None, "fields": {"a": {}}, "source": source}
    prepared(node, data_dir=Path("data"))


def as_model(path: str) -> None:
    build_model(SCHEMA, dim=2, model={"_target_": path, "embedding_std": 0.1}, enhancer=None, seed=1)


def as_enhancer(path: str) -> None:
    build_model(SCHEMA, dim=2, model=FM, enhancer={"_target_": path}, seed=1)


def as_metric(path: str) -> None:
    torchmetric(path, np.array([0, 1]), np.array([0.1, 0.2], np.float32))


PLACES = (as_source, as_model, as_enhancer, as_metric)
STRANGERS = {
    "os.system": "os is a part of Python",
    "posix.system": "posix is a part of Python",
    "subprocess.run": "subprocess is a part of Python",
    "builtins.exec": "builtins is a part of Python",
    "stranger.read": "the package stranger is not trusted. .* add trust=stranger to the call, or set FIELDCTR_TRUST=",
    "stranger.Model": "the package stranger is not trusted",
    "hydra.utils.instantiate": "the package hydra is not trusted",
    "torch.load": "the package torch is not trusted",
    "fieldctr.stranger.read": "cannot be imported: No module named 'fieldctr.stranger'",
    "fieldctr.artifacts.os.system": "cannot be imported",
    "fieldctr.cli.importlib.import_module": "cannot be imported",
    "fieldctr.data.sources.tidy.read.__globals__": "cannot be imported",
    "fieldctr.data.prepare.partial": "that is functools.partial, and functools is a part of Python",
    "fieldctr.config.__loader__": "has no __loader__",
    "fieldctr.data.prepare._table": "has no _table",
    "fieldctr.disk.write_json": "expected a",
    "fieldctr.run_folders.find_runs": "expected a",
    "fieldctr.data.prepare.new_table": "expected a",
    "fieldctr.nn.mlp.MLP": "expected a",
    "fieldctr.cli": "expected a",
    "fieldctr.__main__.main": "expected a",
    "fieldctr": "cannot be imported",
    ".os.system": "is no import path",
    "os": "os is a part of Python",
    "": "is no import path",
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize(("path", "words"), STRANGERS.items(), ids=STRANGERS)
def test_nothing_is_run_that_is_not_trusted_or_not_of_the_kind(
    place: Callable[[str], None], path: str, words: str, ran: Path
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        place(path)
    assert f"={path}" in str(caught.value)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_what_fits_elsewhere_is_refused_here(place: Callable[[str], None], ran: Path) -> None:
    fitting = {
        as_source: "fieldctr.data.sources.tidy.read",
        as_model: "fieldctr.models.fm.FM",
        as_enhancer: "fieldctr.enhancers.llactr.LLaCTR",
        as_metric: "torchmetrics.classification.BinaryAUROC",
    }
    for other, path in fitting.items():
        if other is not place:
            with pytest.raises(UserError, match=r"is refused: (expected an? |the package torchmetrics is not trusted)"):
                place(path)


def test_a_typo_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"fieldctr\.models\.fm has no Fm\. Nearest: FM"):
        as_model("fieldctr.models.fm.Fm")


def test_a_trusted_package_is_imported_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    kind = Kind("anything", "fieldctr.models.fm.FM", lambda target: True)
    (tmp_path / "acquaintance.py").write_text(PAYLOAD.format(str(tmp_path / "ran")))
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "acquaintance.Model"}
    with pytest.raises(UserError, match="acquaintance is not trusted"):
        locate(node, "model", kind)
    assert not (tmp_path / "ran").exists()
    assert trust.given() == []
    assert trust.take_trust(["train", "trust=acquaintance,more", "seed=1"]) == ["train", "seed=1"]
    assert provenance()["command"][-1] == "trust=acquaintance,more"  # else the call could not be made again
    assert locate(node, "model", kind).__name__ == "Model"
    assert (tmp_path / "ran").exists()
    with pytest.raises(UserError, match=r"that is pathlib\.Path, and pathlib is a part of Python"):
        locate({"_target_": "acquaintance.Path"}, "model", kind)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which nobody has said yet what is trusted."""
    monkeypatch.setenv(trust.VARIABLE, "")  # is put back, also after `take_trust` has set it
    monkeypatch.delenv(trust.VARIABLE)
    before = set(trust.trusted())
    trust.trusted.cache_clear()
    yield
    trust.trusted().clear()  # what the environment of the test said too
    trust.trusted().update(before)


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None) -> Iterator[Path]:
    """The working directory, which is not on sys.path, with the package `neighbour` and the module `other`."""
    (tmp_path / "neighbour").mkdir()
    (tmp_path / "neighbour/__init__.py").write_text("")
    (tmp_path / "neighbour/mine.py").write_text(PAYLOAD.format(str(tmp_path / "ran")))
    (tmp_path / "other.py").write_text(PAYLOAD.format(str(tmp_path / "other ran")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in ("", str(tmp_path))])
    yield tmp_path
    for name in [name for name in sys.modules if trust.root(name) in ("neighbour", "other")]:
        del sys.modules[name]


ANYTHING = Kind("anything", "fieldctr.models.fm.FM", lambda target: True)
NEIGHBOUR = {"_target_": "neighbour.mine.Model", "width": 3}


def test_a_trusted_module_of_the_working_directory_is_found_and_no_other(beside: Path) -> None:
    with pytest.raises(UserError, match="neighbour is not trusted"):
        locate(NEIGHBOUR, "model", ANYTHING)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("neighbour")
    assert not (beside / "ran").exists()
    trust.take_trust(["trust=neighbour"])
    assert locate(NEIGHBOUR, "model", ANYTHING).__name__ == "Model"
    assert (beside / "ran").exists()
    with pytest.raises(ModuleNotFoundError):  # what a library asks for does not come from here
        importlib.import_module("other")
    assert not (beside / "other ran").exists()


def test_what_is_installed_wins_over_the_working_directory(beside: Path) -> None:
    (beside / "yaml.py").write_text(PAYLOAD.format(str(beside / "ran")))
    trust.take_trust(["trust=yaml"])
    with pytest.raises(UserError, match="yaml has no Model"):
        locate({"_target_": "yaml.Model"}, "model", ANYTHING)
    assert not (beside / "ran").exists()


def test_the_code_of_others_is_told_by_file_and_digest(beside: Path) -> None:
    trust.take_trust(["trust=neighbour"])
    locate(NEIGHBOUR, "model", ANYTHING)
    file = beside / "neighbour/mine.py"
    found = trust.own_code({"model": NEIGHBOUR, "trainer": {"extra_metrics": ["torchmetrics.Metric"], "patience": 3}})
    assert found["neighbour.mine"] == {"file": str(file), "sha256": file_digest(file)}
    assert set(found) == {"neighbour", "neighbour.mine"}
    assert trust.own_code({"model": FM}) == {}


def test_children_trust_what_the_call_trusts(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.VARIABLE, "mine, yours")
    trust.take_trust(["trust=hers"])
    assert os.environ[trust.VARIABLE] == "hers,mine,yours"
    assert trust.trusted() == {"fieldctr", "mine", "yours", "hers"}


def test_the_environment_is_read_once(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trust.take_trust([])
    monkeypatch.setenv(trust.VARIABLE, "stranger")
    assert trust.trusted() == {"fieldctr"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("os", "trust=os: this is a part of Python"),
        ("a,subprocess", "subprocess"),
        ("a.b", "without dots"),
        ("../x", "name of a package"),
    ],
)
def test_what_cannot_be_trusted_is_named(names: str, words: str, forgotten: None) -> None:
    with pytest.raises(UserError, match=words):
        trust.take_trust([f"trust={names}"])
    assert trust.trusted() == {"fieldctr"}


def test_no_module_reads_what_can_run_code() -> None:
    """No pickle, no eval, no YAML with tags; numpy refuses pickles unless it is told otherwise."""
    forbidden = re.compile(
        r"(^|\.)(eval|exec|__import__|unsafe_load|full_load|load_module)$|^(pickle|torch|yaml|joblib)\.load"
    )
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called.endswith(".eval") or not forbidden.search(called), f"{path.name}: {called}"
                assert not {"allow_pickle"} & {keyword.arg for keyword in node.keywords}, path.name
                trusts = [one.value for one in node.keywords if one.arg == "trust_remote_code"]
                assert all(isinstance(one, ast.Constant) and one.value is False for one in trusts)


@pytest.mark.parametrize("value", [None, 3, ["os.system"], {"a": "b"}, True])
def test_a_target_that_is_no_text_is_none(value: object, ran: Path) -> None:
    with pytest.raises(UserError, match="'model' has no _target_: the import path of anything"):
        locate({"_target_": value}, "model", Kind("anything", "fieldctr.models.fm.FM", lambda target: True))

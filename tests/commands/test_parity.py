"""Parity with the public boards: counts from published vocabularies, losses against reference models, and findings."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fieldctr.analysis.parity import fixed_batch
from fieldctr.analysis.parity.fixed_batch import first_rows, losses, made_rows
from fieldctr.analysis.parity.parameter_counts import board_parameters, parameters_here
from fieldctr.analysis.parity.protocol import FOLDER, Count, Protocol
from fieldctr.analysis.parity.reference_models import MODELS
from fieldctr.catalog import conf_dir, options
from fieldctr.commands import parity
from fieldctr.data.dataset import Dataset, Split
from fieldctr.errors import UserError
from fieldctr.schema import Field, Schema

PROTOCOLS = sorted(path.stem for path in FOLDER.glob("*.json"))
HERE = [name for name in MODELS if name in options("model")]
ROWS = {  # of all tables as the board counts them, and a count of each model: the JSON files hold what was published
    "criteo_x1": (2_086_329, {"lr": 2_086_317, "fm": 22_949_477, "fwfm": 41_727_062, "deepfm": 23_429_477}),
    "criteo_x4_001": (910_747, {"lr": 910_709, "fm": 15_482_037, "fwfm": 15_482_778, "dcnv2": 20_382_577}),
    "avazu_x1": (1_298_621, {"lr": 1_298_600, "fm": 14_284_590, "fmfm": 14_307_690, "dcnv2": 13_641_311}),
    "avazu_x4_001": (3_750_999, {"fm": 63_766_576}),
    "frappe_x1": (5_399, {"lr": 5_390, "fm": 59_280, "fmfm": 59_730, "deepfm": 423_280, "dcnv2": 458_391}),
    "movielenslatest_x1": (90_242, {"lr": 90_240, "fm": 992_630, "fwfm": 1_804_784, "deepfm": 1_328_630}),
    "taobaoad_x1": (1_615_281, {"fm": 43_057_715}),
    "amazonelectronics_x1": (127_612, {"fm": 4_211_197}),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_boards_counts_follow_from_its_vocabularies(name: str) -> None:
    protocol = Protocol.load(name)
    rows, counts = ROWS.get(name, (0, {}))
    assert sum(size or 0 for size in protocol.vocab_size.values()) == rows
    assert counts.items() <= {count.model: count.parameters for count in protocol.counts}.items()
    assert [board_parameters(protocol, count) for count in protocol.counts] == [c.parameters for c in protocol.counts]


def test_one_feature_more_changes_every_count() -> None:
    protocol = Protocol.load("frappe_x1")
    other = replace(protocol, vocab_size={**protocol.vocab_size, "user": 957})
    assert all(board_parameters(other, count) > count.parameters for count in protocol.counts)


@pytest.mark.parametrize("name", ["frappe_x1", "criteo_x1", "criteo_x4_001"])
def test_the_models_here_have_as_many_parameters_as_their_formulas(name: str) -> None:
    protocol = Protocol.load(name)
    numbers = sum(size is None for size in protocol.vocab_size.values())
    for count in protocol.counts:
        if count.model in HERE:
            built = parity.built_parameters(protocol.schema(), count)
            assert built == parameters_here(protocol.schema(), count)
            if count.model in ("lr", "fm", "deepfm"):  # the same formula as the board's: one row more for each number
                assert built == count.parameters + numbers * (1 + count.dim)


@pytest.mark.parametrize("name", ["taobaoad_x1", "amazonelectronics_x1"])
def test_histories_share_embeddings_but_no_first_order_weights(name: str) -> None:
    protocol = Protocol.load(name)
    (count,), schema = protocol.counts, protocol.schema()
    built, numbers = parity.built_parameters(schema, count), schema.num_numeric
    fields, tables = schema.num_fields - numbers, schema.num_fields - numbers - len(protocol.shared)
    padding = fields + tables * count.dim  # the board's row for it, in each field's weights and each table
    assert built == parameters_here(schema, count) == count.parameters + numbers * (1 + count.dim) - padding


def test_a_count_of_a_built_model_sees_its_settings() -> None:
    schema = Protocol.load("frappe_x1").schema()
    small = Count("deepfm", 0, dim=10, hidden_dims=(7, 5))
    assert parity.built_parameters(schema, small) == parameters_here(schema, small)
    assert parameters_here(schema, replace(small, batch_norm=True)) == parameters_here(schema, small) + 2 * (7 + 5)


@pytest.fixture
def dataset() -> Dataset:
    """Fields of all kinds, with large vocabularies of which the rows hold little."""
    fields = (Field("user", 10**6), Field("tags", 500, width=3), Field("price", 2, numeric=True), Field("hour", 25))
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(0, size, 90) for size in (10**6, 500, 500, 500, 2, 25)], 1).astype(np.int32)
    ids[:9, 1:4] = 0
    ids[9:30, 2:4] = 0
    values = (rng.normal(size=(90, 1)) * ids[:, 4:5]).astype(np.float32)
    split = Split(ids, rng.integers(0, 2, 90).astype(np.float32), values)
    return Dataset(Schema(fields), split, split, split, Path())


@pytest.mark.parametrize("name", HERE)
def test_every_twin_agrees_with_its_model(name: str, dataset: Dataset) -> None:
    for schema, batch in (first_rows(dataset), made_rows(Protocol.load("criteo_x1").schema())):
        found, expected = losses(name, parity.model_node(name), schema, batch)
        assert found == pytest.approx(expected, abs=parity.TOLERANCE)
        assert abs(found - np.log(2)) > 1e-4, "the weights are seen"


@pytest.mark.parametrize("name", HERE)
def test_a_changed_model_disagrees_with_its_twin(name: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    schema, batch = first_rows(dataset)
    right, twin = losses(name, parity.model_node(name), schema, batch)
    build = fixed_batch.build_model

    def wrong(*arguments: Any, **keywords: Any) -> torch.nn.Module:
        model = build(*arguments, **keywords)
        model.backbone.register_forward_hook(lambda module, inputs, logit: logit * 1.01)
        return model

    monkeypatch.setattr(fixed_batch, "build_model", wrong)
    found, same = losses(name, parity.model_node(name), schema, batch)
    assert same == twin
    assert abs(found - right) > parity.TOLERANCE


def test_the_first_rows_of_a_history_keep_what_they_share() -> None:
    schema = Schema((Field("item", 900), Field("past", 900, 2, shares="item"), Field("last", 900, shares="item")))
    ids = np.array([[800, 30, 0, 0], [30, 800, 4, 500]], np.int32)
    split = Split(ids, np.ones(2, np.float32))
    small, batch = first_rows(Dataset(schema, split, split, split, Path()))
    assert batch.ids.tolist() == [[4, 2, 0, 0], [2, 4, 1, 3]]
    assert [field.vocab_size for field in small.fields] == [5, 5, 5]
    found, expected = losses("fm", parity.model_node("fm"), small, batch)
    assert found == pytest.approx(expected, abs=parity.TOLERANCE)


def test_the_first_rows_keep_their_pattern_and_lose_their_size(dataset: Dataset) -> None:
    schema, batch = first_rows(dataset)
    assert [field.vocab_size for field in schema.fields][2] == 2
    assert schema.vocab_size < 500
    for before, after in zip(dataset.train.ids[: len(batch.ids)].T, batch.ids.T, strict=True):
        assert np.array_equal(before == 0, after == 0)
        assert len(np.unique(before)) == len(np.unique(after)) == len(set(zip(before, after, strict=True)))


def composed(folder: Path) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = compose("parity", [f"dataset.raw_dir={folder}/raw", f"outputs={folder}/outputs"])
        node: Any = OmegaConf.to_container(config, resolve=True)
    return node


@pytest.fixture
def node(tmp_path: Path) -> dict[str, Any]:
    """The root of `fieldctr parity dataset=frappe_x1` for files that were written here, as if they were published."""
    config, lines = composed(tmp_path), [f"{i % 2},{i % 5},{i % 7},1,2,3,4,5,6,7,8" for i in range(70)]
    text = "\n".join(["label,user,item,daytime,weekday,isweekend,homework,cost,weather,country,city", *lines])
    (tmp_path / "raw").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / f"raw/{split}.csv").write_text(text)
    md5 = dict.fromkeys(["train.csv", "test.csv"], hashlib.md5(text.encode()).hexdigest())
    config["dataset"]["published"] = {"md5": md5, "rows": {"train": 70, "valid": 70, "test": 70}}
    return config


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """Frappe's protocol with the vocabularies of the files above: 5 users, 7 items, one value of each other field."""
    real = Protocol.load("frappe_x1")
    sizes = {name: {"user": 7, "item": 9}.get(name, 3) for name in real.vocab_size}
    protocol = replace(real, vocab_size=sizes, counts=(Count("lr", sum(sizes.values()) - len(sizes) + 1),))
    monkeypatch.setattr(Protocol, "load", lambda name: protocol)
    return protocol


def verdicts(text: str) -> set[tuple[str, str]]:
    return {(line.split()[0], line.split()[1]) for line in text.splitlines()}


def test_all_levels_pass_on_what_was_published(
    node: dict[str, Any], published: Protocol, capsys: pytest.CaptureFixture[str]
) -> None:
    parity.main(node)
    text = capsys.readouterr().out
    assert verdicts(text) == {("1", "ok"), ("2", "ok"), ("3", "ok"), ("4", "ok"), ("5", "open")}
    assert "the first rows of train" in text


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"published": {"md5": {"train.csv": "0"}, "rows": {}}}, "1", "published 0"),
        ({"published": {"md5": {}, "rows": {"valid": 71}}}, "1", "70 rows, published 71"),
        ({"min_count": 20}, "2", "user: 0 features, the board's 5"),
        ({"fields": {"user": {}}}, "2", "item: -1 features"),
    ],
)
def test_what_differs_is_named_and_the_exit_code_says_so(
    change: dict[str, Any],
    level: str,
    words: str,
    node: dict[str, Any],
    published: Protocol,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node["dataset"] |= change
    with pytest.raises(SystemExit) as stopped:
        parity.main(node)
    text = capsys.readouterr().out
    assert stopped.value.code == 1
    assert (level, "differs") in verdicts(text)
    assert words in text


def test_counts_and_losses_need_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parity.main(composed(tmp_path))
    text = capsys.readouterr().out
    assert verdicts(text) == {("1", "open"), ("2", "open"), ("3", "ok"), ("4", "ok"), ("5", "open")}
    assert "huggingface.co/datasets/reczoo/Frappe_x1" in text


def run_of(folder: Path, model: str, auc: float, **dataset: Any) -> str:
    node = {"name": "frappe_x1", "published": {"md5": {}}} | dataset
    (folder / "config.json").write_text(json.dumps({"dataset": node}))
    (folder / "result.json").write_text(json.dumps({"model": model, "test": {"auc": auc}}))
    return str(folder)


@pytest.mark.parametrize(
    ("model", "auc", "verdict"),
    [("deepfm", 0.98395 + 0.0004, "ok"), ("deepfm", 0.98395 - 0.0006, "differs"), ("deepfm", 0.985, "differs"),
     ("fm", 0.9671, "open"), ("fat", 0.98, "open")],
)  # fmt: skip
def test_a_runs_auc_lies_within_three_deviations_of_the_boards_five(
    model: str, auc: float, verdict: str, tmp_path: Path
) -> None:
    found = parity.check_auc(Protocol.load("frappe_x1"), run_of(tmp_path, model, auc))
    assert (found.level, found.verdict) == (5, verdict), found.text
    assert f"{auc:.4f}" in found.text


def test_a_run_must_be_on_the_published_table(tmp_path: Path) -> None:
    frappe = Protocol.load("frappe_x1")
    with pytest.raises(UserError, match="is on coupon, not on frappe_x1"):
        parity.check_auc(frappe, run_of(tmp_path, "deepfm", 0.98, name="coupon"))
    with pytest.raises(UserError, match="no run folder"):
        parity.check_auc(frappe, str(tmp_path / "nowhere"))
    assert parity.check_auc(frappe, run_of(tmp_path, "deepfm", 0.98, published=None)).verdict == "open"


def test_a_dataset_without_a_protocol_is_named() -> None:
    with pytest.raises(UserError, match=r"no published protocol 'frape_x1'\. Nearest: frappe_x1"):
        Protocol.load("frape_x1")

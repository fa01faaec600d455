"""What a dataset's node gives SSFT: other words, entities; and the warning when tuning pulls fields together."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fieldctr import processor
from fieldctr.catalog import conf_dir
from fieldctr.commands import field_vectors
from fieldctr.commands.field_vectors import alternatives, embed_fields, field_names, settled, synonyms
from fieldctr.config import EncoderConfig, parse
from fieldctr.data.prepare import prepared
from fieldctr.data.values import field_values
from fieldctr.errors import UserError
from fieldctr.llm.field_embeddings import FieldEmbeddings


@pytest.fixture
def dataset_node() -> dict[str, Any]:
    node = yaml.safe_load((conf_dir() / "dataset/synthetic.yaml").read_text(encoding="utf-8"))
    node["source"] |= {"rows": 2000}
    return node


def encoder() -> dict[str, Any]:
    return yaml.safe_load((conf_dir() / "encoder/tiny_llama.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["census", "coupon", "kuairand", "synthetic"])
def test_a_dataset_has_other_words_for_each_readable_field(name: str) -> None:
    node = yaml.safe_load((conf_dir() / f"dataset/{name}.yaml").read_text(encoding="utf-8"))
    found = synonyms(node, "enhancer.source")
    assert len(set(found)) == len(node["fields"])
    for words, (field, keys) in zip(found, node["fields"].items(), strict=True):
        assert words != keys.get("text", field.replace("_", " ")) or keys["text"] == ""


def test_a_dataset_without_other_words_is_named(dataset_node: dict[str, Any]) -> None:
    dataset_node["fields"] = {"user_id": None, "gender": {"text": "gender of the user"}}
    with pytest.raises(UserError, match=r"enhancer\.source=synonyms: no field of dataset 'synthetic' has a synonym"):
        synonyms(dataset_node, "enhancer.source")


def test_a_field_without_other_words_keeps_its_text(dataset_node: dict[str, Any]) -> None:
    dataset_node["fields"] = {"user_id": {"synonym": "account"}, "gender": {"text": "sex"}, "brand": None}
    assert synonyms(dataset_node, "enhancer.source") == ["account", "sex", "brand"]


def test_alternatives_ask_the_same_values_and_count_entities(dataset_node: dict[str, Any], tmp_path: Path) -> None:
    dataset = prepared(dataset_node, data_dir=tmp_path)
    config = parse(EncoderConfig, encoder(), "encoder")
    found = alternatives(dataset, dataset_node, field_values(dataset.folder), field_names(dataset), config)
    assert list(found.templates) == ["short", "long"]  # the one in use comes first
    short, long = found.templates.values()
    assert [prompt.field for prompt in short] == [prompt.field for prompt in long]
    assert found.rows.count == len(dataset.train)
    users = dataset.train.ids[:, dataset.schema.index("user_id")]
    assert len(set(users.tolist())) <= found.entities["user"].count <= len(users)
    assert all(text.startswith("user id is") and "brand" not in text for text in found.entities["user"].texts)


def test_an_entity_of_unknown_fields_is_refused(dataset_node: dict[str, Any], tmp_path: Path) -> None:
    dataset_node["entities"] = {"user": ["user_di"]}
    with pytest.raises(UserError, match=r"dataset\.entities\.user: no field 'user_di'\. Nearest: user_id"):
        prepared(dataset_node, data_dir=tmp_path)


def test_neither_changes_the_prepared_table(dataset_node: dict[str, Any], tmp_path: Path) -> None:
    first = prepared(dataset_node, data_dir=tmp_path)
    del dataset_node["entities"]
    dataset_node["fields"]["gender"] = {}
    assert prepared(dataset_node, data_dir=tmp_path).digest == first.digest


@pytest.mark.parametrize(("after", "warned"), [(0.3, False), (0.4, True)])
def test_tuning_that_pulls_fields_together_is_said(
    after: float,
    warned: bool,
    dataset_node: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    history = [{"epoch": 0, "mean_cosine": 0.3}, {"epoch": 1, "mean_cosine": after}]
    found = FieldEmbeddings(tmp_path, torch.zeros(2, 21, 4), {"history": history})
    monkeypatch.setattr(field_vectors, "field_embeddings", lambda *given, **named: found)
    dataset = prepared(dataset_node, data_dir=tmp_path)
    embed_fields(
        dataset, dataset_node, encoder(), names=field_names(dataset), outputs=tmp_path, device=torch.device("cpu")
    )
    assert ("pulled the fields together: mean cosine 0.300 -> 0.400" in capsys.readouterr().err) == warned


@pytest.mark.parametrize(("native", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_the_dtype_that_auto_takes_is_said_in_one_line_and_asked_for(
    native: bool,
    dtype: str,
    dataset_node: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[EncoderConfig] = []
    found = FieldEmbeddings(tmp_path, torch.zeros(1, 21, 4), {"history": [{"epoch": 0}]})
    monkeypatch.setattr(processor, "native_bf16", lambda: native)
    monkeypatch.setattr(
        field_vectors, "field_embeddings", lambda config, *given, **named: asked.append(config) or found
    )
    dataset = prepared(dataset_node, data_dir=tmp_path)
    capsys.readouterr()
    for node in (encoder() | {"dtype": "auto"}, encoder() | {"dtype": dtype}):
        embed_fields(
            dataset, dataset_node, node, names=field_names(dataset), outputs=tmp_path, device=torch.device("cpu")
        )
    assert asked[0] == asked[1]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"encoder.dtype=auto: {dtype}" in said[0]


def test_vectors_without_a_model_have_no_dtype_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(EncoderConfig, encoder() | {"dtype": "auto", "kind": "random"}, "encoder")
    assert settled(config, torch.device("cpu")) == config
    assert not capsys.readouterr().err

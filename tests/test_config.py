"""Reading a node: types, ranges, stray and missing keys."""

from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from fieldctr.catalog import conf_dir
from fieldctr.config import (
    EmbeddingConfig,
    OptimizerConfig,
    Positive,
    Share,
    TrainConfig,
    TrainerConfig,
    build,
    later,
    parse,
)
from fieldctr.errors import UserError
from fieldctr.runs import config_digest
from fieldctr.targets import Kind

ADAM: dict[str, Any] = {
    "lr": 1e-3,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "embedding_l2": 0,
    "dense_l2": 0,
    "embedding_update": "dense",
}


@dataclass(frozen=True)
class Outer:
    optimizer: OptimizerConfig
    count: Positive
    share: Share | None
    names: list[str]


@pytest.mark.parametrize(("kind", "path"), [(TrainerConfig, "trainer/default"), (OptimizerConfig, "optimizer/adam")])
def test_settings_of_before_a_key_was_there_keep_what_they_did(kind: Any, path: str) -> None:
    now = yaml.safe_load((conf_dir() / f"{path}.yaml").read_text(encoding="utf-8"))
    then = later(kind)
    for key, value in then.items():
        without = parse(kind, {name: now[name] for name in now if name != key}, "node")
        assert without == parse(kind, now | {key: value}, "node")
        with pytest.raises(UserError, match=rf"node\.{key}=-1"):
            parse(kind, now | {key: -1}, "node")
    node, plain = path.partition("/")[0], {name: now[name] for name in now if name not in then}
    assert config_digest({node: plain}) == config_digest({node: plain | then})
    for key in then:
        assert config_digest({node: plain}) != config_digest({node: plain | {key: "another"}})


def test_a_whole_number_passes_for_a_float_and_keeps_its_value() -> None:
    config = parse(OptimizerConfig, ADAM, "optimizer")
    assert config.embedding_l2 == 0.0
    assert isinstance(config.embedding_l2, float)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lr", "fast", ["optimizer.lr=fast", "float >= 0"]),
        ("lr", None, ["optimizer.lr=null"]),
        ("lr", True, ["optimizer.lr=true"]),
        ("beta1", 1.5, ["from 0 to 1"]),
        ("embedding_update", "lzy", ["dense | lazy"]),
        ("beta3", 0.5, ["no key 'optimizer.beta3'", "beta1"]),
    ],
)
def test_a_wrong_value_is_answered_with_key_and_what_is_allowed(key: str, value: object, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(OptimizerConfig, ADAM | {key: value}, "optimizer")
    assert all(word in str(caught.value) for word in words)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UserError, match=r"optimizer\.lr.*missing"):
        parse(OptimizerConfig, {key: value for key, value in ADAM.items() if key != "lr"}, "optimizer")


def test_nested_nodes_unions_and_lists() -> None:
    node: dict[str, Any] = {"optimizer": ADAM, "count": 3, "share": None, "names": ["a"]}
    assert parse(Outer, node, "").optimizer.beta1 == 0.9
    for wrong, words in [({"count": 0}, "count=0"), ({"share": 2}, "null"), ({"names": [1]}, "list of str")]:
        with pytest.raises(UserError, match=words):
            parse(Outer, node | wrong, "")
    with pytest.raises(UserError, match=r"optimizer\.beta1"):
        parse(Outer, node | {"optimizer": ADAM | {"beta1": "x"}}, "")


def pair(first: int, *, second: int, third: int = 3) -> tuple[int, int, int]:
    return first, second, third


ANY = Kind("anything", "fieldctr.models.fm.FM", lambda target: True)


@pytest.mark.usefixtures("trust_tests")
def test_build_binds_the_signature() -> None:
    node = {"_target_": f"{__name__}.pair", "second": 2}
    assert build(node, "model", 1, kind=ANY)[:2] == (1, 2)
    with pytest.raises(UserError, match=r"no key 'model\.thrid'.*third"):
        build(node | {"thrid": 1}, "model", 1, kind=ANY)
    with pytest.raises(UserError, match=r"model\.second.*missing"):
        build({"_target_": node["_target_"]}, "model", 1, kind=ANY)
    with pytest.raises(UserError, match=r"model\.second=two is not allowed: expected int"):
        build(node | {"second": "two"}, "model", 1, kind=ANY)
    with pytest.raises(UserError, match="cannot be imported"):
        build({"_target_": "fieldctr.models.nothing.Nothing"}, "model", 1, kind=ANY)
    with pytest.raises(UserError, match="no _target_"):
        build({}, "model", 1, kind=ANY)


def test_a_run_of_before_there_were_shards_is_one_with_plain_tables() -> None:
    train = yaml.safe_load((conf_dir() / "train.yaml").read_text(encoding="utf-8"))["embedding"]
    assert parse(EmbeddingConfig, train, "embedding") == EmbeddingConfig() == TrainConfig.embedding
    assert config_digest({"seed": 1}) == config_digest({"seed": 1, "embedding": train})
    assert config_digest({"seed": 1}) != config_digest({"seed": 1, "embedding": train | {"engine": "torchrec"}})

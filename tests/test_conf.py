"""Every YAML composes, parses, and binds the constructor that it names."""

import functools
import inspect
import re
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fieldctr.catalog import conf_dir, groups, options
from fieldctr.config import EncoderConfig, TrainConfig, parse
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.prepare import SOURCE as READS
from fieldctr.data.prepare import DatasetConfig
from fieldctr.models.ctr_model import (
    KINDS,
    SOURCE,
    pretrains,
    reads_field_embeddings,
    reads_text_vectors,
    reads_value_vectors,
)
from fieldctr.targets import Kind, locate

ROOTS = sorted(path.stem for path in conf_dir().glob("*.yaml") if path.stem != "base")
GROUPS = (
    *("dataset", "schema", "model", "enhancer", "trainer", "optimizer", "runtime", "tracker", "tuned"),
    *("ablation", "experiment"),
)


@functools.cache  # several tests look at one option
def composed(*overrides: str, root: str = "train") -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose(root, list(overrides)), resolve=True)
    return node


@pytest.mark.parametrize("root", ROOTS)
def test_every_command_composes(root: str) -> None:
    assert {"outputs", "data_root"} <= set(composed(root=root))


@pytest.mark.parametrize("root", ROOTS)
def test_no_key_of_a_command_is_named_as_a_group_that_it_does_not_choose(root: str) -> None:
    """Hydra takes `study=x` for a choice of the group, so that such a key could never be set."""
    node = yaml.safe_load((conf_dir() / f"{root}.yaml").read_text())
    assert not {key for key in node if key in groups() and not any(key in one for one in node["defaults"])}


@pytest.mark.slow
@pytest.mark.parametrize("choice", [f"{group}={option}" for group in GROUPS for option in options(group)])
def test_every_option_composes_and_parses(choice: str) -> None:
    config = parse(TrainConfig, composed(choice), "")
    assert config.embedding_dim >= 1


@pytest.mark.slow
@pytest.mark.parametrize("group", ["model", "enhancer"])
def test_every_target_binds_its_keywords(group: str) -> None:
    bound = set()
    for option in options(group):
        node = composed(f"{group}={option}")[group]
        if node:
            asks = (reads_text_vectors, reads_value_vectors) if group == "enhancer" else ()
            reads = reads_field_embeddings(node, group) or any(one(node) for one in asks)
            positional = 0 if group == "enhancer" and pretrains(node) else 3 if reads else 2
            bind(node, KINDS[group], positional=positional, also={"embedding_std", *(SOURCE if reads else ())})
            bound.add(option)
    assert bound == set(options(group)) - {"none"}


@pytest.mark.parametrize("option", [option for option in options("encoder") if option != "none"])
def test_every_encoder_parses_and_trains_with_an_enhancer_that_reads_it(option: str) -> None:
    node = composed(f"encoder={option}", root="ssft")["encoder"]
    assert parse(EncoderConfig, node, "encoder").max_tokens > 0
    assert composed("enhancer=llactr", f"encoder={option}")["encoder"] == node


@pytest.mark.slow
@pytest.mark.parametrize("option", options("dataset"))
def test_every_dataset_has_a_reader_and_readable_fields(option: str) -> None:
    config = parse(DatasetConfig, composed(f"dataset={option}")["dataset"], "dataset")
    bind(config.source, READS, positional=1)
    assert option == "tidy" or field_specs(config.fields, config.min_count)


def bind(node: dict[str, Any], kind: Kind, *, positional: int, also: frozenset[str] | set[str] = frozenset()) -> None:
    keywords = {key: value for key, value in node.items() if key != "_target_" and key not in also}
    signature = inspect.signature(locate(node, "node", kind))
    signature.bind(*[None] * positional, **keywords)
    required = {p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    assert required <= set(keywords), f"{node['_target_']}: YAML lacks {required - set(keywords)}"


@pytest.mark.parametrize("option", [name for name in options("tuned") if name != "none"])
def test_settings_say_by_which_call_they_are_found(option: str) -> None:
    text = (conf_dir() / f"tuned/{option}.yaml").read_text(encoding="utf-8")
    call = re.search(r"^# Run +fieldctr search dataset=(\w+) model=(\w+) trials=\d+", text, re.M)
    assert (call and f"{call[1]}_{call[2]}") == option or "chosen by hand" in text

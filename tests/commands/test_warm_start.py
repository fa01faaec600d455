"""`warm_start=RUN`: which runs it takes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fieldctr.catalog import conf_dir
from fieldctr.commands.warm_start import refuse_another_model
from fieldctr.config import TrainConfig, parse
from fieldctr.errors import UserError
from fieldctr.runs import load_config, load_result


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("train", list(overrides)), resolve=True)
    return node


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("embedding_dim=32", r"embedding_dim=32 \(was 16\)"),
        ("model=fm", r"model\._target_=fieldctr\.models\.fm\.FM \(was fieldctr\.models\.fat\.FAT\)"),
        ("model.pooling=mean", r"model\.pooling=mean \(was flat\)"),
        ("enhancer=llactr", r"enhancer\._target_=.* \(was absent\)"),
    ],
)
def test_another_model_is_named_by_its_keys(override: str, words: str) -> None:
    before, now = composed("tuned=none"), parse(TrainConfig, composed("tuned=none", override), "")
    with pytest.raises(UserError, match=rf"warm_start=run has another model: .*{words}"):
        refuse_another_model(Path("run"), before, now)
    refuse_another_model(Path("run"), before, replace(parse(TrainConfig, before, ""), seed=2, train_rows=10))


def test_a_run_of_an_earlier_version_has_neither_key() -> None:
    node = composed()
    del node["warm_start"], node["train_rows"]
    config = parse(TrainConfig, node, "")
    assert (config.warm_start, config.train_rows) == (None, "all")


def test_no_run_and_an_unfinished_one_are_named_by_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^warm_start=.*: no config\.json there"):
        load_config(tmp_path, key="warm_start")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match=r"^warm_start=.*: no result\.json, so it has not finished"):
        load_result(tmp_path, key="warm_start")

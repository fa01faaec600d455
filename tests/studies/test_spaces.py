"""Search spaces: what they may say, and that what is drawn from them goes into a call and comes back."""

import random
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from fieldctr import UserError, compose
from fieldctr.catalog import conf_dir, options
from fieldctr.config import flat, listed
from fieldctr.studies.search import grid
from fieldctr.studies.spaces import at_edge, decoded, encoded, load_space, read_space, words_of

KINDS = {
    "a.list": [1, 2.5, "text", True, None, [300, 300], "it's"],
    "a.log": {"log": [1e-5, 1.0]},
    "a.range": {"range": [0.0, 0.5]},
    "a.steps": {"range": [0.0, 0.5], "step": 0.1},
    "a.whole": {"range": [1, 6]},
    "a.whole_log": {"log": [1, 512]},
}


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({}, "expected a mapping"),
        ([1], "expected a mapping"),
        ({"optimizer lr": [1]}, "no key of the configuration"),
        ({1: [1]}, "no key of the configuration"),
        ({"a.b": []}, "expected a list of values"),
        ({"a.b": 3}, "expected a list of values"),
        ({"a.b": {"rnage": [1, 2]}}, "expected a list of values"),
        ({"a.b": {"range": [1, 2], "log": [1, 2]}}, "expected a list of values"),
        ({"a.b": {"range": [1, 2], "stpe": 1}}, "no key 'stpe'. Nearest: step"),
        ({"a.b": {"range": [2, 1]}}, "low < high"),
        ({"a.b": {"log": [0, 1]}}, "above 0 for log"),
        ({"a.b": {"log": [1.0, 2.0], "step": 0.1}}, "step above 0 for range alone"),
        ({"a.b": {"range": [1, 2, 3]}}, r"range: \[low, high\]"),
        ({"a.b": {"range": [True, 2]}}, r"range: \[low, high\]"),
        ({"a.b": {"range": ["1", 2]}}, r"range: \[low, high\]"),
        ({"a.b": [1, 2, 1]}, "names a value twice"),
    ],
)
def test_what_is_no_space_is_named(node: Any, words: str) -> None:
    with pytest.raises(UserError, match=f"^x.yaml.*{words}"):
        read_space(node, "x.yaml")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_what_is_drawn_lies_in_the_space_and_comes_back(sampler: str) -> None:
    space = read_space(KINDS, "x")
    samplers = {"random": optuna.samplers.RandomSampler(1), "tpe": optuna.samplers.TPESampler(seed=1)}
    study = optuna.create_study(sampler=samplers[sampler])
    for _ in range(60):
        trial = study.ask(space)
        settings = decoded(trial.params, space)
        assert encoded(settings, space) is not None
        assert decoded(encoded(settings, space) or {}, space) == settings
        assert settings["a.list"] in KINDS["a.list"]
        assert 1e-5 <= settings["a.log"] <= 1
        assert settings["a.whole"] in range(1, 7)
        for key, value in settings.items():
            (override,) = OverridesParser.create().parse_overrides(words_of({key: value}))
            assert override.value() == value
        study.tell(trial, random.random())


@pytest.mark.parametrize(
    ("key", "outside"),
    [
        ("a.list", 7),
        ("a.log", 2.0),
        ("a.log", "1"),
        ("a.range", -0.1),
        ("a.steps", 0.15),
        ("a.whole", 7),
        ("a.whole", 1.5),
    ],
)
def test_what_lies_outside_is_no_start(key: str, outside: Any) -> None:
    space = read_space({key: KINDS[key]}, "x")
    assert encoded({key: outside}, space) is None
    assert encoded({}, space) is None


@pytest.mark.parametrize(
    ("key", "inside", "ends"),
    [
        ("a.log", [1e-3, 0.1], [1.1e-5, 0.99]),
        ("a.range", [0.1, 0.45], [0.0, 0.49]),
        ("a.whole", [2, 5], [1, 6]),
        ("a.list", [1, True], []),
    ],
)
def test_a_value_at_an_end_of_its_range_is_told(key: str, inside: list[Any], ends: list[Any]) -> None:
    space = read_space({key: KINDS[key], "a.few": {"range": [1, 3]}}, "x")
    assert [at_edge({key: value, "a.few": 3}, space) for value in inside] == [[]] * len(inside)
    for value in ends:
        (said,) = at_edge({key: value, "a.few": 1}, space)
        assert said.startswith(f"{key}={value:g} of ")


def test_a_grid_has_every_point_once_in_an_order_of_its_seed() -> None:
    space = read_space({"a.list": [1, [2]], "a.steps": KINDS["a.steps"], "a.whole": {"range": [1, 3]}}, "x")
    points = [decoded(point, space) for point in grid(space, 1)]
    assert len(points) == 2 * 6 * 3
    assert len({str(point) for point in points}) == len(points)
    assert [decoded(point, space) for point in grid(space, 1)] == points
    assert [decoded(point, space) for point in grid(space, 2)] != points
    with pytest.raises(UserError, match=r"sampler=grid needs a list or a step for 'a\.log'"):
        grid(read_space({"a.log": KINDS["a.log"]}, "x"), 1)


@pytest.mark.parametrize("model", options("model"))
def test_every_model_has_a_space_whose_keys_are_its_configuration_s(model: str) -> None:
    leaves = flat(compose("train", [f"model={model}", "tuned=none"]))
    space = load_space(model, [conf_dir()])
    assert space.keys() <= leaves.keys()


@pytest.mark.parametrize("name", options("space"))
def test_every_space_belongs_to_something_that_can_be_chosen(name: str) -> None:
    studies = (yaml.safe_load(path.read_text()) for path in (conf_dir() / "study").glob("*.yaml"))
    arms = [arm for study in studies for arm in study.get("arms", {}).values() if isinstance(arm, dict)]
    named = {space for arm in arms for space in listed(arm.get("space", []))}
    assert name in named | {name for group in ("model", "enhancer", "optimizer") for name in options(group)}


def test_a_user_s_space_comes_before_the_product_s(tmp_path: Path) -> None:
    (tmp_path / "space").mkdir()
    path = tmp_path / "space/fm.yaml"
    path.write_text("optimizer.lr: [0.5]\n")
    assert load_space("fm", [tmp_path, conf_dir()]).keys() == {"optimizer.lr"}
    path.write_text("lr\n")
    assert load_space("fm", [tmp_path, conf_dir()]) == load_space("lr", [conf_dir()])
    path.write_text("a: [\n")
    with pytest.raises(UserError, match=r"fm\.yaml is no YAML"):
        load_space("fm", [tmp_path, conf_dir()])
    with pytest.raises(UserError, match=r"no search space 'fmm'\. Nearest: fm"):
        load_space("fmm", [tmp_path, conf_dir()])
    assert yaml.safe_load((conf_dir() / "space/fm.yaml").read_text())

"""What a study's YAML says: arms, cells, the words of each run; and what is answered to a mistake in it."""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from fieldctr import UserError, compose
from fieldctr.catalog import options
from fieldctr.commands.study import cell_state, scheduled
from fieldctr.config import listed, parse
from fieldctr.studies.plan import Cell, StudyConfig, arms_of, final_job, run_words, seeds_of, settings_kind, trial_job


def config(*words: str, **kwargs: Any) -> StudyConfig:
    return parse(StudyConfig, compose("study", words, **kwargs), "")


@pytest.mark.parametrize("name", [name for name in options("study") if name != "none"])
def test_every_study_of_the_product_composes_its_cells(name: str, tmp_path: Path) -> None:
    """All arms are there; three of the cells are composed, and their spaces read."""
    study = config(f"study={name}", f"outputs={tmp_path}")
    arms = arms_of(study)
    assert study.question
    assert study.against is None or study.against in {arm.short(study.within) for arm in arms}
    for arm in random.Random(name).sample(arms, min(3, len(arms))):
        state = cell_state(study, tmp_path / name, Cell(listed(study.datasets)[0], arm), {})
        assert (state.search is None) == (
            arm.baseline is not None or settings_kind(study, arm) != "searched" or arm.settings_of is not None
        )


def test_models_products_and_arms_come_in_this_order() -> None:
    study = config(
        "models=logistic,lr,lightgbm",
        "over={model: [fm, deepfm], enhancer: [none, llactr]}",
        "arms.mine='model=fat seed=3'",
    )
    arms = {arm.name: arm for arm in arms_of(study)}
    assert list(arms) == ["lr", "fm_none", "fm_llactr", "deepfm_none", "deepfm_llactr", "mine", "lightgbm", "logistic"]
    assert arms["fm_llactr"].space == ("fm", "llactr")
    assert arms["fm_none"].space == ("fm",)
    assert arms["mine"].words == ("model=fat", "seed=3")
    assert [arms[name].baseline for name in ("lightgbm", "logistic", "lr")] == ["lightgbm", "logistic", None]


def test_words_of_the_call_go_to_every_run_and_an_arm_s_own_win() -> None:
    study = config(
        "models=lr", "dataset=coupon", "optimizer.lr=0.01", "trainer.max_epochs=2", "arms.b='model=fm optimizer.lr=0.1'"
    )
    first, second = arms_of(study)
    words = run_words(study, Cell("coupon", first), "s")
    assert {"model=lr", "dataset=coupon", "optimizer.lr=0.01", "tuned=none", "resume=true"} <= set(words)
    own = run_words(study, Cell("coupon", second), "s")
    assert "optimizer.lr=0.1" in own
    assert "optimizer.lr=0.01" not in own
    keys = [word.partition("=")[0] for word in own]
    assert len(set(keys)) == len(keys)  # Hydra refuses a group that is given twice


def test_a_trial_never_reads_test_and_a_final_run_does(tmp_path: Path) -> None:
    study = config("models=lr", "dataset=coupon")
    cell = Cell("coupon", arms_of(study)[0])
    trial = trial_job(study, tmp_path, cell, {"optimizer.lr": 0.01}, 7)
    final = final_job(study, tmp_path, cell, {"optimizer.lr": 0.01}, 3)
    assert {"evaluate_test=false", "seed=1000", "optimizer.lr=0.01"} <= set(trial.words)
    assert not any(word.startswith("evaluate_test") for word in final.words)
    assert "seed=3" in final.words
    assert (trial.name, final.name) == ("search/coupon/lr/trial_007", "runs/coupon/lr/seed3")


def test_a_tracker_gets_the_study_as_group_and_the_arm_as_tag() -> None:
    study = config("models=lr", "tracker=wandb")
    words = run_words(study, Cell("coupon", arms_of(study)[0]), "shop")
    assert {"tracker=wandb", "tracker.group=shop", "tracker.tags=[lr]"} <= set(words)


def test_seeds_are_a_number_or_a_list() -> None:
    assert seeds_of(config("models=lr", "seeds=3")) == [1, 2, 3]
    assert seeds_of(config("models=lr", "seeds=4,7")) == [4, 7]
    assert seeds_of(config("models=lr", "seeds=[]")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=coupon"], "the study has no arms"),
        (["models=lr,lr"], "arm 'lr': expected a name"),
        (["models=lr", "arms.lr='model=fm'"], "arm 'lr': expected a name"),
        (["models=lrr"], "no model 'lrr'. Nearest: lr"),
        (["models=lr", "dataset=copuon"], "no dataset 'copuon'. Nearest: coupon"),
        (["models=lr", "trails=4"], "no key 'trails' of study or train. Nearest: trials"),
        (["models=lr", "optimiser.lr=4"], "no key 'optimiser.lr' of study or train. Nearest: optimizer"),
        (["models=lr", "optimizer.lrr=4"], "no key 'optimizer.lrr'. Nearest: optimizer.lr"),
        (["models=lr", "trainer.patience=x"], "trainer.patience"),
        (["models=lr", "against=fm"], "no arm 'fm'"),
        (["models=lr", "seeds=0"], "seeds=0"),
        (["models=lr", "seeds=[]", "settings=defaults"], "seeds=[] asks for searches alone, and no arm has one"),
        (["models=lr", "seeds=1,1"], "seeds=[1, 1]"),
        (["models=lr", "seeds=1,1000"], "search_seed=1000 is one of the seeds"),
        (["models=lr", "trials=0"], "trials=0"),
        (["models=lr", "sampler=tpee"], "sampler=tpee"),
        (["models=lr", "objective=test/auc"], "objective=test/auc is not allowed"),
        (["models=lr", "objective=test_auc"], "objective=test_auc is not allowed"),
        (["models=lr", "on_failure=go"], "on_failure=go"),
        (["models=lr", "engine.workers=0"], "engine.workers=0"),
        (["models=lr", "engine.name=slrum"], "engine.name=slrum"),
        (["models=lr", "arms.a={word: x}"], "arms.a: no key 'word'. Nearest: words"),
        (["models=lr", "arms.a=3"], "arms.a: expected words such as model=fat"),
        (["models=lr", "arms.a={words: 'model=fm', settings_of: b}"], "no other arm 'b'"),
        (["models=lr", "arms.a={words: 'model=fm', starts_from: a}"], "no other arm 'a'"),
        (["models=lr", "arms.a={words: 'model=fm', space: fmm}"], "no search space 'fmm'. Nearest: fm"),
        (["models=lr", "arms.a={words: 'model=fm', space: deepfm}"], "a: its search space has 'model.hidden_dims'"),
        (["models=lr", "study=kuairand_modles"], "no study 'kuairand_modles'. Nearest: kuairand_models"),
        (["models=lr", "metrics=aucc"], "metrics"),
        (["models=lr", "arms.a='model=deepfm model.dropout=two'"], "model.dropout=two is not allowed"),
        (["models=lr,lightgbm", "dataset.min_count=few"], "dataset.min_count=few is not allowed"),
        (["models=lr", "sampler=grid"], "sampler=grid needs a list or a step for 'optimizer.lr'"),
    ],
)
def test_a_mistake_is_answered_before_anything_runs(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        scheduled(config(*words, f"outputs={tmp_path}"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["searched", "tuned", "defaults"])
def test_arms_may_differ_in_where_their_settings_come_from(kind: str, tmp_path: Path) -> None:
    words = [f"settings={kind}", "over={model: [lr, fm], settings: [defaults, searched]}", "within=model"]
    words += ["arms.mine={words: 'model=fm', settings: tuned}", "arms.plain='model=fm'"]
    cells = {state.cell.arm.name: state for state in scheduled(config(*words, f"outputs={tmp_path}")).cells}
    searches = {name for name, state in cells.items() if state.search}
    assert searches == {"lr_searched", "fm_searched", *(["plain"] if kind == "searched" else [])}
    untuned = {name for name, state in cells.items() if "tuned=none" in run_words(config(*words), state.cell, "s")}
    assert untuned == {*cells} - {"mine"} - ({"plain"} if kind == "tuned" else set())
    with pytest.raises(UserError, match=r"arms\.mine\.settings: no kind of settings 'tunde'.*tuned"):
        arms_of(config("arms.mine={words: 'model=fm', settings: tunde}"))


@pytest.mark.parametrize("key", ["within", "metrics", "slices"])
def test_one_name_is_a_list_of_one(key: str) -> None:
    value = {"within": "model", "metrics": "auc", "slices": "hour"}[key]
    over = ["over={model: [lr, fm], enhancer: [none, llactr]}"]
    assert getattr(config(*over, f"{key}={value}"), key) == [value]
    assert getattr(config(*over, f"{key}=[{value}]"), key) == [value]


def test_keys_that_the_words_fix_are_not_searched(tmp_path: Path) -> None:
    (state,) = scheduled(config("models=lr", "dataset=synthetic", "optimizer.lr=0.5", f"outputs={tmp_path}")).cells
    assert state.search
    assert state.search.space.keys() == {"optimizer.embedding_l2"}


def test_settings_that_are_not_searched_are_the_defaults_or_conf_s(tmp_path: Path) -> None:
    for settings in ("tuned", "defaults"):
        study = config("models=fm", "dataset=coupon", f"settings={settings}", f"outputs={tmp_path}")
        (state,) = scheduled(study).cells
        assert (state.search, state.settings) == (None, {})
        assert ("tuned=none" in run_words(study, state.cell, "s")) == (settings == "defaults")

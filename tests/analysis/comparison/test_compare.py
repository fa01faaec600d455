"""`fieldctr compare` of run folders: what it says, writes, refuses, and warns of."""

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldctr import UserError, train
from fieldctr.analysis.comparison.clusters import clusters_of
from fieldctr.analysis.comparison.doubt import holm
from fieldctr.analysis.comparison.effects import Rows
from fieldctr.analysis.comparison.slices import Slicing, counted_field, counts_train, measured_slices
from fieldctr.analysis.comparison.tables import tex

Call = Callable[..., subprocess.CompletedProcess[str]]
TRUE_AUC = 0.6915  # of a click's N(1, 2) above a non-click's N(0, 2): Phi(1 / 2)
KEYS = """metric arm against difference low high p p_holm error_rows error_seeds num_seeds num_rows num_clusters
    clusters detectable equivalence verdict sentence"""


def of(found: dict[str, Any], metric: str, arm: str) -> dict[str, Any]:
    return next(one for one in found["differences"] if (one["metric"], one["arm"]) == (metric, arm))


def arm_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(arm for arm in found["arms"] if arm["name"] == name)


def test_a_comparison_has_what_a_report_reads(swept: Any) -> None:
    (found,) = swept.compare(f"runs={swept.place}/sweep", "against=lr")
    assert json.loads((swept.place / "report/comparison.json").read_text()) == {"comparisons": [found]}
    assert (found["dataset"], found["split"], found["against"], found["by"]) == ("shop", "test", "lr", ["model"])
    assert found["metrics"] == ["auc", "logloss", "gauc", "ne", "ece"]
    assert [arm["name"] for arm in found["arms"]] == ["fat", "fm", "lr"]
    assert len(found["differences"]) == 10
    assert all(set(KEYS.split()) <= one.keys() for one in found["differences"])
    for arm in found["arms"]:
        results = [json.loads((Path(folder) / "result.json").read_text()) for folder in arm["folders"]]
        assert arm["seeds"] == [1, 2, 3]
        for metric in found["metrics"]:
            values = [result["test"][metric] for result in results]
            own = arm["metrics"][metric]
            assert own["values"] == pytest.approx(values)
            assert (own["mean"], own["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
        assert arm["parameters"] == {"dense": 7, "embedding": 90}
        assert (arm["flops_per_sample"], arm["seconds"], arm["budget"], arm["settings"]) == (12, 1.5, None, "defaults")
        assert (arm["epoch_seconds"], arm["peak_memory_mb"], arm["offline"]) == (None, None, None)  # of runs of before
    assert of(found, "auc", "fat")["verdict"] == "better"
    assert of(found, "logloss", "fm")["verdict"] == "undecided"
    assert found["groups"]["auc"] == [["fat"], ["fm", "lr"]]
    assert found["groups"].keys() == set(found["metrics"])


def test_numbers_of_a_difference_agree_with_each_other(swept: Any) -> None:
    (found,) = swept.compare(f"runs={swept.place}/sweep", "against=lr")
    for metric in found["metrics"]:
        own = [one for one in found["differences"] if one["metric"] == metric]
        assert [one["p_holm"] for one in own] == holm([one["p"] for one in own])
        for one in own:
            values = [arm_of(found, name)["metrics"][metric]["values"] for name in (one["arm"], "lr")]
            gaps = np.subtract(*values)
            assert one["difference"] == pytest.approx(gaps.mean())
            assert one["error_seeds"] == pytest.approx(gaps.std(ddof=1) / 3**0.5)
            assert one["error"] ** 2 == pytest.approx(one["error_rows"] ** 2 + one["error_seeds"] ** 2)
            assert one["low"] < one["difference"] < one["high"]
            assert (one["num_seeds"], one["clusters"]) == (3, "user")
            assert one["equivalence"] > abs(one["difference"])
            assert one["detectable"] > 2 * one["error"]
    labels = swept.datasets["shop"].test
    assert of(found, "auc", "fm")["num_rows"] == len(labels)
    assert of(found, "auc", "fm")["num_clusters"] == len(np.unique(labels.group))
    (back,) = swept.compare(f"runs={swept.place}/sweep", "against=fm")
    there, here = of(back, "auc", "lr"), of(found, "auc", "fm")
    assert (there["difference"], there["low"], there["p"]) == pytest.approx(
        (-here["difference"], -here["high"], here["p"])
    )


def test_sentences_say_it_in_words(swept: Any) -> None:
    (found,) = swept.compare(f"runs={swept.place}/sweep", "against=lr")
    assert re.fullmatch(
        r"fat is better than lr by 0\.\d{4} AUC \(95 % interval 0\.\d{4} to 0\.\d{4}, p < 0\.001 after Holm, "
        r"3 seeds, 600 rows of \d+ users\)\.",
        of(found, "auc", "fat")["sentence"],
    )
    loss = of(found, "logloss", "fat")
    sign = -1 if loss["verdict"] == "better" else 1
    assert f"fat is {loss['verdict']} than lr by {sign * loss['difference']:.4f} LogLoss" in loss["sentence"]
    assert re.search(
        r"fm and lr are not told apart in AUC: fm minus lr is [+-]0\.\d{4} \(95 % interval [+-]0\.\d{4} to "
        r"[+-]0\.\d{4}, p = .* after Holm, .*\)\. A difference of more than 0\.\d{4} is ruled out; one of 0\.\d{4}",
        of(found, "auc", "fm")["sentence"],
    )
    (found,) = swept.compare(f"runs={swept.place}/sweep", "against=lr", "bound=0.4", "metrics=[auc]")
    assert of(found, "auc", "fm")["verdict"] == "no larger difference than 0.4"
    assert "A difference of more than 0.4 is ruled out (95 %)." in of(found, "auc", "fm")["sentence"]
    assert of(found, "auc", "fat")["sentence"].endswith("It is real, and no larger than 0.4.")


def test_without_against_the_reference_is_the_best_on_valid(swept: Any) -> None:
    (found,) = swept.compare(f"runs={swept.place}/sweep", "metrics=[auc]")
    assert found["against"] == "fat"
    assert {one["verdict"] for one in found["differences"]} == {"worse"}


def test_files_hold_the_same_numbers(swept: Any) -> None:
    (found,) = swept.compare(f"runs={swept.place}/sweep", "against=lr", "slices=[ad]")
    with (swept.place / "report/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    whole = {(row["metric"], row["arm"]): row for row in rows if not row["field"]}
    assert len(whole) == 15
    for one in found["differences"]:
        assert float(whole[one["metric"], one["arm"]]["p_holm"]) == one["p_holm"]
    assert len(rows) > 15 + 2 * 5 * 10
    page = (swept.place / "report/comparison.md").read_text()
    for one in found["differences"]:
        assert f"- {one['sentence']}" in page
    for note in found["notes"]:
        assert note in page
    assert "## By ad (exploratory)" in page
    lines = (swept.place / "report/comparison.tex").read_text().splitlines()
    table = [line for line in lines if line.endswith(r"\\")]
    assert {line.count("&") for line in table} == {6}
    assert [line.split(" &")[0] for line in table] == ["Arm", "fat", "fm", "lr"]
    assert r"\toprule" in lines


def test_a_name_cannot_break_a_table() -> None:
    assert tex(r"a_b & 5% ~^$#{}\x") == (r"a\_b \& 5\% \textasciitilde{}\textasciicircum{}\$\#\{\}\textbackslash{}x")


# Arms, conditions, tables


def test_arms_by_a_key_of_the_configuration_within_another(shop: Any) -> None:
    for rate in (0.1, 0.01):
        for l2 in (0.0, 0.1):
            words = (f"optimizer.lr={rate}", f"optimizer.dense_l2={l2}")
            shop.run(f"sweep/{rate}{l2}", "lr", *words, gain=1 + 10 * rate)
    with pytest.raises(UserError, match=r"runs of 0.01 differ in optimizer.dense_l2 \(0.0, 0.1\)"):
        shop.compare(f"runs={shop.place}/sweep", "by=optimizer.lr")
    words = (
        f"runs={shop.place}/sweep",
        "by=optimizer.lr",
        "against=0.01",
        "within=optimizer.dense_l2",
        "metrics=[auc]",
    )
    found = shop.compare(*words)
    assert [one["within"] for one in found] == [{"optimizer.dense_l2": "0.0"}, {"optimizer.dense_l2": "0.1"}]
    assert [[one["arm"] for one in each["differences"]] for each in found] == [["0.1"], ["0.1"]]
    both = shop.compare(f"runs={shop.place}/sweep", "by=[optimizer.lr,optimizer.dense_l2]", "against=[0.01,0.1]")
    assert {arm["name"] for arm in both[0]["arms"]} == {"0.1 0.0", "0.1 0.1", "0.01 0.0", "0.01 0.1"}


def test_data_sets_are_compared_apart_or_together_where_their_rows_are_one(shop: Any) -> None:
    for dataset in ("shop", "shop_plus"):
        for model in ("lr", "fm"):
            shop.run(f"sweep/{dataset}_{model}", model, dataset=dataset, gain=1 + len(dataset) / 10)
    apart = shop.compare(f"runs={shop.place}/sweep", "against=lr")
    assert [one["dataset"] for one in apart] == ["shop", "shop_plus"]
    (found,) = shop.compare(f"runs={shop.place}/sweep", "by=[model,dataset]", "against=[lr,shop]")
    assert [arm["name"] for arm in found["arms"]][-1] in ("lr shop", "fm shop")
    assert len(found["arms"]) == 4
    assert any("2 prepared tables, whose rows of this split are the same" in note for note in found["notes"])


def test_a_data_set_without_the_reference_is_left_out_and_said(shop: Any) -> None:
    shop.run("sweep/a", "lr")
    shop.run("sweep/b", "fm")
    shop.run("sweep/c", "fm", dataset="other")
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=lr")
    assert any("dataset=other left out: only one arm there (fm)" in note for note in found["notes"])


def test_tables_with_other_rows_are_refused(shop: Any) -> None:
    shop.run("sweep/a", "lr")
    shop.run("sweep/b", "fm", dataset="other")
    with pytest.raises(UserError, match=r"tables with other labels in test: \w+ \(lr shop\) and \w+ \(fm other\)"):
        shop.compare(f"runs={shop.place}/sweep", "by=[model,dataset]", "against=[lr,shop]")


def test_weights_count_in_every_metric(shop: Any) -> None:
    for model, gain in (("lr", 1.0), ("fm", 1.5)):
        shop.run(f"sweep/{model}", model, dataset="shop_weighted", gain=gain)
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=lr")  # values are held against the recorded ones
    counted = int((shop.datasets["shop_weighted"].test.weight > 0).sum())
    assert of(found, "auc", "fm")["num_rows"] == counted < len(shop.datasets["shop_weighted"].test)
    assert any("sample weights" in note for note in found["notes"])


# Clusters and slices


def test_clusters_by_day_by_field_or_none(swept: Any) -> None:
    runs = f"runs={swept.place}/sweep"
    errors = {}
    for clusters, unit in (("auto", "user"), ("group", "user"), ("day", "day"), ("ad", "ad"), ("none", None)):
        (found,) = swept.compare(runs, "against=lr", "metrics=[auc]", f"clusters={clusters}")
        one = of(found, "auc", "fm")
        errors[clusters] = one["error_rows"]
        assert one["clusters"] == unit
        assert (f"of {one['num_clusters']:,} {unit}s" in one["sentence"]) == (unit is not None)
    assert errors["auto"] == errors["group"]
    assert len(set(errors.values())) == 4
    (found,) = swept.compare(runs, "against=lr", "metrics=[auc]", "clusters=day")
    assert of(found, "auc", "fm")["num_clusters"] == len(days(swept))


def days(shop: Any) -> list[str]:
    """Of the last 600 rows of 1,500, one each ten minutes."""
    return sorted({str(np.datetime64(1_700_000_000 + 600 * i, "s"))[:10] for i in range(900, 1500)})


@pytest.mark.parametrize("field", ["ad", "age", "price", "day"])
def test_slices_share_out_the_rows(swept: Any, field: str) -> None:
    (found,) = swept.compare(f"runs={swept.place}/sweep", "against=lr", f"slices={field}", "metrics=[auc,gauc]")
    (one,) = found["slices"]
    assert (one["field"], one["exploratory"], one["against"]) == (field, True, "lr")
    assert "Exploratory" in one["note"]
    assert sum(part["num_rows"] for part in one["parts"]) == 600
    values = [part["value"] for part in one["parts"]]
    if field == "ad":
        assert len(values) == 11
        assert values[-1] == "4 other values"
        assert all(re.fullmatch(r"a\d+", value) for value in values[:-1])
    if field == "day":
        assert values == days(swept)
    if field == "price":
        assert [len(values), values[0][0]] == [4, "("]
    p = [gap["p"] for part in one["parts"] for gap in part["differences"] if gap["metric"] == "auc"]
    adjusted = [gap["p_holm"] for part in one["parts"] for gap in part["differences"] if gap["metric"] == "auc"]
    assert adjusted == holm(p)


def test_frequency_alone_is_of_items() -> None:
    node = {"name": "shop", "fields": {"user": {}, "ad": {}, "kind": {}}, "entities": {"item": ["ad", "kind"]}}
    assert counted_field("frequency", node, key="by") == "ad"
    assert counted_field("frequency:user", node, key="by") == "user"
    assert counted_field("ad", node, key="by") is None
    assert counted_field("frequency_cap", node, key="by") is None
    asked = ["frequency", "frequency:user", "ad", "frequency_cap", "day"]
    assert [counts_train(one) for one in asked] == [True, True, False, False, False]
    named = node | {"fields": {"frequency": {}, "ad": {}}}  # of visits, say
    assert counted_field("frequency", named, key="by") is None
    assert counted_field("frequency:frequency", named, key="by") == "frequency"
    with pytest.raises(UserError, match=r"slices=frequency: dataset 'shop' does not say.* frequency:user"):
        counted_field("frequency", node | {"entities": None}, key="slices")


def test_slices_by_frequency_are_those_of_rows_counted_one_by_one(swept: Any) -> None:
    runs = f"runs={swept.place}/sweep"
    (found,) = swept.compare(runs, "against=lr", "slices=[frequency:user]", "metrics=[auc]")
    (one,) = found["slices"]
    assert one["field"] == "train rows of user"
    data = swept.datasets["shop"]
    seen = data.train.ids[:, 0].tolist()
    digits = [len(str(seen.count(user))) if user and user in seen else 0 for user in data.test.ids[:, 0].tolist()]
    names = {0: "none", 1: "1 to 9", 2: "10 to 99"}
    assert [part["value"] for part in one["parts"]] == [names[code] for code in sorted(set(digits))]
    assert [part["num_rows"] for part in one["parts"]] == [digits.count(code) for code in sorted(set(digits))]
    assert not any("frequencies" in note for note in found["notes"])
    for name, message in (
        ("tags", "several values"),
        ("price", "is a number"),
        ("usr", "no field 'usr'. Nearest: user"),
    ):
        with pytest.raises(UserError, match=f"slices=frequency:{name}: .*{message}"):
            swept.compare(runs, "against=lr", f"slices=[frequency:{name}]")


def test_frequencies_of_fewer_train_rows_are_told(shop: Any) -> None:
    for model in ("lr", "fm"):
        shop.run(f"sweep/{model}", model, "train_rows=100")
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=lr", "slices=[frequency:ad]", "metrics=[auc]")
    assert any("frequencies are those of the whole train split" in note for note in found["notes"])


@pytest.mark.parametrize("grouped", [True, False])
def test_the_auc_of_a_slice_is_that_of_its_rows_and_its_interval_that_of_clusters(grouped: bool) -> None:
    """The interval holds the true AUC about as often as it says, of users whose rows are alike and of rows alone."""
    rng, alike = np.random.default_rng(1), 5 if grouped else 1
    held = []
    for _ in range(100):
        user = np.repeat(np.arange(1, 81), 5)
        clicked = rng.random(400) < 0.4
        logit = (clicked + np.repeat(rng.normal(size=400 // alike), alike) + rng.normal(size=400)).astype(np.float32)
        rows = Rows(clicked, np.ones(400), user, clusters_of(user) if grouped else None)
        parts = measured_slices(Slicing("x", user % 2, {0: "even", 1: "odd"}, ordered=True), rows, logit)
        for code, part in enumerate(parts):
            own = user % 2 == code
            hit, miss = logit[own & clicked], logit[own & ~clicked]
            assert part["auc"] == pytest.approx((hit[:, None] > miss).mean())
            held.append(part["low"] < TRUE_AUC < part["high"])
        assert [part["value"] for part in parts] == ["even", "odd"]
    assert np.mean(held) > 0.88


def test_a_slice_of_one_class_has_no_auc() -> None:
    clicked = np.array([True, True, True, False])
    slicing = Slicing("x", np.array([0, 0, 1, 1]), {0: "none", 1: "1 to 9"}, ordered=True)
    first, second = measured_slices(slicing, Rows(clicked, np.ones(4)), np.arange(4, dtype=np.float32))
    assert "auc" not in first
    assert "needs clicks and non-clicks, got 2 of 2" in first["left_out"]
    assert "AUC has no error" in second["left_out"]


def test_a_slice_is_a_comparison_of_its_rows(swept: Any) -> None:
    (found,) = swept.compare(f"runs={swept.place}/sweep", "against=lr", "slices=[age]", "metrics=[logloss]")
    split = swept.datasets["shop"].test
    part = next(one for one in found["slices"][0]["parts"] if one["num_rows"])
    names = {1: "(-inf", 2: "(", 3: "("}
    code = next(code for code in names if (split.ids[:, 2] == code).sum() == part["num_rows"])
    rows = np.asarray(split.ids[:, 2] == code)
    losses = {}
    for model in ("fm", "lr"):
        z = [np.load(swept.place / f"sweep/{model}{seed}/test.scores.npy").astype(float)[rows] for seed in (1, 2, 3)]
        losses[model] = np.mean([np.logaddexp(0, one) - split.label[rows] * one for one in z])
    gap = next(one for one in part["differences"] if one["arm"] == "fm")
    assert gap["difference"] == pytest.approx(losses["fm"] - losses["lr"])
    assert gap["num_rows"] == part["num_rows"]


def test_a_slice_of_one_class_says_so(shop: Any) -> None:
    for model in ("lr", "fm"):
        shop.run(f"sweep/{model}", model)
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=lr", "slices=[user]", "metrics=[auc]")
    parts = found["slices"][0]["parts"]
    assert len(parts) == 11
    assert all(part["left_out"] or part["differences"] for part in parts)
    assert any(
        "AUC has no error" in text or "clicks and non-clicks" in text for part in parts for text in part["left_out"]
    )


# What makes it less fair than it looks


def test_searched_settings_against_defaults_are_said_first(shop: Any) -> None:
    for seed in (1, 2):
        shop.run(f"sweep/lr{seed}", "lr", seed=seed)
        shop.run(f"sweep/fm{seed}", "fm", "optimizer.lr=0.5", seed=seed, gain=2, settings="tuned/shop_fm")
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=lr")
    assert found["notes"][0].startswith("UNEQUAL SETTINGS: lr on defaults; fm on tuned/shop_fm.")
    assert all(
        "UNEQUAL SETTINGS: fm ran on tuned/shop_fm, lr on defaults." in one["sentence"] for one in found["differences"]
    )
    assert any("besides model the arms differ in optimizer.lr (0.02: lr; 0.5: fm)" in note for note in found["notes"])
    page = (shop.place / "report/comparison.md").read_text()
    assert page.index("**UNEQUAL SETTINGS") < page.index("- fm is")


def test_settings_that_are_compared_are_not_complained_of(shop: Any) -> None:
    for seed in (1, 2):
        for name, gain in (("defaults", 1), ("searched, 8 trials", 2)):
            shop.run(f"sweep/{name[:4]}{seed}", "fm", seed=seed, gain=gain, settings=name)
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=defaults", "by=settings")
    assert "UNEQUAL" not in json.dumps(found)


def test_equal_settings_are_not_complained_of(swept: Any) -> None:
    (found,) = swept.compare(f"runs={swept.place}/sweep", "against=lr")
    (note,) = found["notes"]  # their YAML brings rates of their own: true, and no unequal footing
    assert note.startswith("besides model the arms differ in optimizer.lr (0.02: lr; 0.003: ")


def test_unequal_budgets_of_a_study_are_said(shop: Any) -> None:
    for model in ("lr", "fm"):
        shop.run(f"study/runs/shop/{model}/seed1", model, settings="study/models")
    searches = [
        {"dataset": "shop", "arm": arm, "budget": {"trials": 8, "finished": done, "seconds": 3.5}}
        for arm, done in (("lr", 8), ("fm", 5))
    ]
    record = shop.place / "study/record.json"
    record.write_text(json.dumps({"searches": searches}))
    (found,) = shop.compare(f"runs={shop.place}/study/runs/*/*", "against=lr")
    assert found["notes"][0] == "UNEQUAL BUDGETS: finished trials of the search were lr 8, fm 5"
    assert arm_of(found, "fm")["budget"] == {"trials": 8, "finished": 5, "seconds": 3.5}
    searches[1]["budget"] = searches[0]["budget"]
    record.write_text(json.dumps({"searches": searches}))
    (found,) = shop.compare(f"runs={shop.place}/study/runs/*/*", "against=lr")
    assert not any("BUDGETS" in note for note in found["notes"])


def test_missing_seeds_count_only_where_both_have_them(shop: Any) -> None:
    for model, seeds in (("lr", (1, 2, 3)), ("fm", (2, 3, 4)), ("fat", (7,))):
        for seed in seeds:
            shop.run(f"sweep/{model}{seed}", model, seed=seed, gain=1 + seed / 10)
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=lr", "metrics=[auc]")
    values = {
        arm["name"]: dict(zip(arm["seeds"], arm["metrics"]["auc"]["values"], strict=True)) for arm in found["arms"]
    }
    one = of(found, "auc", "fm")
    assert one["num_seeds"] == 2
    assert one["difference"] == pytest.approx(np.mean([values["fm"][seed] - values["lr"][seed] for seed in (2, 3)]))
    lone = of(found, "auc", "fat")
    assert (lone["num_seeds"], lone["error_seeds"]) == (0, None)
    assert "no shared seed, so rows only" in lone["sentence"]
    assert lone["difference"] == pytest.approx(values["fat"][7] - np.mean(list(values["lr"].values())))
    text = "\n".join(found["notes"])
    assert "fm has no run of seed 1, 7: of its difference to lr the 2 shared ones count" in text
    assert "fat has no run of seed 1, 2, 3, 4: of its difference to lr it shares none, and all count, unpaired" in text


def test_one_seed_answers_for_rows_only(shop: Any) -> None:
    for model in ("lr", "fm"):
        shop.run(f"sweep/{model}", model)
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=lr", "metrics=[auc]")
    one = of(found, "auc", "fm")
    assert (one["error"], one["error_seeds"]) == (one["error_rows"], None)
    assert "one seed, so rows only" in one["sentence"]
    assert arm_of(found, "fm")["metrics"]["auc"]["sd"] is None
    assert any(note.startswith("one seed each") for note in found["notes"])


def test_commits_runtimes_and_repeats_are_noted(shop: Any) -> None:
    shop.run("sweep/a", "lr")
    shop.run("sweep/b", "fm", commit="d" * 40, runtime="cuda")
    shop.run("sweep/c", "fm")
    shop.run("sweep/d", "fm", "runtime.threads=1", seed=2, commit="d" * 40 + "+")
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=lr")
    text = "\n".join(found["notes"])
    states = "cccccccccc (lr); dddddddddd (fm); dddddddddd+ (fm)"
    assert f"3 states of fieldctr (+: a commit with local changes): {states}" in text
    assert "2 machines or runtimes: cpu (lr, fm); cuda (fm)" in text
    assert "sweep/c repeats" in text


def test_valid_can_be_compared_and_is_called_what_it_is(swept: Any) -> None:
    (found,) = swept.compare(f"runs={swept.place}/sweep", "against=lr", "split=valid", "metrics=[auc]")
    result = json.loads((swept.place / "sweep/fm1/result.json").read_text())
    assert arm_of(found, "fm")["metrics"]["auc"]["values"][0] == pytest.approx(result["valid"]["auc"])
    assert any("rows of valid, on which epochs and settings are chosen" in note for note in found["notes"])


# Mistakes


def test_mistakes_of_the_call_are_told_in_words(swept: Any) -> None:
    runs = f"runs={swept.place}/sweep"
    for words, message in (
        (["against=fatt"], "against=fatt: no arm of that name. Nearest: fat. Arms by model: lr, fm, fat|against=fatt"),
        (["by=optimizer.rl"], "no key 'optimizer.rl' in the runs' configurations. Nearest: optimizer.lr"),
        (["by=[]"], r"by=\[\]: name what an arm is"),
        (["metrics=[]"], r"metrics=\[\]: name one at least"),
        (["by=seed"], "by=seed: seeds are what an arm is repeated over"),
        (["by=dataset"], "by=dataset: the runs of shop differ in model"),
        (["slices=[add]"], "slices=add: no field 'add'. Nearest: ad"),
        (["slices=[tags]"], "slices=tags: a row has several values"),
        (["clusters=usr"], "clusters=usr: no field 'usr'. Nearest: user"),
        (["slices=[day]", "time={column: tss, unit: s}"], "no column 'tss'. Nearest: ts"),
        (["metrics=[acu]"], "metrics=.*is not allowed: expected list of auc"),
        (["level=95"], "level=95.* is not allowed"),
        (["split=train"], "split=train is not allowed"),
    ):
        with pytest.raises(UserError, match=message):
            swept.compare(runs, *words)
    with pytest.raises(UserError, match="no run folder there"):
        swept.compare(f"runs={swept.place}/nothing*")


def test_one_arm_only_is_no_comparison(shop: Any) -> None:
    for seed in (1, 2):
        shop.run(f"sweep/{seed}", "lr", seed=seed)
    with pytest.raises(UserError, match="by=model: one arm only, lr in all runs"):
        shop.compare(f"runs={shop.place}/sweep")


def test_trials_of_a_search_and_unfinished_runs_are_left_out(shop: Any) -> None:
    trial = shop.run("sweep/trial", "fm", test=None)
    with pytest.raises(UserError, match="all 1 finished runs are trials of a search, which never see the test split"):
        shop.compare(f"runs={trial}")
    for model in ("lr", "fm"):
        shop.run(f"sweep/{model}", model)
    (shop.run("sweep/going", "fat") / "result.json").unlink()
    (found,) = shop.compare(f"runs={shop.place}/sweep", "against=lr")
    text = "\n".join(found["notes"])
    assert "1 trials of a search are left out" in text
    assert re.search(r"1 unfinished runs are left out: .*sweep/going", text)
    with pytest.raises(UserError, match="none of its 1 runs has finished"):
        shop.compare(f"runs={shop.place}/sweep/going")


def test_scores_that_are_not_of_the_run_or_of_the_rows_are_refused(shop: Any) -> None:
    shop.run("sweep/lr", "lr")
    path = shop.run("sweep/fm", "fm") / "test.scores.npy"
    scores = np.load(path)
    for content, message in (
        (scores[::-1], "auc of its scores on test is 0.*, and it recorded 0"),
        (scores[:-1], "test.scores.npy has 599 scores, and test has 600 rows"),
    ):
        np.save(path, content)
        with pytest.raises(UserError, match=message):
            shop.compare(f"runs={shop.place}/sweep")
    path.unlink()
    with pytest.raises(UserError, match=r"test.scores.npy is missing"):
        shop.compare(f"runs={shop.place}/sweep")


def test_a_run_of_an_earlier_version_is_told(shop: Any) -> None:
    shop.run("sweep/lr", "lr")
    shop.run("sweep/fm", "fm", settings=None)
    with pytest.raises(UserError, match=r"fm: result.json has no settings, so an earlier version made it"):
        shop.compare(f"runs={shop.place}/sweep")


def test_a_table_that_is_gone_is_told(shop: Any) -> None:
    for model in ("lr", "fm"):
        shop.run(f"sweep/{model}", model, data_digest="0123456789abcdef")
    with pytest.raises(UserError, match=r"its prepared table .*0123456789abcdef is gone"):
        shop.compare(f"runs={shop.place}/sweep")


# The whole way


@pytest.mark.slow
def test_trained_runs_are_compared_by_the_command(shop: Any, call: Call) -> None:
    """Two models of two seeds, trained here; a damaged file is refused by its checksum."""
    small = [
        "trainer.max_epochs=1",
        "trainer.batch_size=64",
        "runtime.threads=1",
        "runtime.matmul=mkl",
        "embedding_dim=4",
    ]
    for model in ("lr", "fm"):
        for seed in (1, 2):
            folder = shop.place / f"sweep/{model}{seed}"
            train(shop.config("dataset=shop", f"model={model}", f"seed={seed}", *small), folder=folder)
    words = ["compare", f"runs={shop.place}/sweep", "against=lr", f"outputs={shop.outputs}", "slices=[ad]"]
    done = call(shop.place, *words, "output=out")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((shop.place / "out/comparison.json").read_text())["comparisons"]
    assert all(one["sentence"] in done.stdout for one in found["differences"])
    assert done.stdout.splitlines()[-1] == "out/comparison.md"
    assert any("has been read by" in note for note in found["notes"])
    path = shop.place / "sweep/fm2/test.scores.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"fm2/test.scores.npy is damaged: other bytes than were written"):
        shop.compare(*words[1:3])


def test_arms_of_a_study_are_those_of_its_folders(shop: Any) -> None:
    """One with fixed settings and no parameters, as trees have, and one with another table, against a searched one."""
    for seed in (1, 2):
        shop.run(f"study/runs/shop/wide/seed{seed}", "fm", seed=seed, settings="searched, 8 trials", gain=2)
        trees = {"settings": "fixed", "num_parameters": None, "flops_per_sample": None}
        shop.run(f"study/runs/shop/trees/seed{seed}", "lr", seed=seed, **trees)
        other = {"settings": "searched, 8 trials, those of wide", "dataset": "shop_plus"}
        shop.run(f"study/runs/shop/plain/seed{seed}", "fat", seed=seed, **other)
    runs = f"runs={shop.place}/study/runs/*/*"
    with pytest.raises(UserError, match=r"by=arm: .*seed1 is no run of a study"):
        shop.compare(runs, "by=arm")
    (shop.place / "study/study.json").write_text("{}")
    (found,) = shop.compare(runs, "by=arm", "against=wide")
    assert found["dataset"] == "shop"
    assert found["notes"][0].startswith("UNEQUAL SETTINGS")
    assert of(found, "auc", "trees")["unfair"] == "UNEQUAL SETTINGS: trees ran on fixed, wide on searched, 8 trials"
    assert of(found, "auc", "plain")["unfair"] == ""
    assert (arm_of(found, "trees")["parameters"], arm_of(found, "trees")["flops_per_sample"]) == ({}, None)
    assert "| trees | " in (shop.place / "report/comparison.md").read_text()

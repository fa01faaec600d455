"""scripts/result_tables.py: a study's numbers in their place on the page, and nothing else changed there."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


def study_of(shop: Any, runs: Path, *words: str) -> Path:
    """A study's folder, which holds what the script reads of it."""
    folder = runs.parent
    found = shop.compare(f"runs={runs}/*/*", "metrics=[auc,logloss]", *words)
    (folder / "report").mkdir()
    (folder / "report/comparison.json").write_text(json.dumps({"comparisons": found}))
    (folder / "study.json").write_text(json.dumps({"settings": "searched", "trials": 8}))
    return folder


@pytest.fixture(scope="module")
def inserted() -> Any:
    return runpy.run_path(str(ROOT / "scripts/result_tables.py"))["inserted"]


def test_a_table_of_arms_takes_its_place(shop: Any, inserted: Any) -> None:
    for model, gain in (("lr", 1.0), ("fm", 3.0)):
        for seed in (1, 2):
            shop.run(f"s/runs/shop/{model}/seed{seed}", model, seed=seed, gain=gain)
    folder = study_of(shop, shop.place / "s/runs", "against=lr")
    page = "before\n<!-- study s -->\nearlier rows\n<!-- end -->\nafter\n<!-- study other -->\nkept\n<!-- end -->\n"
    text = inserted(page, "s", folder)
    assert inserted(text, "s", folder) == text
    start, _, rest = text.partition("<!-- study s -->\n")
    table, _, end = rest.partition("<!-- end -->")
    assert (start, end) == ("before\n", "\nafter\n<!-- study other -->\nkept\n<!-- end -->\n")
    assert [line.split(" | ")[0] for line in table.splitlines()[:4]] == ["| arm", "| ---", "| fm", "| lr"]
    assert "earlier rows" not in table
    assert "4 runs on shop (2 seeds, " in table
    assert "settings searched, 8 trials each" in table
    with pytest.raises(SystemExit, match="has no place <!-- study gone -->"):
        inserted(page, "gone", folder)


def test_conditions_are_lines_and_a_pair_is_a_column(shop: Any, inserted: Any) -> None:
    folder = shop.place / "outputs/studies/s"
    (shop.place / "outputs").mkdir()
    (shop.place / "outputs/data").symlink_to(shop.outputs / "data")
    for model in ("lr", "fm"):
        for rate in (0.1, 0.2, 0.3):
            shop.run(f"outputs/studies/s/runs/shop/{model}{rate}/seed1", model, f"optimizer.lr={rate}", gain=1 + rate)
    study_of(shop, folder / "runs", "by=optimizer.lr", "within=model", "against=0.1")
    text = inserted("<!-- study s, 0.2 minus 0.3 -->\n<!-- end -->\n", "s", folder)
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert lines[0] == ["model", "0.1: test AUC ± sd", "0.2 - 0.1", "0.3 - 0.1", "0.2 - 0.3"]
    assert [line[0] for line in lines[2:]] == ["fm", "lr"]
    for line in lines[2:]:
        low, high, apart = (float(cell.strip("*").split()[0]) for cell in line[2:])
        assert apart == pytest.approx(low - high, abs=2e-4)
        assert apart < 0


def test_more_arms_than_fit_beside_each_other_have_lines(shop: Any, inserted: Any) -> None:
    folder = shop.place / "outputs/studies/many"
    for rate in (0.1, 0.2, 0.3, 0.4):
        shop.run(f"outputs/studies/many/runs/shop/lr{rate}/seed1", "lr", f"optimizer.lr={rate}", gain=1 + rate)
    study_of(shop, folder / "runs", "by=optimizer.lr", "within=model", "against=0.1")
    text = inserted("<!-- study many -->\n<!-- end -->\n", "many", folder)
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in lines[0]] == ["", "lr on shop"]
    assert [line[0].strip() for line in lines[2:]] == ["0.1: test AUC ± sd", "0.2 - 0.1", "0.3 - 0.1", "0.4 - 0.1"]
    gains = [float(line[1].strip(" *").split()[0]) for line in lines[3:]]
    assert gains == sorted(gains)
    assert gains[0] > 0

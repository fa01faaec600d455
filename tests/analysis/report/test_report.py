"""The report of a study: whole, harmless, and the same for the same runs."""

import copy
import csv
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fieldctr.analysis.report.growth import growths
from fieldctr.analysis.report.members import load_members
from fieldctr.analysis.report.mirror import mirror_comparison
from fieldctr.analysis.report.report import report
from fieldctr.config import TrackerConfig

ADDRESSES = ("src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction")


class Page(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def written(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    pictures = report(
        made.comparisons,
        folder,
        outputs=made.outputs,
        study=made.study,
        unfinished=[made.study / name for name in "xy"],
    )
    assert {"calibration", "learning_valid_auc", "intervals_auc", "cost_seconds"} <= pictures.keys()
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.values())
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the PNG files, which cost most of a report's time."""
    monkeypatch.setattr("fieldctr.analysis.report.report.save_png", lambda chart, stem: stem)


def test_the_page_fetches_nothing_and_takes_no_name_for_markup(written: Path, hostile: str) -> None:
    page = Page(written / "report.html")
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert not {"iframe", "object", "embed", "base"} & set(tags)
    addresses = [value or "" for _, own in page.tags for key, value in own.items() if key in ADDRESSES]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not any(key.startswith("on") for _, own in page.tags for key in own)
    assert page.text.count(hostile) > 20
    assert (written / "report.html").read_text().count("<script>alert") == 0


def test_the_page_has_what_was_asked_of_it(written: Path, made: Any, hostile: str) -> None:
    page = Page(written / "report.html")
    for text in (
        *("Results", "Differences", "Learning curves", "Calibration", "Search", "Inside the models", "What failed"),
        *(row["sentence"] for one in made.comparisons for row in one["differences"]),
        *("valid AUC", "LogLoss ↓", "Pareto", "optimizer.lr", "embedding_dim", "model.block", "c0ffeec0ffee"),
        f"fieldctr train 'model={hostile}' seed=2 'hydra.run.dir=a folder'",
        f"ValueError: {hostile}",
        *(str(made.study / "y"), "killed, or still running", made.comparisons[0]["notes"][0]),
    ):
        assert text in page.text, text
    drawers = [own for tag, own in page.tags if tag == "tr" and own.get("class") == "drawer"]
    assert len(drawers) == len(made.runs)


@pytest.mark.usefixtures("undrawn")
def test_the_tables_know_no_second_and_no_place(written: Path, made: Any, tmp_path: Path) -> None:
    slower = copy.deepcopy(made.comparisons)
    for arm in slower[0]["arms"]:
        arm["seconds"] *= 3.7
        arm["budget"]["seconds"] *= 2
    report(slower, tmp_path, outputs=made.outputs)
    for name in ("comparison.md", "comparison.csv", "comparison.tex"):
        text = (tmp_path / name).read_text()
        assert text == (written / name).read_text()
        assert str(made.study) not in text
    assert (tmp_path / "costs.csv").read_text() != (written / "costs.csv").read_text()
    (first, *_) = csv.DictReader((written / "costs.csv").read_text().splitlines())
    keys = ("epoch_seconds", "peak_memory_mb", "offline_tokens", "offline_seconds")
    assert [float(first[key]) for key in keys] == [1.5, 700, 9, 2.5]


@pytest.mark.usefixtures("undrawn")
def test_no_name_is_markup_in_a_table(make: Callable[..., Any], tmp_path: Path, hostile: str) -> None:
    made = make(["fat", f"{hostile}|a_b\\%\n&lt;"], (1,))
    report(made.comparisons, tmp_path, outputs=made.outputs)
    page = (tmp_path / "comparison.md").read_text()
    assert "<script" not in page
    assert "&lt;script>alert(1)&lt;/script>\\|a_b" in page
    assert "&amp;lt;" in page
    rows = [line for line in page.splitlines() if line.startswith("| &lt;script")]
    assert len(rows) >= 1
    assert len({len(line.replace("\\|", "").split("|")) for line in page.splitlines() if line.startswith("| ")}) <= 2
    latex = (tmp_path / "comparison.tex").read_text()
    assert r"\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{}|a\_b\textbackslash{}\%" in latex


@pytest.mark.usefixtures("undrawn")
def test_what_a_run_did_not_leave_is_not_shown(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(["fat", "lr"], (1,))
    for path in (*made.study.rglob("*.npy"), *made.study.rglob("*.png"), *made.study.rglob("metrics.jsonl")):
        path.unlink()
    trees = copy.deepcopy(made.comparisons)
    trees[0]["arms"][1] |= {"parameters": {}, "flops_per_sample": None, "budget": None}
    report(trees, tmp_path, outputs=made.outputs)
    page = Page(tmp_path / "report.html")
    assert "Results" in page.text
    for text in ("Learning curves", "Calibration on", "Search", "Inside the models", "What failed"):
        assert text not in page.text


@pytest.mark.usefixtures("undrawn")
def test_large_pictures_are_named_and_not_shown(make: Callable[..., Any], tmp_path: Path) -> None:
    made = make(["fat", "fm", "lr"], (1,))
    for path in made.study.rglob("*.png"):
        path.write_bytes(bytes(700_000))
    report(made.comparisons, tmp_path, outputs=made.outputs)
    page = Page(tmp_path / "report.html")
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert str(made.runs["lr"][0] / "field_pairs.png") in page.text
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


@pytest.mark.usefixtures("undrawn")
def test_two_data_sets_have_their_own_sections_and_pictures(make: Callable[..., Any], tmp_path: Path) -> None:
    one, other = make(["fat", "lr"], (1,), "a/b"), make(["fat", "lr"], (1,), "a b")
    pictures = report([*one.comparisons, *other.comparisons], tmp_path, outputs=one.outputs)
    assert {"1_a_b_intervals_auc", "2_a_b_intervals_auc"} <= pictures.keys()
    assert {own["id"] for tag, own in Page(tmp_path / "report.html").tags if tag == "section"} == {"d1", "d2"}


def test_runs_of_one_model_that_differ_in_size_show_their_law(make: Callable[..., Any]) -> None:
    made = make([f"fat{i}" for i in range(6)])
    folders = [run for runs in made.runs.values() for run in runs]
    assert growths(load_members(folders), "test") == []
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        result["test"]["logloss"] = 0.4 + result["num_parameters"]["dense"] ** -0.4 + 1e-4 * result["seed"]
        (folder / "result.json").write_text(json.dumps(result | {"model": "fat"}))
    (found,) = growths(load_members(folders), "test")
    assert found.verdict.startswith("supported")
    assert {mark.kind for mark in found.chart.marks} == {"band", "line", "whiskers", "dots", "rings"}


def test_the_comparison_is_one_run_of_the_study_in_the_tracker(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    class Mirror:
        def __init__(self, config: TrackerConfig, folder: Path, name: str, run_config: object) -> None:
            seen.update(group=config.group, tags=config.tags, name=name)

        def table(self, name: str, rows: list[dict[str, Any]]) -> None:
            seen[name] = rows

        def finish(self, summary: dict[str, float], pictures: dict[str, Path], exit_code: int) -> None:
            seen.update(summary=summary, pictures=pictures, code=exit_code)

    monkeypatch.setattr("fieldctr.tracking.WandbMirror", Mirror)
    config = TrackerConfig(name="wandb", project="p", mode="offline", group="made", tags=[])
    mirror_comparison(config, tmp_path, made.comparisons, {"a": tmp_path / "a.png"})
    assert (seen["group"], seen["tags"], seen["name"], seen["code"]) == ("made", ["comparison"], "comparison", 0)
    assert {row["arm"] for row in seen["arms"]} == set(made.runs)
    assert seen["summary"][f"{made.dataset}/fat/auc"] == made.comparisons[0]["arms"][0]["metrics"]["auc"]["mean"]
    assert seen["pictures"] == {"a": tmp_path / "a.png"}

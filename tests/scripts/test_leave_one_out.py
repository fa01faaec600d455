"""scripts/leave_one_out.py: the rule against loops that spell it out, and a table from studies that searched alone."""

import itertools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from by_path import loaded

from fieldctr import compose, study
from fieldctr.commands import study as command
from fieldctr.studies.jobs import Job, Outcome

SCRIPT = Path(__file__).parents[2] / "scripts" / "leave_one_out.py"
ARMS = ["arms.lr={words: 'model=lr', space: rate_and_l2}", "arms.dnn={words: 'model=dnn', space: rates}"]


@pytest.fixture
def script() -> ModuleType:
    return loaded(SCRIPT)


@pytest.mark.parametrize("seed", range(20))
def test_a_table_has_no_say_in_what_is_chosen_for_it(script: ModuleType, seed: int) -> None:
    draw = random.Random(seed)
    tables, points = [f"t{i}" for i in range(draw.randint(2, 5))], [f"a={i}" for i in range(draw.randint(1, 6))]
    scores = {table: {point: draw.random() for point in points} for table in tables}
    if len(points) > 1:
        scores[draw.choice(tables)]["a=0"] = -math.inf
    expected = {}
    for table in tables:
        least, place = math.inf, ""
        for point in points:
            total = 0.0
            for other in tables:
                if other != table:
                    total += max(scores[other].values()) - scores[other][point]
            if total < least:
                least, place = total, point
        expected[table] = max(scores[table].values()) - scores[table][place]
    assert script.left_out(script.regrets(scores)) == pytest.approx(expected)


class AtOnce:
    """An engine whose jobs end when they start, with an AUC that depends on words and table alone."""

    slots = 1

    def __init__(self) -> None:
        self.ended: list[Outcome] = []

    def __enter__(self) -> "AtOnce":
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, job: Job) -> None:
        _, table, arm, *_ = job.name.split("/") if job.kind == "train" else ("", "", "", "")
        failed = arm == "dnn" and "optimizer.lr=0.01" in job.words
        if arm and not failed:
            rate = next(float(word.partition("=")[2]) for word in job.words if word.startswith("optimizer.lr="))
            best = {"synthetic": 0.0015, "synthetic_law": 0.003, "coupon": 0.003}[table]
            rows = {"train": 5000, "valid": 1234}
            said = {"dataset": table, "num_rows": rows, "seed": 1000, "commit": "a" * 40, "data_digest": f"d{table}"}
            auc = 0.8 - 0.01 * abs(math.log10(rate / best))
            job.folder.mkdir(parents=True)
            (job.folder / "result.json").write_text(
                json.dumps(said | {"valid": {"auc": auc, "logloss": 0.5}, "seconds": {"fit": 1.0}})
            )
        self.ended.append(Outcome(job, "failed" if failed else "done"))

    def wait(self, seconds: float) -> Sequence[Outcome]:
        ended, self.ended = self.ended, []
        return ended

    def stop(self, job: Job) -> None: ...


@pytest.fixture
def grid_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs a study of grids on tables, and gives its folder."""
    monkeypatch.setattr(command, "engine_of", lambda schedule: AtOnce())

    def run(name: str, *words: str) -> Path:
        usual = ["sampler=grid", "trials=12", "seeds=[]", "tracker=none", f"outputs={tmp_path}", f"name={name}"]
        return study(compose("study", [*usual, *ARMS, *words]))

    return run


def test_studies_on_different_tables_make_one_table(
    script: ModuleType, grid_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [grid_study("one", "datasets=synthetic,synthetic_law"), grid_study("two", "datasets=coupon")]
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr("sys.argv", ["leave_one_out.py", *map(str, folders)])
    after = "<!-- end -->\nafter\n<!-- study x -->\nkept\n<!-- end -->\n"
    script.PAGE.write_text(f"before\n<!-- leave one out -->\n{after}")
    script.main()
    text = script.PAGE.read_text()
    script.main()
    assert script.PAGE.read_text() == text
    assert text.startswith("before\n<!-- leave one out -->\n| model ")
    assert text.endswith(f".\n{after}")
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in text.splitlines()}
    assert cells["model"][-3:] == ["synthetic", "synthetic_law", "coupon"]
    far, near = 0.01 * math.log10(3), 0.01 * math.log10(2 / 1.5)  # from 0.003 to 0.001; and what 0.003 loses at 0.0015
    of_default, of_best = f"{2 * far / 3:.4f}, {far:.4f}", f"{near / 3:.4f}, {near:.4f}"
    dnn = cells["dnn"]
    assert dnn[1:6] == ["0.001", of_default, "0.003", of_best, of_best]
    assert dnn[6:] == [f"{near:.4f} (0.0000)", f"0.0000 ({far:.4f})", f"0.0000 ({far:.4f})"]
    assert cells["lr"][1] == "0.02, 1e-05"
    assert f"{3 * (12 + 3)} trials on synthetic (1,234 valid rows), " in text
    assert "; dnn at optimizer.lr=0.01 could not be trained on synthetic, synthetic_law, coupon; " in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["datasets=coupon"], "expected two tables or more"),
        (["datasets=coupon,synthetic", "arms.dnn={words: 'model=dnn optimizer.embedding_l2=0', space: rate_and_l2}"],
         "its default optimizer.lr=0.001 "),
        (["datasets=coupon,synthetic", "sampler=random"], "expected a study with sampler=grid"),
    ],
)  # fmt: skip
def test_what_cannot_be_left_out_is_told(script: ModuleType, grid_study: Any, words: list[str], said: str) -> None:
    folder = grid_study("x", "arms.lr=null", *words)
    with pytest.raises(SystemExit, match=said):
        script.told([folder])


def test_every_point_has_the_same_chance(script: ModuleType) -> None:
    """What is chosen does not depend on the order in which tables come or points were tried."""
    scores = {"a": {"x=1": 0.5, "x=2": 0.6}, "b": {"x=1": 0.6, "x=2": 0.5}, "c": {"x=1": 0.5, "x=2": 0.5}}
    for names in itertools.permutations(scores):
        for points in (["x=1", "x=2"], ["x=2", "x=1"]):
            found = script.regrets({name: {point: scores[name][point] for point in points} for name in names})
            assert script.left_out(found) == pytest.approx({"a": 0.1, "b": 0.1, "c": 0.0})

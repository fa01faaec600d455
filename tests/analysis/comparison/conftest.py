"""A prepared table of a shop, and runs on it whose scores are planted: nothing is trained for them."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldctr import compose
from fieldctr.commands.compare import compare
from fieldctr.data.dataset import Dataset
from fieldctr.data.prepare import prepared
from fieldctr.runs import config_digest
from fieldctr.training.metrics import metrics

YAML = """# A shop.
name: NAME
raw_dir: RAW
source:
  _target_: fieldctr.data.sources.tidy.read
  files: clicks.csv
  origin: x
  separator: ','
  null_values: []
  label: {column: clicked}
  split: {by: time, column: ts, unit: s, fractions: [0.5, 0.1, 0.4]}
min_count: 1
group: user
WEIGHT
fields: {user: {}, ad: {}, age: {kind: quantile, bins: 3}, price: {kind: value}, tags: {kind: multi}MORE}
"""


class Shop:
    """A folder with tables of one file, made for small runs; `run` plants one."""

    def __init__(self, place: Path) -> None:
        self.place, self.outputs = place, place / "outputs"
        (place / "raw").mkdir(parents=True)
        (place / "conf/dataset").mkdir(parents=True)
        draw = random.Random(0)
        lines = ["ts,user,ad,age,price,tags,weight,clicked"]
        for i in range(1500):
            user = draw.randrange(120)
            clicked = draw.random() < 0.2 + 0.4 * (user % 3 == 0)
            row = [
                1_700_000_000 + 600 * i,
                f"u{user}",
                f"a{draw.randrange(14)}",
                20 + user % 40,
                round(draw.random(), 3),
            ]
            lines.append(",".join(map(str, [*row, "x|y", draw.choice([0, 1, 2.5]), int(clicked)])))
        (place / "raw/clicks.csv").write_text("\n".join(lines) + "\n")
        self.datasets: dict[str, Dataset] = {}
        self.composed: dict[tuple[str, ...], dict[str, Any]] = {}
        self.table("shop")
        self.table("shop_plus", more=", hour: {kind: datetime, column: ts, unit: s}")
        self.table("shop_weighted", weight="weight: weight")
        self.table("other", split="fractions: [0.6, 0.1, 0.3]")

    def table(self, name: str, *, more: str = "", weight: str = "", split: str = "") -> None:
        text = YAML.replace("NAME", name).replace("RAW", str(self.place / "raw"))
        text = text.replace("MORE", more).replace("WEIGHT", weight)
        text = text.replace("fractions: [0.5, 0.1, 0.4]", split) if split else text
        (self.place / f"conf/dataset/{name}.yaml").write_text(text)
        self.datasets[name] = prepared(self.config(f"dataset={name}")["dataset"], data_dir=self.outputs / "data")

    def config(self, *words: str) -> dict[str, Any]:
        """What `fieldctr train` would run with; a seed is put in, as composing takes a tenth of a second."""
        seeds = [word for word in words if word.startswith("seed=")]
        others = tuple(word for word in words if word not in seeds)
        if others not in self.composed:
            fixed = ["tracker=none", f"outputs={self.outputs}"]
            self.composed[others] = compose("train", [*fixed, *others], config_dir=self.place / "conf")
        return self.composed[others] | {key: int(value) for key, _, value in (seed.partition("=") for seed in seeds)}

    def run(
        self,
        folder: str,
        model: str = "lr",
        *words: str,
        seed: int = 1,
        gain: float = 1.0,
        noise: float = 1.0,
        dataset: str = "shop",
        **changes: Any,
    ) -> Path:
        """A finished run; its scores have the clicks' shift `gain`. `changes` go into result.json; None leaves out."""
        config = self.config(f"model={model}", f"dataset={dataset}", f"seed={seed}", *words)
        path = self.place / folder
        path.mkdir(parents=True)
        data = self.datasets[dataset]
        result: dict[str, Any] = {
            "dataset": dataset, "model": model, "enhancer": "none", "ablation": "none", "schema": "none",
            "settings": "defaults", "seed": seed, "num_parameters": {"dense": 7, "embedding": 90, "total": 97},
            "flops_per_sample": 12, "fit_seconds": {"train": 1.5}, "data_digest": data.digest, "commit": "c" * 40,
            "runtime": "cpu", "config_digest": config_digest(config),
        }  # fmt: skip
        for name in ("valid", "test"):
            split = getattr(data, name)
            rng = np.random.default_rng([7, len(split)])
            shared = rng.normal(size=len(split))
            own = np.random.default_rng([seed, len(model), sum(map(ord, model))]).normal(size=len(split))
            logit = (shared + gain * split.label + noise * own - 1).astype(np.float32)
            np.save(path / f"{name}.scores.npy", logit)
            result[name] = metrics(split.label, logit, split.group, None, weight=split.weight)
        kept = {key: value for key, value in (result | changes).items() if value is not None}
        (path / "config.json").write_text(json.dumps(config))
        (path / "result.json").write_text(json.dumps(kept))
        return path

    def compare(self, *words: str) -> list[dict[str, Any]]:
        """What the command finds."""
        fixed = [f"outputs={self.outputs}", f"output={self.place / 'report'}"]
        return compare(compose("compare", [*fixed, *words]))["comparisons"]


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


def in_folder(tables: Shop, place: Path) -> Shop:
    """The same tables, with another folder for runs."""
    own = object.__new__(Shop)
    own.__dict__.update(tables.__dict__, place=place)
    (place / "conf").symlink_to(tables.place / "conf")
    return own


@pytest.fixture
def shop(tables: Shop, tmp_path: Path) -> Shop:
    """With a folder of the test's own."""
    return in_folder(tables, tmp_path)


@pytest.fixture(scope="session")
def swept(tables: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Three models of three seeds in `sweep`: fat is far better than lr, fm hardly. Tests only read the runs."""
    shop = in_folder(tables, tmp_path_factory.mktemp("swept"))
    for model, gain in (("lr", 1.0), ("fm", 1.02), ("fat", 2.0)):
        for seed in (1, 2, 3):
            shop.run(f"sweep/{model}{seed}", model, seed=seed, gain=gain)
    return shop

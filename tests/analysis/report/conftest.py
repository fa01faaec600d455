"""A study's folder as a study leaves it: runs, searches, failures, a prepared table and a comparison, all made up."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldctr.runs import config_digest

HOSTILE = "<script>alert(1)</script>"
PNG = bytes.fromhex(  # one white pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082"
)
ARMS = {"fat": 0.7371, "deepfm": 0.7352, "dcnv2": 0.7349, "fm": 0.7301, "lr": 0.7222, HOSTILE: 0.7368}
ROWS = 2000
METRICS = ("auc", "logloss", "ne")


class Made:
    """Where all of it is."""

    def __init__(self, place: Path, arms: Sequence[str], seeds: Sequence[int], dataset: str) -> None:
        self.outputs, self.study, self.dataset = place / "outputs", place / "outputs/studies/made", dataset
        rng = np.random.default_rng(1)
        table = self.outputs / "data/0123456789abcdef"
        table.mkdir(parents=True)
        self.chance = rng.beta(2, 6, ROWS)
        np.save(table / "test.label.npy", (rng.random(ROWS) < self.chance).astype(np.float32))
        self.runs = {arm: [self.run(arm, i, seed) for seed in seeds] for i, arm in enumerate(arms)}
        self.comparisons = [self.comparison(list(arms), list(seeds))]
        self.write("study.json", {"name": "made", "question": f"Which model is best, and is {HOSTILE} a model?"})
        searches = [self.search(arm) for arm in arms]
        failure = {"job": f"fm_{HOSTILE}", "folder": "x", "status": "failed", "error": f"ValueError: {HOSTILE}"}
        self.write("record.json", {"searches": searches, "failures": [failure], "jobs": 1 + len(arms) * len(seeds)})

    def write(self, name: str, value: object) -> None:
        (self.study / name).write_text(json.dumps(value))

    def run(self, arm: str, number: int, seed: int) -> Path:
        """One finished run."""
        rng, folder = np.random.default_rng([number, seed]), self.study / f"runs/shop/arm_{number}/seed{seed}"
        folder.mkdir(parents=True)
        config = {"seed": seed, "outputs": str(self.outputs), "embedding_dim": 8 * (1 + number)}
        config |= {"model": {"_target_": f"models.{arm}"}, "optimizer": {"lr": 0.001 * (1 + number)}}
        config |= {"dataset": {"name": self.dataset, "fields": {HOSTILE: {"kind": "id"}}}}
        auc = ARMS.get(arm, 0.73 - 0.001 * number) + 3e-4 * rng.standard_normal()
        size = 5000 * (1 + number)
        result: dict[str, Any] = {"dataset": self.dataset, "model": arm, "seed": seed, "settings": "defaults"}
        result |= {split: {"auc": auc, "logloss": 1.2 - auc, "ne": 1.6 - auc} for split in ("valid", "test")}
        result |= {"num_parameters": {"dense": size, "embedding": 90_000, "total": size + 90_000}, "num_fields": 3}
        result |= {"num_rows": {"train": 9 * ROWS, "valid": ROWS, "test": ROWS}, "samples": 20 * ROWS, "runtime": "cpu"}
        result |= {"flops_per_sample": 40 * size * (arm != "lr"), "fit_seconds": {"train": 3.0 + number + 0.1 * seed}}
        result |= {"data_digest": "0123456789abcdef", "schema_digest": "5" * 64, "config_digest": config_digest(config)}
        result |= {"best_step": 80, "commit": "c0ffee" * 6}
        command = ["fieldctr train", f"model={arm}", f"seed={seed}", "hydra.run.dir=a folder"]
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "run.json").write_text(json.dumps({"command": command, "commit": "c0ffee"}))
        steps = range(10, 121, 10)
        lines = [
            {"step": step, "epoch": step / 40, "lr": 0.001, "train_loss": 0.5 + 1 / step + 0.01 * number}
            | {"valid/auc": auc - 0.2 / step - 1e-6 * (step - 80) ** 2, "valid/logloss": 1.2 - auc + 0.3 / step}
            for step in steps
        ]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        logit = np.log(self.chance / (1 - self.chance)) + 0.3 * rng.standard_normal(ROWS)
        np.save(folder / "test.scores.npy", logit.astype(np.float32))
        (folder / "field_pairs.png").write_bytes(PNG)
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    def comparison(self, names: list[str], seeds: list[int]) -> dict[str, Any]:
        """As a comparison of the runs says it."""
        arms = []
        for name in names:
            results = [json.loads((run / "result.json").read_text()) for run in self.runs[name]]
            metrics = {key: [one["test"][key] for one in results] for key in METRICS}
            spread = {
                key: {"mean": float(np.mean(own)), "sd": float(np.std(own, ddof=1)) if len(own) > 1 else None}
                | {"values": own}
                for key, own in metrics.items()
            }
            arm = {"name": name, "seeds": seeds, "settings": f"tuned/{name}", "metrics": spread, "valid_auc": 0.74}
            arm |= {"parameters": {key: results[0]["num_parameters"][key] for key in ("dense", "embedding")}}
            arm |= {"flops_per_sample": results[0]["flops_per_sample"], "seconds": results[0]["fit_seconds"]["train"]}
            arm |= {"epoch_seconds": 1.5, "peak_memory_mb": 700, "offline": {"tokens": 9, "seconds": 2.5}}
            arm |= {"folders": [str(run) for run in self.runs[name]], "budget": {"trials": 4, "seconds": 12.5}}
            arm |= {"rela_impr": 0.01}
            arms.append(arm)
        against = names[0]
        rows = [self.difference(key, arm, arms[0]) for key in METRICS for arm in arms[1:]]
        ranked = sorted(names, key=lambda name: -float(np.mean(arms[names.index(name)]["metrics"]["auc"]["mean"])))
        groups = {"auc": [ranked[:2], *([ranked[2:]] if ranked[2:] else [])]}
        plain: dict[str, Any] = {"dataset": self.dataset, "split": "test", "against": against, "by": ["model"]}
        plain |= {"within": {}, "level": 0.95, "bound": None}
        notes = [f"fm has settings of its own: tuned/{HOSTILE}"]
        return plain | {"metrics": list(METRICS), "arms": arms, "differences": rows, "groups": groups, "notes": notes}

    def difference(self, metric: str, arm: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        gap, half = arm["metrics"][metric]["mean"] - other["metrics"][metric]["mean"], 8e-4
        better = (gap < 0) == (metric != "auc")
        verdict = "undecided" if abs(gap) < half else "better" if better else "worse"
        said = f"{arm['name']} is {verdict} than {other['name']} by {abs(gap):.4f} {metric}"
        found: dict[str, Any] = {"metric": metric, "arm": arm["name"], "against": other["name"], "difference": gap}
        found |= {"low": gap - half, "high": gap + half, "p": 0.0123, "p_holm": 0.0004, "error_rows": 3e-4}
        found |= {"error_seeds": 2e-4, "num_seeds": 5, "num_rows": ROWS, "num_clusters": 500, "clusters": "user"}
        found |= {"detectable": 0.0011, "equivalence": 0.002, "verdict": verdict, "error": half / 2, "unfair": ""}
        return found | {"sentence": f"{said} (95 % interval {gap - half:+.4f} to {gap + half:+.4f}, p < 0.001)."}

    def search(self, arm: str) -> dict[str, Any]:
        rng, trials = np.random.default_rng(len(arm)), []
        for number in range(8):
            lr, block = float(10 ** rng.uniform(-4, -2)), ["single", "double"][number % 2]
            auc = 0.735 - 0.002 * abs(np.log10(lr) + 3) + 0.001 * (block == "double")
            params = {"optimizer.lr": lr, "model.block": block, f"model.{HOSTILE}": number % 3}
            valid = None if number == 3 else {"auc": float(auc), "logloss": 0.5}
            trials.append({"number": number, "params": params, "valid": valid, "state": "done", "seconds": 3.0})
        budget = {"trials": 8, "finished": 7, "failed": 1, "pruned": 0, "seconds": 24.0}
        return {"dataset": self.dataset, "arm": arm, "trials": trials, "chosen": trials[0]["params"], "budget": budget}


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """make(arms, seeds, dataset): a study's folder of its own."""
    return lambda arms, seeds=(1, 2), dataset="shop": Made(tmp_path_factory.mktemp("study"), arms, seeds, dataset)


@pytest.fixture(scope="session")
def made(make: Callable[..., Made]) -> Made:
    """A study of six arms, one of which has the name of a script, on a data set of such a name."""
    return make(list(ARMS), (1, 2), f"shop {HOSTILE}")


@pytest.fixture(scope="session")
def hostile() -> str:
    """A name that a page which does not escape would run."""
    return HOSTILE

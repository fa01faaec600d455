"""A finished run as an object: what its folder holds, and its model, which evaluates and predicts."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldctr.config import RuntimeConfig, checked, parse
from fieldctr.data.frames import AnyFrame, Frame, as_file, columns_frame, records_frame
from fieldctr.errors import UserError
from fieldctr.runs import METRICS, check_run, load_config, load_result

if TYPE_CHECKING:  # torch is imported when a model is needed
    from fieldctr.commands.trained import Trained
    from fieldctr.data.dataset import Dataset


class FinishedRun:
    """One finished run. Nothing is read before it is asked for; torch is not imported before the model is."""

    def __init__(self, folder: Path, *, outputs: Path | None = None, runtime: Mapping[str, Any] | None = None) -> None:
        self.folder = folder.resolve()
        self._outputs = outputs and outputs.resolve()
        self._runtime = runtime or {}
        self._loaded: Trained | None = None

    def __repr__(self) -> str:
        return f"FinishedRun({self.folder})"

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of result.json: names, metrics, counts, seconds, versions."""
        return load_result(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as `train` takes it."""
        return load_config(self.folder)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by split: `metrics["test"]["auc"]`. A trial of a search has valid alone."""
        return {split: self.result[split] for split in ("valid", "test") if split in self.result}

    @cached_property
    def history(self) -> Frame:
        """A row for each evaluation during the fit: step, epoch, lr, train_loss, valid/auc, ..."""
        check_run(self.folder, [METRICS])
        lines = (self.folder / METRICS).read_text(encoding="utf-8").splitlines()
        return records_frame(map(json.loads, lines))

    @cached_property
    def scores(self) -> dict[str, Frame]:
        """By split a row for each sample, in the order of the prepared table: label, logit, pctr.

        The logit is that of the table as it was trained on, pctr that of all rows (`dataset.negative_rate`).
        """
        from fieldctr.training.metrics import recalibrated, sigmoid

        names = {split: f"{split}.scores.npy" for split in self.metrics}
        check_run(self.folder, names.values())
        found = {}
        for split, name in names.items():
            label, logit = getattr(self.dataset, split).label, np.load(self.folder / name)
            pctr = sigmoid(recalibrated(logit, self.dataset.negative_rate))
            found[split] = columns_frame({"label": label, "logit": logit, "pctr": pctr})
        return found

    @cached_property
    def dataset(self) -> "Dataset":
        """The prepared table that the model was trained on, memory-mapped."""
        from fieldctr.commands.trained import dataset_of

        rate = checked(self.config["dataset"], dict, "dataset").get("negative_rate")
        return dataset_of(self.folder, self.result, negative_rate=rate, outputs=self.outputs)

    @property
    def outputs(self) -> Path:
        """The folder that holds the prepared table: as given, else the nearest around here or around the run."""
        recorded = Path(self.config["outputs"])
        around = [recorded, *(path for above in self.folder.parents for path in (above / recorded, above))]
        known = (path for path in around if (path / "data" / self.result["data_digest"]).exists())
        return self._outputs or next(known, recorded).resolve()

    def evaluate(self, split: str = "test") -> dict[str, float]:
        """The metrics of the model on train, valid or test, computed again."""
        from fieldctr.commands.machine import torch_as_it_was
        from fieldctr.commands.trained import evaluated_split
        from fieldctr.data.dataset import check_table

        if split not in ("train", "valid", "test"):
            raise UserError(f"split={split} is not allowed: expected train | valid | test")
        with torch_as_it_was():
            trained = self._trained()
            check_table(trained.dataset.folder, [split])
            return evaluated_split(self.folder, trained, split).metrics

    def predict(
        self,
        rows: AnyFrame | str | Path,
        *,
        column: str = "pctr",
        raw_dir: str | None = None,
        read: Mapping[str, Any] | None = None,
    ) -> Frame:
        """The rows of a frame or a file with one more column, their click probability; labels are not read.

        `raw_dir` and `read` are as in `fieldctr predict`: where side tables lie, and how a file is written.
        """
        from fieldctr.commands.machine import torch_as_it_was
        from fieldctr.commands.predict import refuse_no_file, score

        with torch_as_it_was(), as_file(rows) as path:
            refuse_no_file(path)
            return score(self._trained(), path, column=column, raw_dir=raw_dir, read=read or {}).frame()

    def _trained(self) -> "Trained":
        """The model, loaded once. Torch's switches are set at each call: others may have set them since."""
        from fieldctr.commands.machine import start_runtime
        from fieldctr.commands.trained import load_trained

        runtime = parse(RuntimeConfig, {**self.config["runtime"], **self._runtime}, "runtime")
        if self._loaded is None:
            self._loaded = load_trained(self.folder, outputs=self.outputs, runtime=runtime)
        else:
            start_runtime(runtime, self._loaded.config.trainer, outputs=self.outputs)
        return self._loaded


def load_run(
    folder: str | Path, *, outputs: str | Path | None = None, runtime: Mapping[str, Any] | None = None
) -> FinishedRun:
    """The finished run in `folder`; UserError where there is none.

    `outputs` holds its prepared table, if that is not where the run had it. `runtime` changes keys of the run's own:
    {"device": "cpu"}.
    """
    run = FinishedRun(Path(folder), outputs=None if outputs is None else Path(outputs), runtime=runtime)
    load_config(run.folder)
    load_result(run.folder)
    return run

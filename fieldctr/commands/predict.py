"""`fieldctr predict run=... input=... output=...`: score new raw rows with a finished run's model."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fieldctr.commands.trained import Trained, load_trained
from fieldctr.config import RuntimeConfig, parse
from fieldctr.data.bad_lines import in_a_sentence
from fieldctr.data.coverage import by_field, warnings
from fieldctr.data.dataset import Split
from fieldctr.data.encode import encode_rows
from fieldctr.data.formats import obstacle
from fieldctr.data.frames import Frame, LazyFrame
from fieldctr.data.new_rows import NewRows
from fieldctr.data.prepare import new_table
from fieldctr.data.scoring import check_columns, check_output, with_scores, write_scores
from fieldctr.data.table import refused_if_changed
from fieldctr.errors import UserError
from fieldctr.raw_files import beside, stamps
from fieldctr.training.evaluate import predict
from fieldctr.training.metrics import recalibrated, sigmoid


@dataclass(frozen=True)
class PredictConfig:
    """The root of `fieldctr predict`."""

    data_root: str
    outputs: str
    run: str
    input: str
    output: str
    column: str
    raw_dir: str | None
    read: dict[str, Any]
    json: bool
    runtime: RuntimeConfig


class Scored(NamedTuple):
    """Raw rows with their scores."""

    raw: LazyFrame
    pctr: np.ndarray  # (R,)
    column: str
    fields: dict[str, Any]  # by name what their values were, beside valid
    warnings: list[str]
    files: Mapping[str, str]  # stamps of what was read

    def frame(self) -> Frame:
        """The rows with one more column; UserError where a file has changed since it was read."""
        with refused_if_changed(self.files):
            return with_scores(self.raw, self.pctr, self.column).collect()


def main(node: dict[str, Any]) -> None:
    """Write the input's rows with their click probability; labels are not needed, and not read."""
    config = parse(PredictConfig, node, "")
    source, output = Path(config.input), Path(config.output)
    refuse_no_file(source)
    check_output(output, source)
    trained = load_trained(Path(config.run), outputs=Path(config.outputs), runtime=config.runtime)
    scored = score(trained, source, column=config.column, raw_dir=config.raw_dir, read=config.read, output=output)
    summary = summed_up(config, scored, trained.dataset.negative_rate)
    print(json.dumps(summary, ensure_ascii=False) if config.json else in_words(summary))


def refuse_no_file(source: Path) -> None:
    """UserError where there is no file of rows."""
    if why := obstacle(source):
        raise UserError(f"input={source} {why}: expected a file of rows. {beside(source)}".rstrip())


def score(
    trained: Trained,
    source: Path,
    *,
    column: str,
    raw_dir: str | None,
    read: Mapping[str, Any],
    output: Path | None = None,
) -> Scored:
    """Read as training read, encode, predict; write to `output`, if there is one; warn of what train never saw."""
    with in_a_sentence(f"input={source}", "cannot be scored"):
        rows = NewRows(source, {key: value for key, value in read.items() if value is not None})
        before = stamps([source])
        table = new_table(trained.config.dataset, trained.dataset, rows, raw_dir=raw_dir)
        before |= stamps(path for path in table.files if path != source)
        raw = rows.raw if rows.raw is not None else table.frame
        check_columns(raw, output, column)
        with refused_if_changed(before):
            split, coverage = encode_rows(table.frame, trained.dataset.folder, files={source: None, **rows.readings})
        pctr = scores(trained, split) if len(split) else np.zeros(0)
        facts = trained.dataset.facts["fields"]
        scored = Scored(raw, pctr, column, by_field(coverage, facts), list(warnings(coverage, facts)), before)
        if output is not None:
            write_scores(raw, pctr, output, column, files=before)
    for text in scored.warnings:
        print(f"fieldctr: {text}", file=sys.stderr)
    return scored


def summed_up(config: PredictConfig, scored: Scored, negative_rate: float | None) -> dict[str, Any]:
    """What was scored and written."""
    return {
        "rows": len(scored.pctr),
        "mean_pctr": float(scored.pctr.mean()) if len(scored.pctr) else None,
        "run": config.run,
        "input": str(Path(config.input)),
        "output": str(Path(config.output)),
        "negative_rate": negative_rate,
        "fields": scored.fields,
        "warnings": scored.warnings,
    }


def scores(trained: Trained, split: Split) -> np.ndarray:
    """pCTR (R,) of encoded rows, as of samples none of which was left out; UserError where one is no number."""
    logit = predict(trained.model, split, batch_size=trained.config.trainer.eval_batch_size, runtime=trained.runtime)
    pctr = sigmoid(recalibrated(logit, trained.dataset.negative_rate))
    strange = np.flatnonzero(~np.isfinite(pctr))
    if len(strange):
        raise UserError(
            f"row {strange[0] + 1:,} gets no finite score, nor do {len(strange) - 1:,} others: a number in it is far "
            "from those of train. Nothing was written."
        )
    return pctr


def in_words(summary: dict[str, Any]) -> str:
    """The summary for a person: fields of which something is missing or unseen, beside valid, and what was written."""
    lines = []
    for name, own in summary["fields"].items():
        if own["missing"] or own["unseen"]:
            parts = [
                f"{own[what]:.2%} {what} ({own[f'{what}_in_valid']:.2%} in valid)"
                for what in ("missing", "unseen")
                if own[what]
            ]
            lines.append(f"  {name}: {', '.join(parts)}")
    mean = f", mean pCTR {summary['mean_pctr']:.4f}" if summary["rows"] else ""
    head = ["values without an id:", *lines] if lines else []
    return "\n".join([*head, f"{summary['rows']:,} rows scored by {summary['run']}{mean}; in {summary['output']}"])

"""`fieldctr predict run=... input=... output=...`: score new raw rows with a finished run's model."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fieldctr.commands.trained import Trained, load_trained
from fieldctr.config import RuntimeConfig, parse
from fieldctr.data.bad_lines import in_a_sentence
from fieldctr.data.coverage import by_field, warnings
from fieldctr.data.dataset import Split
from fieldctr.data.encode import encode_rows
from fieldctr.data.formats import obstacle
from fieldctr.data.new_rows import NewRows
from fieldctr.data.prepare import new_table
from fieldctr.data.scoring import check_columns, check_output, write_scores
from fieldctr.data.table import refused_if_changed
from fieldctr.errors import UserError
from fieldctr.raw_files import stamps
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


def main(node: dict[str, Any]) -> None:
    """Write the input's rows with their click probability; labels are not needed, and not read."""
    config = parse(PredictConfig, node, "")
    source, output = Path(config.input), Path(config.output)
    if why := obstacle(source):
        raise UserError(f"input={source} {why}: expected a file of rows")
    check_output(output, source)
    trained = load_trained(Path(config.run), outputs=Path(config.outputs), runtime=config.runtime)
    with in_a_sentence(f"input={source}", "cannot be scored"):
        summary = score(config, trained, source, output)
    print(json.dumps(summary, ensure_ascii=False) if config.json else in_words(summary))


def score(config: PredictConfig, trained: Trained, source: Path, output: Path) -> dict[str, Any]:
    """Read as training read, encode, predict, write; gives the summary."""
    rows = NewRows(source, {key: value for key, value in config.read.items() if value is not None})
    before = stamps([source])
    table = new_table(trained.config.dataset, trained.dataset, rows, raw_dir=config.raw_dir)
    before |= stamps(path for path in table.files if path != source)
    raw = rows.raw if rows.raw is not None else table.frame
    check_columns(raw, output, config.column)
    with refused_if_changed(before):
        split, coverage = encode_rows(table.frame, trained.dataset.folder, files={source: None, **rows.readings})
    pctr = scores(trained, split) if len(split) else np.zeros(0)
    write_scores(raw, pctr, output, config.column, files=before)
    facts = trained.dataset.facts["fields"]
    warned = list(warnings(coverage, facts))
    for text in warned:
        print(f"fieldctr: {text}", file=sys.stderr)
    return {
        "rows": len(pctr),
        "mean_pctr": float(pctr.mean()) if len(pctr) else None,
        "run": config.run,
        "input": str(source),
        "output": str(output),
        "negative_rate": trained.dataset.negative_rate,
        "fields": by_field(coverage, facts),
        "warnings": warned,
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

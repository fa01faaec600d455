"""`fieldctr predict run=... input=... output=...`: score new raw rows with a finished run's model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldctr.commands.trained import load_trained
from fieldctr.config import RuntimeConfig, parse
from fieldctr.data.encode import encode_rows
from fieldctr.data.scoring import check_output, scan_rows, write_scores
from fieldctr.training.evaluate import predict
from fieldctr.training.metrics import sigmoid


@dataclass(frozen=True)
class PredictConfig:
    """The root of `fieldctr predict`."""

    data_root: str
    outputs: str
    run: str
    input: str
    output: str
    runtime: RuntimeConfig


def main(node: dict[str, Any]) -> None:
    """Write the input's rows with their click probability; labels are not needed."""
    config = parse(PredictConfig, node, "")
    check_output(Path(config.output))
    rows = scan_rows(Path(config.input))
    trained = load_trained(Path(config.run), outputs=Path(config.outputs), runtime=config.runtime)
    split = encode_rows(rows, trained.dataset.folder)
    batch_size = trained.config.trainer.eval_batch_size
    pctr = sigmoid(predict(trained.model, split, batch_size=batch_size, runtime=trained.runtime))
    write_scores(rows, pctr, Path(config.output))
    print(f"{len(pctr):,} rows scored by {config.run}, mean pCTR {pctr.mean():.4f}; in {config.output}")

"""`fieldctr ssft dataset=... encoder=...`: tune a language model on the field names, keep one vector per field."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldctr.commands.field_vectors import embed_fields, field_names
from fieldctr.commands.ssft_cache import report, write_pictures
from fieldctr.config import RuntimeConfig, parse
from fieldctr.data.prepare import prepared
from fieldctr.training.runtime import Runtime


@dataclass(frozen=True)
class SsftConfig:
    """The root of `fieldctr ssft`."""

    data_root: str
    outputs: str
    dataset: dict[str, Any]
    encoder: dict[str, Any]
    runtime: RuntimeConfig


def main(node: dict[str, Any]) -> None:
    """Print the account of the vectors; ones that are there already cost no call of the model."""
    config = parse(SsftConfig, node, "")
    outputs = Path(config.outputs)
    runtime = Runtime.start(config.runtime, precision="fp32", deterministic=True, cache=outputs / "machine")
    dataset = prepared(config.dataset, data_dir=outputs / "data")
    names = field_names(dataset)
    found = embed_fields(dataset, config.dataset, config.encoder, names=names, outputs=outputs, device=runtime.device)
    write_pictures(found)
    print(report(found))

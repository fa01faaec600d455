"""The node of a table in a delimited file, as the tests write one, and limits that cut few rows into many pieces."""

from pathlib import Path
from typing import Any

from fieldctr.data.budget import Limits


def tidy_node(folder: Path, files: str, fields: dict[str, Any], **source: Any) -> dict[str, Any]:
    """Of files in `folder` with commas and the column `click`; `source` changes and adds keys of the source."""
    read = {
        "_target_": "fieldctr.data.sources.tidy.read",
        "files": files,
        "separator": ",",
        "origin": "",
        "null_values": [],
        "label": {"column": "click"},
        "split": {"by": "random", "fractions": [0.6, 0.2, 0.2], "seed": 1},
    }
    return {
        "name": "log",
        "raw_dir": str(folder),
        "min_count": 1,
        "group": None,
        "fields": fields,
        "source": read | source,
    }


def small(rows: int, **limits: int) -> Limits:
    """Blocks, chunks and shards of so few rows."""
    return Limits(**{"block_rows": rows, "chunk_rows": rows, "shard_rows": rows} | limits)

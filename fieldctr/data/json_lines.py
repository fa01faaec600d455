"""Files with one JSON object per line, read in Python where a table's columns cannot say what they hold."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fieldctr.errors import UserError


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a gzipped file; a UserError names the first line that holds none, blank ones apart."""
    line = 1
    try:
        with gzip.open(path, "rb") as file:
            for text in file:
                found = json.loads(text) if text.strip() else None
                if isinstance(found, dict):
                    yield found
                elif text.strip():
                    raise ValueError("not a JSON object")
                line += 1
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise UserError(f"{path} line {line:,}: {reason}. Nothing was written.") from error

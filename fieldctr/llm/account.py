"""What is cached beside the field vectors, read without torch: how they were made, and what that cost."""

import json
from pathlib import Path
from typing import Any

from fieldctr.artifacts import check_stage

ACCOUNT = "account.json"


def read_account(folder: Path) -> dict[str, Any]:
    """The account of cached field vectors; UserError when a byte of the folder has changed since."""
    check_stage(folder)
    return json.loads((folder / ACCOUNT).read_text(encoding="utf-8"))

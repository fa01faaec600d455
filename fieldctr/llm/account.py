"""What is cached beside the field vectors, read without torch: how they were made, and what that cost."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fieldctr.artifacts import check_stage

ACCOUNT = "account.json"
TOKENS = ("tokens", "read", "written")  # keys of a cost: what an encoder reads, a decoder reads and writes
SECONDS = ("seconds", "load_s", "tune_s", "read_s", "align_s")  # of an encoder's texts, of SSFT, of CTRL's first stage


def read_account(folder: Path) -> dict[str, Any]:
    """The account of cached field vectors; UserError when a byte of the folder has changed since."""
    check_stage(folder)
    return account_in(folder)


def account_in(folder: Path) -> dict[str, Any]:
    """The account in a folder that was checked before."""
    return json.loads((folder / ACCOUNT).read_text(encoding="utf-8"))


def offline(accounts: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What was made once before a training took: tokens of language models, and seconds."""
    costs = [cost for account in accounts for cost in _costs(account)]
    tokens, seconds = (sum(cost.get(key, 0) for cost in costs for key in keys) for keys in (TOKENS, SECONDS))
    return {"tokens": tokens, "seconds": round(seconds, 2)}


def _costs(account: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Its own, and that of what a decoder had written before."""
    return [account["cost"] or {}, account.get("knowledge", {}).get("cost", {})]

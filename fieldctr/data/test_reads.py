"""The test split of a prepared table: who evaluated a model on it, and that a trial of a search cannot.

Each evaluation is a line of `outputs/data/test_reads-<checksum of test's labels>.jsonl`, beside the tables: tables that
differ in their fields alone share the test rows, and so the ledger. `fieldctr clean` leaves it.
"""

import getpass
import json
import os
import platform
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from fieldctr.checksums import CHECKSUMS_FILE, checksum
from fieldctr.data.dataset import Dataset
from fieldctr.disk import cause_of, read_object
from fieldctr.errors import UserError

LABELS = "test.label.npy"
SEALED = (
    "the test split is sealed: this run is a trial of a search (evaluate_test=false), which selects on valid. "
    "Test is read when the chosen settings are trained"
)


class _Closed:
    """Folders whose test files this process may not open for now."""

    folders: set[str] = set()  # noqa: RUF012  one for the process, as its audit hook is
    hooked = False


class SealedSplit:
    """In the place of the test split: whatever is asked of it is refused."""

    def __getattr__(self, name: str) -> NoReturn:
        raise UserError(SEALED)

    def __len__(self) -> NoReturn:
        raise UserError(SEALED)


@contextmanager
def sealed_test(dataset: Dataset) -> Generator[Dataset]:
    """The dataset without its test split; inside, this process cannot open the split's files either.

    It guards against mistakes of a model, a metric or a callback, not against one who reads the raw table.
    """
    if not _Closed.hooked:
        sys.addaudithook(_refuse_test_files)
        _Closed.hooked = True
    folder = os.path.realpath(dataset.folder)
    _Closed.folders.add(folder)
    try:
        yield replace(dataset, test=SealedSplit())
    finally:
        _Closed.folders.discard(folder)


def _refuse_test_files(event: str, arguments: tuple[Any, ...]) -> None:
    """Python's audit hook: it is told of each file that is about to be opened, copied to another name, or linked."""
    if not _Closed.folders or event not in ("open", "os.link", "os.symlink", "os.rename"):
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    real = Path(os.path.realpath(os.fsdecode(path)))
    if real.name.startswith("test.") and str(real.parent) in _Closed.folders:
        raise UserError(SEALED)


def note_test_read(table: Path, *, command: str, run: Path | None, config_digest: str) -> None:
    """Append to the ledger, before it happens, that a configuration is evaluated on the table's test rows."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "run": str(run.resolve()) if run else None,
        "config_digest": config_digest,
        "table": table.name,
        "user": f"{_user()}@{platform.node()}",
    }
    path = ledger(table)
    try:
        with path.open("ab") as file:
            cut_short = file.tell() and not path.read_bytes().endswith(b"\n")  # a machine that went down in a write
            file.write(b"\n" * bool(cut_short) + json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        print(f"fieldctr: {path}: {cause_of(error)}. This evaluation on test is not in the ledger", file=sys.stderr)


def test_reads(table: Path) -> list[dict[str, Any]]:
    """The evaluations on a table's test rows, oldest first: time, command, run, config_digest, table, user."""
    path = ledger(table)
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [entry for line in lines if (entry := _entry(line)) is not None]


def read_often(table: Path) -> tuple[int, int]:
    """How many runs were evaluated on the table's test rows, and how many configurations these had.

    A run that was stopped and evaluated again counts once: it shows the same numbers.
    """
    entries = test_reads(table)
    return len({(one["run"], one["config_digest"]) for one in entries}), len({one["config_digest"] for one in entries})


def ledger(table: Path) -> Path:
    """Where the reads of the table's test rows stand."""
    files = (read_object(table / CHECKSUMS_FILE) or {}).get("files", {}) if (table / CHECKSUMS_FILE).exists() else {}
    known = files.get(LABELS)
    return table.parent / f"test_reads-{known[1] if known else checksum(table / LABELS)}.jsonl"


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"run", "config_digest"} <= found.keys() else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return str(os.getuid())

"""What a publisher says of its files, and whether these are they: a figure from other files compares with nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fieldctr.errors import UserError
from fieldctr.raw_files import digests

CURE = "Get it again, or go on knowingly with other data: dataset.published=null"


@dataclass(frozen=True)
class Published:
    """Node `dataset.published`; either may be empty."""

    md5: dict[str, str]  # by file name
    rows: dict[str, int]  # by split


def refuse_other_files(published: Published, files: tuple[Path, ...], memo: Path) -> None:
    """UserError for a file whose md5 is not the published one; `memo` remembers the sums. About 0.6 GB/s."""
    known = tuple(path for path in files if path.name in published.md5)
    for path, (name, found) in zip(known, digests(known, memo, "md5"), strict=True):
        if found != published.md5[name]:
            raise UserError(
                f"{path}: md5 {found}, published {published.md5[name]}. It is cut short, converted or another "
                f"version. {CURE}"
            )
    absent = published.md5.keys() - {path.name for path in known}
    if absent:
        raise UserError(f"dataset.published.md5 names {', '.join(sorted(absent))}, which the source does not read")


def refuse_other_rows(published: Published, rows: Mapping[str, int]) -> None:
    """UserError for a split that has another number of rows than the published one."""
    for split, expected in published.rows.items():
        if rows[split] != expected:
            raise UserError(f"split '{split}' has {rows[split]:,} rows, published {expected:,}. {CURE}")

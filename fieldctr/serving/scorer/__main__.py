"""`python -m scorer rows.csv`, or rows.jsonl: the pCTR of each row, one a line."""

import csv
import json
import sys
from pathlib import Path

from . import Scorer


def main(path: Path) -> None:
    """Read all rows, print all scores; a sentence where one cannot be scored."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, filter(str.strip, file))
        rows = list(lines)
    try:
        print(*Scorer().pctr(rows), sep="\n")
    except ValueError as error:
        sys.exit(f"{path}: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A prepared table in words: what became of every row, and what each field knows."""

from collections.abc import Sequence
from typing import Any

from fieldctr.data.dataset import Dataset
from fieldctr.data.table import SPLITS


def describe(dataset: Dataset) -> str:
    """Rows in and out with reasons, positive rates, and per field its vocabulary and its missing and unseen shares."""
    facts = dataset.facts
    parts = [_rows(dataset.name, facts), _extra(facts), _fields(facts["fields"]), _cut(facts["fields"])]
    return "\n\n".join(filter(None, parts))


def _rows(name: str, facts: dict[str, Any]) -> str:
    rows, rate = facts["rows"], facts["positive_rate"]
    lines = [["read", f"{rows['read']:,}", ""]]
    lines += [[f"dropped: {reason}", f"{count:,}", ""] for reason, count in rows["dropped"].items()]
    lines += [[split, f"{rows[split]:,}", f"{rate[split]:.2%}"] for split in SPLITS]
    return grid([[name, "rows", "clicks"], *lines])


def _extra(facts: dict[str, Any]) -> str:
    lines = [f"{what}: {count:,}" for what, count in facts.get("counts", {}).items()]
    if "group" in facts:
        lines.append(f"groups of gAUC: {facts['group']['groups']:,} values of {facts['group']['column']}")
    if "bayes_auc" in facts:
        best = ", ".join(f"{split} {facts['bayes_auc'][split]:.4f}" for split in SPLITS)
        lines.append(f"attainable AUC: {best}")
    return "\n".join(lines)


def _fields(fields: dict[str, Any]) -> str:
    head = [
        "field",
        "kind",
        "vocabulary",
        *(f"missing {split}" for split in SPLITS),
        *(f"unseen {split}" for split in SPLITS),
    ]
    lines = [
        [name, field["kind"], f"{field['vocab_size'] - 1:,}"]
        + [share(field["missing"][split]) for split in SPLITS]
        + [share(field["unseen"][split]) for split in SPLITS]
        for name, field in fields.items()
    ]
    return grid([head, *lines])


def _cut(fields: dict[str, Any]) -> str:
    """What longer lists than their field has room for lost."""
    lines = []
    for name, field in fields.items():
        if "cut" in field:
            shares = ", ".join(f"{split} {share(field['cut']['share'][split])}" for split in SPLITS)
            rows, values = (sum(field["cut"][what].values()) for what in ("rows", "values"))
            lines.append(f"{name}: {values:,} values of {rows:,} rows were more than max_length and cut ({shares})")
    return "\n".join(lines)


def share(x: float) -> str:
    """A share in percent, '-' for none at all: 0.00% is some."""
    return f"{x:.2%}" if x else "-"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )

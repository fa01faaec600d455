"""A prepared table in words: what became of every row, and what each field knows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fieldctr.data.dataset import Dataset
from fieldctr.data.fields.spelling import LARGEST, NULL_WORDS
from fieldctr.data.table import SPLITS


def describe(dataset: Dataset) -> str:
    """Rows in and out with reasons, positive rates, and per field its vocabulary and its missing and unseen shares."""
    facts = dataset.facts
    lines = "\n".join(_extra(facts, dataset.negative_rate))
    fields = facts["fields"]
    parts = [_rows(dataset.name, facts), lines, _fields(fields), "\n".join([*_unread(fields), *_cut(fields)])]
    return "\n\n".join(filter(None, parts))


def _rows(name: str, facts: dict[str, Any]) -> str:
    rows, rate = facts["rows"], facts["positive_rate"]
    lines = [["read", f"{rows['read']:,}", ""]]
    lines += [[f"dropped: {reason}", f"{count:,}", ""] for reason, count in rows["dropped"].items()]
    lines += [[split, f"{rows[split]:,}", f"{rate[split]:.2%}"] for split in SPLITS]
    return grid([[name, "rows", "clicks"], *lines])


def _extra(facts: dict[str, Any], negative_rate: float | None) -> Iterator[str]:
    yield from (f"{what}: {count:,}" for what, count in facts.get("counts", {}).items())
    if "group" in facts:
        group = facts["group"]
        blank = group.get("blank", {})  # older tables do not say
        nobody = f"; rows without one, which count in no group: {_each(blank, share)}" if any(blank.values()) else ""
        yield f"groups of gAUC: {group['groups']:,} values of {group['column']}{nobody}"
    if "weight" in facts:
        weight = facts["weight"]
        rates = f"click rate by weight: {_each(weight['positive_rate'], '{:.2%}'.format)}"
        yield f"sample weights in {weight['column']}: mean {_each(weight['mean'], '{:.4g}'.format)}; {rates}"
    if negative_rate is not None:
        rate = facts.get("weight", facts)["positive_rate"]
        before = {split: rate[split] / (rate[split] + (1 - rate[split]) / negative_rate) for split in SPLITS}
        rates = _each(before, "{:.3%}".format)
        yield f"negative_rate {negative_rate:g}: click rate before non-clicks were left out: {rates}"
    if "bayes_auc" in facts:
        yield f"attainable AUC: {_each(facts['bayes_auc'], '{:.4f}'.format)}"


def _each(numbers: Mapping[str, float], spell: Callable[[float], str]) -> str:
    return ", ".join(f"{split} {spell(numbers[split])}" for split in SPLITS)


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


def _unread(fields: dict[str, Any]) -> list[str]:
    """The cells that are not blank and were taken for missing."""
    meanings = {
        "null_words": f"hold a word for no value ({', '.join(NULL_WORDS)}); null_words: false makes them values",
        "not_finite": f"hold an infinite number, or one above {LARGEST:.2g}",
    }
    lines = []
    for name, field in fields.items():
        for reason, meaning in meanings.items():
            if cells := sum(field.get(reason, {}).values()):
                lines.append(f"field '{name}': {cells:,} cells taken for missing: they {meaning}")
    return lines


def _cut(fields: dict[str, Any]) -> list[str]:
    """What longer lists than their field has room for lost."""
    lines = []
    for name, field in fields.items():
        if "cut" in field:
            shares = ", ".join(f"{split} {share(field['cut']['share'][split])}" for split in SPLITS)
            rows, values = (sum(field["cut"][what].values()) for what in ("rows", "values"))
            lines.append(
                f"field '{name}': {values:,} values of {rows:,} rows were more than max_length: cut ({shares})"
            )
    return lines


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

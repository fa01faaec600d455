"""`fieldctr lint dataset=...`: what is wrong with a table, before a model hides it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldctr.analysis.lint.days import click_rates_by_day, odd_days, spell_days
from fieldctr.analysis.lint.findings import SEVERITIES, Finding
from fieldctr.analysis.lint.lint import field_grid, lint, spell, worst_first
from fieldctr.config import build, parse
from fieldctr.data.bad_lines import explained
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.prepare import SOURCE, DatasetConfig, prepared
from fieldctr.data.table import Table


@dataclass(frozen=True)
class TimeConfig:
    """The column with the moment of each sample. Node `time`."""

    column: str
    unit: str  # as of a datetime field: s | ms | us | iso | a format with %


@dataclass(frozen=True)
class LintConfig:
    """The root of `fieldctr lint`."""

    data_root: str
    outputs: str
    dataset: dict[str, Any]
    time: dict[str, Any] | None  # keys of TimeConfig


def main(node: dict[str, Any]) -> None:
    """Print numbers per field, then the findings, the worst first; prepares the table if need be."""
    config = parse(LintConfig, node, "")
    dataset = prepared(config.dataset, data_dir=Path(config.outputs) / "data")
    found = lint(dataset)
    findings, text = found.findings, [field_grid(dataset, found.fields)]
    time = parse(TimeConfig, config.time, "time") if config.time else time_of(config.dataset)
    if time:
        more, line = by_day(config.dataset, time)
        findings = worst_first([*findings, *more])
        text.append(line)
    else:
        text.append("click rate by day: not looked at. Name the column: 'time={column: ts, unit: s}'")
    text.append(spell(findings) or "nothing found")
    counts = [(severity, sum(finding.severity == severity for finding in findings)) for severity in SEVERITIES]
    text.append(", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts))
    print("\n\n".join(text))


def time_of(dataset: dict[str, Any]) -> TimeConfig | None:
    """The column that a datetime field of the table, or its split by time, is made of."""
    config = parse(DatasetConfig, dataset, "dataset")
    for spec in field_specs(config.fields, config.min_count, null_words=config.null_words):
        if spec.kind == "datetime":
            return TimeConfig(spec.column, spec.unit)
    split = config.source.get("split") or {}
    return TimeConfig(split["column"], split["unit"]) if split.get("by") == "time" and split.get("unit") else None


def by_day(dataset: dict[str, Any], time: TimeConfig) -> tuple[list[Finding], str]:
    """Findings about days, and a line on all days; reads the raw table."""
    table: Table = build(dataset["source"], "dataset.source", Path(dataset["raw_dir"]), kind=SOURCE)
    with explained(table.files, readings=table.written):
        days = click_rates_by_day(table.frame, time.column, time.unit, dataset.get("weight"))
    return list(odd_days(days, time.column)), spell_days(days, time.column)

"""Lint of a prepared table: survey it once, apply the rules, keep what was found beside the data."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from fieldctr.analysis.lint import leaks, rules
from fieldctr.analysis.lint.findings import SEVERITIES, Finding
from fieldctr.analysis.lint.survey import Survey, survey
from fieldctr.checksums import keep, kept
from fieldctr.data.dataset import Dataset
from fieldctr.data.describe import grid, share
from fieldctr.data.table import SPLITS

VERSION = 3  # raise it when the same table gets other findings
LINT_FILE = "lint.json"

Rule = Callable[[Survey], Iterator[Finding]]
RULES: tuple[Rule, ...] = (
    leaks.leak,
    leaks.knows_the_future,
    leaks.moves_with_label,
    leaks.repeated_rows,
    rules.unseen,
    rules.near_unique,
    rules.crowded,
    rules.timestamp,
    rules.constant,
    rules.drift,
    rules.rate_shift,
    rules.equivalent_fields,
    rules.shared_values,
)


class Lint(NamedTuple):
    """What was found, the worst first, and per field the numbers behind it."""

    findings: list[Finding]
    fields: dict[str, dict[str, Any]]  # auc_alone on valid; psi by split


def lint(dataset: Dataset) -> Lint:
    """Check the table, or read what an earlier call left beside it."""
    path = dataset.folder / LINT_FILE
    known = kept(path) or {}
    if known.get("version") == VERSION:
        return Lint([Finding(**record) for record in known["findings"]], known["fields"])
    surveyed = survey(dataset)
    found = Lint(worst_first(finding for rule in RULES for finding in rule(surveyed)), field_numbers(surveyed))
    records = [finding._asdict() for finding in found.findings]
    keep(path, {"version": VERSION, "findings": records, "fields": found.fields})
    return found


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.weight))


def field_numbers(surveyed: Survey) -> dict[str, dict[str, Any]]:
    """Per field the AUC that it reaches alone on valid, and how far valid and test are from train."""
    return {
        name: {"auc_alone": auc, "psi": {split: rules.psi(surveyed, name, split) for split in SPLITS[1:]}}
        for name, auc in zip(surveyed.names, leaks.leak_scores(surveyed), strict=True)
    }


def spell(findings: Sequence[Finding]) -> str:
    """The findings, two lines each: what, and the cure."""
    return "\n".join(
        f"{f.severity:8}{f.rule}: {f.field + ': ' if f.field else ''}{f.text}\n{'':8}{f.cure}" for f in findings
    )


def worst(findings: Sequence[Finding], *, count: int) -> str:
    """The first findings in a line each, and how to see the others."""
    lines = [f"lint {f.severity}: {f.field + ': ' if f.field else ''}{f.text}" for f in findings[:count]]
    more = len(findings) - count
    return "\n".join([*lines, *([f"{more} more findings, and cures: fieldctr lint"] if more > 0 else [])])


def field_grid(dataset: Dataset, fields: dict[str, dict[str, Any]]) -> str:
    """Per field: values, AUC alone, unseen shares and stability indices."""
    head = ["field", "values", "AUC alone", *(f"{what} {s}" for what in ("unseen", "PSI") for s in SPLITS[1:])]
    lines = [
        [
            name,
            f"{dataset.facts['fields'][name]['vocab_size'] - 1:,}",
            f"{own['auc_alone']:.4f}",
            *(share(dataset.facts["fields"][name]["unseen"][split]) for split in SPLITS[1:]),
            *(f"{own['psi'][split]:.3f}" for split in SPLITS[1:]),
        ]
        for name, own in fields.items()
    ]
    return grid([head, *lines])

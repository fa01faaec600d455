"""What lint says: findings with a severity and a cure."""

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SIGMAS = 6.0  # standard errors that anything measured must be away from chance to become a finding


class Finding(NamedTuple):
    """Something that is wrong, or may be."""

    severity: Severity
    rule: str
    field: str  # one name, or several with commas; "" for the whole table
    text: str
    cure: str
    weight: float  # orders the findings of one severity: the larger, the worse

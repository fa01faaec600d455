"""How the scorer reads cells, as data: patterns and replacements, and sentences of refusal, by field.

A rule is a pattern and what is put in the place of what matches it.
"""

import re
from typing import Any

from fieldctr.data.fields.kinds import FieldSpec, HistorySpec
from fieldctr.data.fields.spelling import LARGEST, NULL_WORDS, SCIENTIFIC
from fieldctr.data.fields.times import ISO, LATEST, RECENT, TICKS
from fieldctr.data.shards.lists import LIST, NESTED, QUOTED
from fieldctr.errors import MOST_NAMED

WORDS = "|".join(map(re.escape, NULL_WORDS))
OF_ALL = {
    "spelling": [
        (r"^(?:True|TRUE)\Z", "true"),
        (r"^(?:False|FALSE)\Z", "false"),
        (r"^(-?)\.(?=\d+\Z)", r"\g<1>0."),
        (r"^(-?\d+)\.0*\Z", r"\1"),
        (r"^(-?\d+\.\d*(?!0)\d)0+\Z", r"\1"),
        (r"^-0\Z", "0"),
    ],
    "scientific": SCIENTIFIC,
    "number": r"(?ai)[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|infinity|nan)",
    "quoted": QUOTED,
    "nested": NESTED,
    "printed": LIST,
    "in_quotes": rf"(?s)(?:{QUOTED})|['\"].*\\.*",
    "many": "There are {0:,}: " + ", ".join(f"{{{place}}}" for place in range(1, MOST_NAMED + 1)) + ", ...",
    "not_finite": "row {:,} gets no finite score, nor do {:,} others: a number in it is far from those of train.",
}
# An ISO text as year to microsecond, @, and its zone; @ is in no other text that is read so.
TO_ONE_ISO = [
    (ISO, r"\1T\2\3@\4"),
    ("T@", "T00:00@"),
    (r"(T\d\d:\d\d)@", r"\1:00@"),
    (r"(T\d\d:\d\d:\d\d)@", r"\1.0@"),
    (r",(?=\d+@)", "."),
    (r"(\.\d{6})\d+@", r"\1@"),
    (r"@(?:UTC)?\Z", "@Z"),
    (r"(@[+-]\d\d)\Z", r"\g<1>00"),
]
ONE_ISO = "%Y-%m-%dT%H:%M:%S.%f@%z"
PARTS = {"year": 0, "month": 1, "day": 2, "hour": 3, "minute": 4, "weekday": 6, "is_weekend": 6}  # of a struct_time
CALLED = {
    "weekday": {str(day): str(day + 1) for day in range(7)},
    "is_weekend": {str(day): str(int(day > 4)) for day in range(7)},
}


def of_numbers(column: str, null_words: bool) -> dict[str, Any]:
    """How a cell is read as a number."""
    missing = rf"^(?:{WORDS})?\Z" if null_words else r"^\Z"
    return {
        "column": column,
        "numbers": [(missing, "nan"), (r"^true\Z", "1"), (r"^false\Z", "0")],
        "no_number": f"'{{}}' in {fixed(column)}: conversion from `str` to `f64` failed",
    }


def of_history(spec: HistorySpec) -> dict[str, Any]:
    """How the time of a row of a history is read: a number need not be since 1970."""
    return {
        **of_times(spec.time, spec.unit),
        "ranges": [],
        "blank_time": f"field '{spec.name}': column '{spec.time}' is blank in a row, which is then neither earlier nor "
        "later than another. Leave such rows out.",
    }


def of_times(column: str, unit: str) -> dict[str, Any]:
    """How a cell is read as a time."""
    return {
        **of_numbers(column, null_words=True),
        "ticks": TICKS.get(unit),
        "ranges": ranges(column, unit),
        "times": [(rf"^(?:{WORDS})\Z", ""), *(TO_ONE_ISO if unit == "iso" else [])],
        "format": ONE_ISO if unit == "iso" else unit,
        "no_time": f"'{{}}' in {fixed(column)}: conversion from `str` to `datetime[μs]` failed",
    }


def ranges(column: str, unit: str) -> list[tuple[float, float, str]]:
    """From where to where numbers are, and what to say of one: nothing where it is a time since 1970."""
    if unit not in TICKS:
        return []
    said = f"column '{fixed(column)}': {{:.15g}} is no time between 1970 and 2100 in unit {unit}. "
    better = [
        (RECENT / ticks, LATEST / ticks, f"{said}It is one in {other}: set unit: {other}.")
        for other, ticks in TICKS.items()
    ]
    return [(0.0, LATEST / TICKS[unit], ""), *better, (-LARGEST, LARGEST, f"{said}Leave such rows out.")]


def of_texts(spec: FieldSpec) -> dict[str, Any]:
    """How a field is read as texts: what it reads, what of it means nothing, and how many it keeps."""
    nulls, several = ["", *(NULL_WORDS if spec.null_words else ())], spec.kind == "multi"
    begins = f"field '{spec.name}'"
    listed = [f"{begins}: column '{name}' holds a list or an object. A list needs kind: multi." for name in spec.reads]
    nested = f"{begins} holds lists of lists. Expected texts, or lists of plain values."
    return {
        **{
            key: getattr(spec, key)
            for key in ("name", "kind", "reads", "separator", "bucket", "buckets", "num_buckets")
        },
        "several_columns": bool(spec.columns),
        "part": rf"(?s)\s*({QUOTED}|.*?)\s*(?:,|{re.escape(spec.separator)}|\Z)",
        "nulls": nulls,
        "left_out": [*nulls, *spec.padding] if several else ["", spec.missing],
        "repeats": bool(spec.shares),
        "kept": [-spec.max_length, None] if spec.keep == "last" else [0, spec.max_length if several else 1],
        "no_value": [nested] if several else listed,
        "no_list": f"{fixed(begins)}: column '{fixed(spec.column)}' holds {{}}, a list of lists or of objects. "
        "Expected plain values.",
        **of_numbers(spec.column, spec.null_words),
        **(of_times(spec.column, spec.unit) if spec.kind == "datetime" else {}),
        "time_part": PARTS.get(spec.part),
        "called": CALLED.get(spec.part, {}),
    }


def fixed(text: str) -> str:
    """A text that str.format leaves as it is."""
    return text.replace("{", "{{").replace("}", "}}")

"""How the scorer reads cells, as data: rules that rewrite what a row says to a field until it is values or a number.

A rule is a pattern and what is put in the place of what matches it: a text, or what an operation of
`fieldctr.serving.scorer` makes of it, with an argument. Marks that no text has stand before a list, between its values
and before a time; so a rule for texts is one for the values of a list too.
"""

import re
from collections.abc import Sequence
from typing import Any

from fieldctr.data.fields.expressions import AND
from fieldctr.data.fields.kinds import FieldSpec, HistorySpec
from fieldctr.data.fields.spelling import LARGEST, NULL_WORDS, SCIENTIFIC
from fieldctr.data.fields.times import ISO, LATEST, RECENT, TICKS
from fieldctr.data.shards.lists import QUOTED
from fieldctr.errors import MOST_NAMED
from fieldctr.serving.scorer import BETWEEN, LIST, TIME

Rule = tuple[str, str | tuple[str, Any]]
START, END = f"(?<![^{LIST}-{TIME}])", f"(?![^{LIST}-{TIME}])"  # of a text, or of a value of a list
SPELLING: list[Rule] = [
    (f"{START}(?:True|TRUE){END}", "true"),
    (f"{START}(?:False|FALSE){END}", "false"),
    (f"{START}{SCIENTIFIC[1:-1]}{END}", ("decimal", None)),
    (rf"{START}(-?)\.(?=\d+{END})", r"\g<1>0."),
    (rf"{START}(-?\d+)\.0*{END}", r"\1"),
    (rf"{START}(-?\d+\.\d*[1-9])0+{END}", r"\1"),
    (f"{START}-0{END}", "0"),
]
STRIPPED: Rule = (rf"{START}\s+|\s+{END}", "")
NUMBER = r"(?ai:[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|infinity|nan))\Z"
# As fieldctr.data.shards.lists.LIST and NESTED find in what is left without the quoted parts.
AROUND = f"(?>{QUOTED})*"
IN_LIST, IN_TUPLE, IN_SET = (f"(?>{QUOTED}|[^{brackets}])*?" for brackets in (r"\[\]", "()", "{}:"))
PRINTED = rf"(?s)^{AROUND}(?:\[{IN_LIST}\]|\({IN_TUPLE},{IN_TUPLE}\)|\{{{IN_SET}\}}){AROUND}\Z"
NESTED = rf"(?s)^{AROUND}\[(?>\s|{QUOTED})*[\[({{](?>{QUOTED}|.)*?[\])}}](?>\s|{QUOTED})*\]{AROUND}\Z"
IN_QUOTES = rf"(?s)(?:{QUOTED})|['\"].*\\.*"
PARTS = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "weekday": "%u", "is_weekend": "%u"}
OF_ALL = {
    "few": "All: {}",
    "many": "There are {1:,}: {0}, ...",
    "most": MOST_NAMED,
    "not_finite": "row {:,} gets no finite score, nor do {:,} others: a number in it is far from those of train.",
}


def of_texts(spec: FieldSpec, nulls: Sequence[str]) -> dict[str, Any]:
    """How a field is read as texts: what it reads, what of it means nothing, and how many it keeps."""
    several, last = spec.kind == "multi", spec.keep == "last"
    return {
        "reads": spec.reads,
        "rules": [*_of_kind(spec, nulls), *_last_rules(spec)],
        "repeats": bool(spec.shares),
        "kept": [-spec.max_length, None] if several and last else [0, spec.width],
        "width": spec.width,
        "hashed": spec.num_buckets,
    }


def of_number(spec: FieldSpec, nulls: Sequence[str]) -> dict[str, Any]:
    """How a field is read as a number."""
    return _single(spec.reads, [*_refused_lists(spec), *_numbers(spec.column, spec.null_words, nulls)])


def of_time(spec: HistorySpec, nulls: Sequence[str]) -> dict[str, Any]:
    """How the time of a row of a history is read: a number need not be since 1970, and no time is refused."""
    blank = (
        f"field '{spec.name}': column '{spec.time}' is blank in a row, which is then neither earlier nor later than "
        "another. Leave such rows out."
    )
    rules = _times(spec.time, spec.unit, nulls, [(-LARGEST, LARGEST, TICKS.get(spec.unit), "")])
    return _single([spec.time], [*rules, (r"^\Z", ("refuse", fixed(blank)))])


def _single(reads: Sequence[str], rules: Sequence[Rule]) -> dict[str, Any]:
    return {"reads": reads, "rules": rules, "repeats": True, "kept": [0, 1], "width": 1, "hashed": None}


def _of_kind(spec: FieldSpec, nulls: Sequence[str]) -> list[Rule]:
    """From the cells to texts, blank where there are none."""
    words = [*(NULL_WORDS if spec.null_words else ()), *nulls]
    if spec.kind == "multi":
        return _lists(spec, nulls)
    if spec.kind == "log_square":
        numbers = _numbers(spec.column, spec.null_words, nulls)
        return [*_refused_lists(spec), *numbers, (".+", ("square", None))]
    if spec.kind == "datetime":
        times = _times(spec.column, spec.unit, nulls, _ranges(spec.column, spec.unit))
        weekend: list[Rule] = [("[1-5]", "0"), ("[67]", "1")] if spec.part == "is_weekend" else []
        return [*_refused_lists(spec), *times, (".+", ("part", PARTS[spec.part])), (r"^0(?=\d)", ""), *weekend]
    blank: Rule = (f"(?s)^(?:.*{BETWEEN})?{LIST}?(?:{_any(['', *words])})(?:{BETWEEN}.*)?\\Z", "")
    joined: list[Rule] = [(f"{LIST}|{TIME}", ""), (BETWEEN, AND)]
    return [*_refused_lists(spec), *SPELLING, blank, *joined]


def _last_rules(spec: FieldSpec) -> list[Rule]:
    """What of the texts is left out after all."""
    left_out: list[Rule] = [(f"^{re.escape(spec.missing)}\\Z", "")] if spec.missing else []
    return left_out + ([("(?s)^.+", ("only", (spec.buckets, spec.bucket)))] if spec.buckets > 1 else [])


def _refused_lists(spec: FieldSpec) -> list[Rule]:
    """The first column that holds a list is named."""
    refusals: list[Rule] = []
    for place, name in enumerate(spec.reads):
        words = f"field '{spec.name}': column '{name}' holds a list or an object. A list needs kind: multi."
        before = f"{LIST}(?:[^{BETWEEN}]*{BETWEEN}){{{place}}}" if len(spec.reads) > 1 else ""
        refusals.append((f"(?s)^{before}{LIST}.*", ("refuse", fixed(words))))
    return refusals


def _lists(spec: FieldSpec, nulls: Sequence[str]) -> list[Rule]:
    begins = fixed(f"field '{spec.name}'")
    nested = f"{begins} holds lists of lists. Expected texts, or lists of plain values."
    no_list = (
        f"{begins}: column '{fixed(spec.column)}' holds {{}}, a list of lists or of objects. Expected plain values."
    )
    deeper = f"(?s)^{'' if len(spec.columns) == 1 else '.+'}{LIST}.*"
    part = rf"(?s)\s*({QUOTED}|.*?)\s*(?:,|{re.escape(spec.separator)}|\Z)"
    of_text: list[Rule] = [
        (NESTED, ("refuse", no_list)),
        (PRINTED, ("printed", (part, IN_QUOTES))),
        (f"(?s)^[^{LIST}].*", ("split", spec.separator)),
    ]
    blank = _any([*(NULL_WORDS if spec.null_words else ()), *spec.padding, *(nulls if spec.columns else ())])
    return [
        (deeper, ("refuse", nested)),
        *([] if spec.columns else _nulls(nulls)),
        STRIPPED,
        *([] if spec.columns else of_text),
        STRIPPED,
        *SPELLING,
        *([(f"{START}(?:{blank}){END}", "")] if blank else []),
    ]


def _nulls(nulls: Sequence[str]) -> list[Rule]:
    """Cells that the source of the run takes for missing, however they are spelled."""
    return [*SPELLING, (f"^(?:{_any(nulls)})\\Z", "")] if nulls else []


def _numbers(column: str, null_words: bool, nulls: Sequence[str], ranges: Sequence[Any] = ()) -> list[Rule]:
    blank: list[Rule] = [(f"^(?:{_any(NULL_WORDS)})\\Z", "")] if null_words else []
    words = f"'{{}}' in {fixed(column)}: conversion from `str` to `f64` failed"
    return [
        STRIPPED,
        *_nulls(nulls),
        *blank,
        (r"^(?:true|True|TRUE)\Z", "1"),
        (r"^(?:false|False|FALSE)\Z", "0"),
        (f"(?s)^(?!{TIME})(?!{NUMBER}).+", ("refuse", words)),
        (f"^[^{TIME}].*", ("number", ranges or [(-LARGEST, LARGEST, 1, "")])),
    ]


def _times(column: str, unit: str, nulls: Sequence[str], ranges: Sequence[Any]) -> list[Rule]:
    """From a cell to microseconds since 1970."""
    words = f"'{{}}' in {fixed(column)}: conversion from `str` to `datetime[μs]` failed"
    marked: Rule = (f"(?s)^{TIME}(.+)", ("time", (None, words)))
    if unit in TICKS:
        return [*_numbers(column, True, nulls, ranges), marked]
    blank: list[Rule] = [STRIPPED, (f"^(?:{_any([*NULL_WORDS, *nulls])})\\Z", "")]
    if unit != "iso":
        return [*blank, (f"(?s)^([^{TIME}].*)", ("time", (unit, words))), marked]
    return [
        *blank,
        (f"(?s)^(?!{TIME})(?!{ISO[1:-1]}\\Z).+", ("refuse", words)),
        (ISO, rf"{TIME}\1T\2\3\4"),
        (f"^({TIME}.*)UTC\\Z", r"\1Z"),
        (r"(?<=-\d\d)T(?!\d)", "T00:00"),
        marked,
    ]


def _ranges(column: str, unit: str) -> list[tuple[float, float, float, str]]:
    """From where to where numbers are, their factor, and what to say of one: nothing of a time since 1970."""
    if unit not in TICKS:
        return []
    said = f"column '{fixed(column)}': {{:.15g}} is no time between 1970 and 2100 in unit {unit}. "
    better = [
        (RECENT / ticks, LATEST / ticks, 1.0, f"{said}It is one in {other}: set unit: {other}.")
        for other, ticks in TICKS.items()
    ]
    allowed = (0.0, LATEST / TICKS[unit], TICKS[unit], "")
    return [allowed, *better, (-LARGEST, LARGEST, 1.0, f"{said}Leave such rows out.")]


def _any(texts: Sequence[str]) -> str:
    return "|".join(map(re.escape, texts))


def fixed(text: str) -> str:
    """A text that str.format leaves as it is."""
    return text.replace("{", "{{").replace("}", "}}")

"""Rules of lint about values and their distribution: one rule, one function, from a survey to findings.

A threshold is where real tables and clean generated ones part; each says what it compares.
"""

import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from fieldctr.analysis.lint.findings import SIGMAS, Finding
from fieldctr.analysis.lint.survey import Survey, agreement, fixed_by
from fieldctr.data.encoding import VOCABULARY_FILE
from fieldctr.data.fields.specs import DERIVED, STATISTICS
from fieldctr.data.table import SPLITS

UNSEEN, ALL_UNSEEN = 0.2, 0.9  # share of a later split's values that train lacks
CONSTANT, SO_CONSTANT = 0.99, 0.999  # share of the rows that say the same
ROWS_PER_VALUE = 2.0  # below: most values occur once
CROWDED = 0.5  # share of a hashed field's values that have to share an id
MOMENT = (946_684_800, 2**31)  # seconds since 1970, from 2000 to 2038
MOMENTS = 50  # distinct ones at least: fewer make a fine category
PSI_SHIFT, PSI_BREAK = 0.1, 0.25  # the usual reading of the index: some change, another population
PSI_HEAD, PSI_COUNT = 50, 100  # values compared one by one, and the train rows that each has at least
RATE_SHIFT = 0.2  # difference of two splits' click rates, in logits
SHARED, SHARED_VALUES = 0.5, 5  # share and number of values that two fields have in common


def unseen(survey: Survey) -> Iterator[Finding]:
    """Values of valid or test that train does not have."""
    for name, facts in survey.facts.items():
        if facts["kind"] in STATISTICS:  # an unseen value has the overall rate, which is what it should say
            continue
        split, share = max(((s, facts["unseen"][s]) for s in SPLITS[1:]), key=lambda pair: pair[1])
        if share >= UNSEEN:
            yield Finding(
                "error" if share >= ALL_UNSEEN else "warning",
                "unseen",
                name,
                f"{share:.1%} of the values in {split} never occur in train",
                "Leave the field out, make it coarser (kind: datetime, quantile), or split in another way",
                share,
            )


def constant(survey: Survey) -> Iterator[Finding]:
    """Fields that say the same in nearly every row."""
    for name, own in zip(survey.names, survey.counts, strict=True):
        per_value = own[0].sum(0)
        share = per_value.max() / per_value.sum()
        if share >= CONSTANT:
            blank = per_value.argmax() == 0
            what = "no known value" if blank else "one value"
            text = f"{what} in {share:.2%} of the {per_value.sum():,} rows of train"
            severity = "warning" if blank or share >= SO_CONSTANT else "note"
            yield Finding(severity, "constant", name, text, "Leave the field out", float(share))


def near_unique(survey: Survey) -> Iterator[Finding]:
    """Fields with about one value per row: ids of rows, not of anything that comes back."""
    rows = survey.dataset.facts["rows"]["train"]
    for name, own in zip(survey.names, survey.counts, strict=True):
        facts = survey.facts[name]
        if facts["kind"] not in ("categorical", "multi"):
            continue
        seen = rows * (1 - facts["missing"]["train"])
        rare, known = facts["unseen"]["train"], int(np.count_nonzero(own[0, :, 1:].sum(0)))
        if rare >= 0.5 or (rare == 0 and known and seen / known < ROWS_PER_VALUE):
            what = f"{rare:.0%} of its values in train are rarer than min_count" if rare else f"{known:,} values"
            text = f"{what} for {seen:,.0f} rows: hardly any comes back"
            yield Finding("warning", "near_unique", name, text, "Leave the field out, or make it coarser", rare + 1)


def crowded(survey: Survey) -> Iterator[Finding]:
    """Hashed fields with too few buckets: the share that is filled is about that of the values that share one."""
    for name, facts in survey.facts.items():
        if facts.get("filled", 0) >= CROWDED:
            text = (
                f"{facts['filled']:.0%} of its {facts['vocab_size'] - 1:,} buckets are filled: as many values share one"
            )
            values = -math.log(1 - min(facts["filled"], 0.999)) * (facts["vocab_size"] - 1)
            cure = f"Give it about {10 * values:,.0f} num_buckets: ten times its values let about one in ten share"
            yield Finding("warning", "crowded", name, text, cure, facts["filled"])


def timestamp(survey: Survey) -> Iterator[Finding]:
    """Moments or dates that are used as ids."""
    words = pl.scan_parquet(survey.dataset.folder / VOCABULARY_FILE)
    number, text = pl.col("value").cast(pl.Int64, strict=False), pl.col("value")
    low, high = MOMENT
    moments = {
        "seconds since 1970": number.is_between(low, high),
        "milliseconds since 1970": number.is_between(low * 1000, high * 1000),
        "dates": text.str.head(10).str.to_date("%Y-%m-%d", strict=False).is_not_null()
        | text.str.to_date("%Y%m%d", strict=False).dt.year().is_between(2000, 2038),
    }
    found = words.group_by("field").agg(pl.len(), **{name: share.mean() for name, share in moments.items()}).collect()
    shares = {row.pop("field"): row for row in found.to_dicts()}
    for name, facts in survey.facts.items():
        row = shares.get(name)
        if facts["kind"] != "categorical" or not row or row["len"] < MOMENTS:
            continue
        for kind in moments:
            if row[kind] and row[kind] >= 0.99:
                text = f"its {row['len']:,} values are {kind}, each a category of its own"
                cure = "Use kind: datetime with a part that comes back (hour, weekday), or leave it out"
                yield Finding("warning", "timestamp", name, text, cure, row["len"])


def equivalent_fields(survey: Survey) -> Iterator[Finding]:
    """Id fields that say the same: each value of one comes with one value of the other, and the other way round."""
    same = {(key, i) for key, facts in survey.keys.items() for i in fixed_by(facts, key)}
    for a, b in sorted((a, b) for a, b in same if a < b and (b, a) in same):
        names = f"{survey.names[a]}, {survey.names[b]}"
        share = min(agreement(survey.keys[a], b), agreement(survey.keys[b], a))
        text = f"each determines the other in {share:.1%} of the rows that have both"
        sizes = (survey.dataset.schema.fields[i].vocab_size for i in (a, b))
        cure = f"Keep one: the other costs a table of {min(sizes):,} rows and learns the same"
        yield Finding("note", "twins", names, text, cure, share)


def shared_values(survey: Survey) -> Iterator[Finding]:
    """Fields whose values are largely the same texts; small whole numbers, which mean nothing by themselves, aside."""
    own = {field.name for field in survey.dataset.schema.fields if not field.shares}  # a history shares by design
    kinds = [name for name in own if survey.facts[name]["kind"] in ("categorical", "multi")]
    words = pl.read_parquet(survey.dataset.folder / VOCABULARY_FILE, columns=["field", "value"])
    words = words.filter(pl.col("field").is_in(kinds), ~pl.col("value").str.contains(r"^-?\d{1,5}$"))
    sizes = dict(words.group_by("field").len().iter_rows())
    categories = {"field": pl.col("field").cast(pl.Enum(sorted(kinds))), "value": pl.col("value").rank("dense")}
    words = words.select(**categories)  # 3,000 fields of the same 7 values make 60 million pairs
    both = words.join(words, on="value", suffix="_2").filter(
        pl.col("field").to_physical() < pl.col("field_2").to_physical()
    )
    groups: dict[str, dict[str, float]] = {}  # of each field those that share, with the share by which they came in
    for a, b, common in both.group_by("field", "field_2").len().sort("field", "field_2").iter_rows():
        share = common / min(sizes[a], sizes[b])
        if common >= SHARED_VALUES and share >= SHARED:
            one, other = groups.setdefault(a, {}), groups.setdefault(b, {})
            if one is not other:
                one |= other
                groups |= dict.fromkeys(other, one) | {b: one}
            one |= {a: share, b: share}
    for group in {id(group): group for group in groups.values()}.values():
        names = [name for name in survey.names if name in group]
        text = f"these {len(names)} fields have at least {min(group.values()):.0%} of their values in common"
        cure = (
            "Nothing to do for a CTR model. A language model cannot tell them apart by value: give each a text of its "
            "own (dataset.fields.NAME.text), or leave their values to one of them (encoder.shared_values=last)"
        )
        yield Finding("note", "shared_values", ", ".join(names), text, cure, min(group.values()))


def drift(survey: Survey) -> Iterator[Finding]:
    """Fields whose values are distributed otherwise in valid or test than in train."""
    for name, facts in survey.facts.items():
        # Statistics of train come from some folds, the others' from all: bins differ by design. Histories grow.
        if facts["kind"] in DERIVED:
            continue
        split, index = max(((s, psi(survey, name, s)) for s in SPLITS[1:]), key=lambda pair: pair[1])
        if index >= PSI_SHIFT:
            text = f"its values in {split} are not those of train: population stability index {index:.2f}"
            text += f", most of it by {moved(survey, name, split)}"
            cure = "Expected of a calendar field under a split by time; else look what changed there, or leave it out"
            yield Finding("warning" if index >= PSI_BREAK else "note", "drift", name, text, cure, index)


def psi(survey: Survey, name: str, split: str) -> float:
    """Population stability index of a field between train and `split`, less what sampling alone would give.

    sum (q - p) ln(q / p) over: missing; each of the PSI_HEAD most frequent values; all else, unseen values included.
    """
    _, p, q = shares(survey, name, split)
    noise = (len(p) - 1) * (1 / survey.rows[0] + 1 / survey.rows[SPLITS.index(split)])
    return max(0.0, float(((q - p) * np.log(q / p)).sum()) - noise)


def shares(survey: Survey, name: str, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the frequent values, and in train and in `split` the shares of missing, of these, and of all else."""
    own, missing, rows = survey.counts[survey.names.index(name)].sum(1), survey.facts[name]["missing"], survey.rows
    head = 1 + np.argsort(-own[0, 1:], kind="stable")[:PSI_HEAD]
    head = head[own[0, head] >= PSI_COUNT]
    found = []
    for s in (0, SPLITS.index(split)):
        blank, frequent = missing[SPLITS[s]], own[s, head] / rows[s]
        share = np.array([blank, *frequent, max(0.0, 1 - blank - frequent.sum())])
        found.append(np.maximum(share, 0.5 / rows[s]))
    return head, found[0], found[1]


def moved(survey: Survey, name: str, split: str) -> str:
    """The value that adds most to a field's index: which, and its share in train and in `split`."""
    head, p, q = shares(survey, name, split)
    most = int(((q - p) * np.log(q / p)).argmax())
    if most == 0:
        what = "missing values"
    elif most == len(p) - 1:
        what = "values that are rare or new"
    else:
        what = value_text(survey, name, int(head[most - 1]))
    return f"{what} ({p[most]:.1%} of train, {q[most]:.1%} of {split})"


def value_text(survey: Survey, name: str, category: int) -> str:
    """What a category stands for, where a vocabulary says so."""
    words = pl.scan_parquet(survey.dataset.folder / VOCABULARY_FILE)
    own = words.filter(pl.col("field") == name, pl.col("id") == category).collect()
    plain = survey.dataset.schema.fields[survey.names.index(name)].width == 1
    return f"'{own['value'][0]}'" if len(own) and plain else "one of its values"


def rate_shift(survey: Survey) -> Iterator[Finding]:
    """Click rates that differ between the splits."""
    rate = survey.rate
    logit = np.log(rate / (1 - rate))
    error = np.sqrt(1 / (effective_rows(survey) * rate * (1 - rate)))
    shift = np.abs(logit - logit[0])
    s = int(shift.argmax())
    if shift[s] >= RATE_SHIFT and shift[s] > SIGMAS * math.hypot(error[0], error[s]):
        text = f"the click rate is {rate[0]:.2%} in train and {rate[s]:.2%} in {SPLITS[s]}"
        cure = "Compare models by AUC, not LogLoss; look whether the label's rule or the traffic changed"
        yield Finding("warning", "rate_shift", "", text, cure, float(shift[s]))


def effective_rows(survey: Survey) -> np.ndarray:
    """(3,) rows of weight 1 that would leave the click rate as uncertain: Kish 1965, (sum w)^2 / sum w^2."""
    rows = []
    for s, split in enumerate((survey.dataset.train, survey.dataset.valid, survey.dataset.test)):
        weight = None if split.weight is None else split.weight.astype(np.float64)
        rows.append(survey.rows[s] if weight is None else weight.sum() ** 2 / (weight**2).sum())
    return np.array(rows, np.float64)

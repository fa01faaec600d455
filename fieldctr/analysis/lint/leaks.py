"""Rules of lint about labels that show where they should not: leaks, and rows that stand in two splits.

A threshold is where real tables and clean generated ones part; each says what it compares.
"""

import math
from collections.abc import Iterator

import numpy as np

from fieldctr.analysis.lint.counters import begins_blocks, counts_own_label
from fieldctr.analysis.lint.findings import SIGMAS, Finding
from fieldctr.analysis.lint.survey import KeyFacts, Survey, fixed_by
from fieldctr.data.table import SPLITS
from fieldctr.ranking import auc, counted_auc

LEAK, SURE_LEAK = 0.8, 0.95  # AUC of one field alone, on valid
LEAK_LEAD = 0.05  # by which it beats all other fields together
SMOOTHING = 10.0  # rows at the train rate that a value's click rate starts with
DISPERSION = 0.8  # variance of the items' click rates around their field value's, over what chance alone gives
COPIED = 0.01  # share of a later split's rows that stand in train, less the share of train's that stand there twice
REPEATED = 0.05  # the former alone
NOBODY = -1
ROWS = 200_000  # of valid, on which naive Bayes is evaluated


def leak(survey: Survey) -> Iterator[Finding]:
    """A field that alone predicts what a click could hardly be predicted from."""
    for i, (name, alone) in enumerate(zip(survey.names, leak_scores(survey), strict=True)):
        if alone < LEAK:
            continue
        others = others_auc(survey, i)
        if alone >= SURE_LEAK or alone > others + LEAK_LEAD:
            text = f"alone reaches a valid AUC of {alone:.3f}, all other fields together {others:.3f}"
            cure = "Check when its value is known: leave it out if that is only after the click"
            yield Finding("error" if alone >= SURE_LEAK else "warning", "leak", name, text, cure, alone)


def smoothed(own: np.ndarray, rate: float) -> np.ndarray:
    """(categories,) click rate in train of each category, drawn towards `rate` by SMOOTHING rows."""
    return (own[0, 1] + SMOOTHING * rate) / (own[0].sum(0) + SMOOTHING)


def leak_scores(survey: Survey) -> list[float]:
    """Per field the valid AUC of its smoothed click rates in train."""
    rate = float(survey.rate[0])
    return [counted_auc(smoothed(own, rate), own[1, 1], own[1, 0]) for own in survey.sums]


def others_auc(survey: Survey, left_out: int) -> float:
    """Valid AUC of naive Bayes on all fields but one, on at most ROWS rows."""
    rate = float(survey.rate[0])
    logits = [np.log(p / (1 - p)) for p in (smoothed(own, rate) for own in survey.sums)]
    valid, label, score = survey.dataset.valid, [], []
    step, starts = 1 + len(valid) // ROWS, []
    for rows, categories in survey.discretizer.blocks(valid):
        starts.append(rows)
        logit = sum(
            own[category[::step]]
            for i, (own, category) in enumerate(zip(logits, categories, strict=True))
            if i != left_out
        )
        score.append(logit + np.zeros(len(categories[0][::step])))
        label.append(valid.label[rows][::step])
    weight = None if valid.weight is None else np.concatenate([valid.weight[rows][::step] for rows in starts])
    return auc(np.concatenate(label), np.concatenate(score), weight)


def knows_the_future(survey: Survey) -> Iterator[Finding]:
    """Fields that know the very labels of an item (average_rating, conversions): fixed per item, and closer to its
    click rate than chance would let even its true rate be.

    Honest attributes leave the click rates of the items that share a value at least as spread as binomial draws.
    """
    reported: set[int] = set()
    for key, facts in survey.keys.items():
        alone, _ = dispersion(facts, np.zeros(len(facts.rows), np.int32))
        if alone < 1:  # labels are balanced per item by design (sampled negatives): nothing to compare with
            continue
        for i in fixed_by(facts, key):
            ratio, sigmas = dispersion(facts, np.where(facts.first[i] > 0, facts.first[i], NOBODY))
            if i not in reported and ratio < DISPERSION and sigmas > SIGMAS:
                reported.add(i)
                name, item = survey.names[i], survey.names[key]
                text = f"fixed per {item}, and explains its click rate better than chance allows"
                text = f"{text}: {ratio:.0%} of the spread that independent clicks would leave"
                cure = (
                    "It was made from the labels, those of valid and test included: compute it from train, or drop it"
                )
                yield Finding("error", "knows_the_future", name, text, cure, 1 - ratio)


def dispersion(facts: KeyFacts, value: np.ndarray) -> tuple[float, float]:
    """Spread of the items' click rates within each value (items,), over that of binomial draws, and how many standard
    errors it is below 1 (Wilson and Hilferty 1931: the cube root of a chi-square over its mean is nearly normal).

    Items without a value, NOBODY, are left out.
    """
    used = (facts.rows > 1) & (value != NOBODY)
    value, clicks, rows = value[used], facts.clicks[used], facts.rows[used]
    others = np.maximum(np.bincount(value) - 1, 0)  # items of a value, besides one
    per_value = np.maximum(np.bincount(value, rows), 2)
    rate = np.bincount(value, clicks) / per_value
    spread = float((rows * (clicks / rows - rate[value]) ** 2).sum())
    chance = float((others * rate * (1 - rate) * per_value / (per_value - 1)).sum())
    if not chance:
        return 1.0, 0.0
    noise = 2 / (9 * float(others.sum()))
    return spread / chance, (1 - noise - (spread / chance) ** (1 / 3)) / math.sqrt(noise)


def moves_with_label(survey: Survey) -> Iterator[Finding]:
    """Fields that go up within a user or item just where it clicks: counters that count the row's own label."""
    reported: set[int] = set()
    for key, facts in survey.keys.items():
        rate, kept = float(facts.clicks.sum() / facts.rows.sum()), float(survey.rows[0] / survey.rows.sum())
        if any(begins_blocks(facts.moves, i, rate=rate, kept=kept) for i in facts.moves.counts):
            continue
        for i in sorted(set(survey.numbers.fields) - {key, *fixed_by(facts, key)} - reported):
            found = counts_own_label(facts.moves, i, exact=i in survey.numbers.exact, rate=rate, kept=kept)
            if found:
                reported.add(i)
                text = f"within one {survey.names[key]} it goes up in {found.clicks:.0%} of the clicks and in "
                text += f"{found.others:.1%} of the other rows"
                cure = "It counts this row's own label: count earlier rows only, or leave it out"
                yield Finding("error", "moves_with_label", survey.names[i], text, cure, math.log(found.odds))


def repeated_rows(survey: Survey) -> Iterator[Finding]:
    """Rows of valid or test that stand in train, value for value; a warning where train does not repeat itself so."""
    own, (split, share) = survey.repeated["train"], max(list(survey.repeated.items())[1:], key=lambda pair: pair[1])
    text = f"{share:.1%} of the rows in {split} stand in train too, value for value"
    noise = math.sqrt(own * (1 - own) / survey.rows[SPLITS.index(split)])
    if share - own >= max(COPIED, SIGMAS * noise):
        cure = "Remove the copies, or split by user or time: here memory passes for prediction"
        yield Finding("warning", "repeated_rows", "", f"{text}; in train {own:.1%} stand twice", cure, share)
    elif share >= REPEATED:
        cure = "Add a field that tells samples apart, such as a user, an item or a time; no rows seem to be copied"
        yield Finding("note", "repeated_rows", "", f"{text}; in train {own:.1%} stand twice as well", cure, share)

"""What is worth knowing about a prepared table: rows with reasons, positive rates, vocabularies, unseen shares."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fieldctr.data.coverage import Coverage
from fieldctr.data.encoders.encoder import Learned
from fieldctr.data.fields.kinds import Spec
from fieldctr.data.npy import read_chunks
from fieldctr.data.shards import Shards
from fieldctr.data.shards.row_counts import by_split
from fieldctr.data.table import SPLITS
from fieldctr.ranking import auc


def field_facts(
    specs: Sequence[Spec], learned: Mapping[str, Learned], coverage: Mapping[str, Sequence[Coverage]], shards: Shards
) -> dict[str, object]:
    """Per field: kind, vocab_size, and per split the share of rows without a value and of values without an id.

    A hashed field has, in place of the latter, the share of values in buckets that no train row fills, and `filled`.
    Of a statistic a value without an id is one that no train row in sight has, of a history an event without one.
    `null_words` and `not_finite` are cells that are not blank and say nothing. A multi-valued field that lost values
    because they were one too many has `cut`, their number, that of the rows, and what share they are of its values.
    """
    unread, cut = shards.unread(), shards.cut()
    facts = {}
    for spec in specs:
        own = coverage[spec.name]
        facts[spec.name] = {
            "kind": spec.kind,
            "vocab_size": learned[spec.name].field.vocab_size,
            "missing": by_split([split.missing / max(split.rows, 1) for split in own]),
            "unseen": by_split([split.unseen / max(split.values, 1) for split in own]),
            **learned[spec.name].facts,
            **(_unread(unread[spec.name]) if spec.name in unread else {}),
            **(_cut(cut[spec.name], own) if spec.name in cut else {}),
        }
    return facts


def _unread(cells: np.ndarray) -> dict[str, object]:
    """(2, 3) by reason, where there are any."""
    reasons = zip(("null_words", "not_finite"), cells, strict=True)
    return {reason: by_split(count.tolist()) for reason, count in reasons if count.any()}


def without_group(folder: Path) -> dict[str, object]:
    """Per split the share of the rows whose group is blank: nobody's."""
    shares = {}
    for split in SPLITS:
        groups = list(read_chunks(folder / f"{split}.group.npy"))
        shares[split] = sum(int((part == 0).sum()) for part in groups) / sum(map(len, groups))
    return shares


def _cut(cut: np.ndarray, kept: Sequence[Coverage]) -> dict[str, object]:
    """What a multi-valued field lost, (3, 2) values and rows, beside what it kept."""
    values, rows = cut.T
    if not values.any():
        return {}
    share = values / np.maximum([split.values for split in kept] + values, 1)
    counted = {"values": values, "rows": rows, "share": share}
    return {"cut": {name: by_split(numbers.tolist()) for name, numbers in counted.items()}}


def attainable(folder: Path) -> dict[str, object]:
    """Per split the AUC and log loss of the true click probabilities against the labels that were drawn from them.

    Rows count by their weights, where they have some.
    """
    best, logloss = {}, {}
    for split in SPLITS:
        p, label = (np.load(folder / f"{split}.{name}.npy").astype(np.float64) for name in ("pctr", "label"))
        path = folder / f"{split}.weight.npy"
        weight = np.load(path) if path.exists() else None
        best[split] = auc(label, p, weight)
        losses = -np.where(label > 0, np.log(p), np.log1p(-p))
        logloss[split] = float(losses.mean() if weight is None else np.average(losses, weights=weight))
    return {"bayes_auc": best, "bayes_logloss": logloss}

"""What is worth knowing about a prepared table: rows with reasons, positive rates, vocabularies, unseen shares."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fieldctr.data.npy import read_chunks
from fieldctr.data.specs import Spec
from fieldctr.data.statistics import Seen
from fieldctr.data.table import SPLITS
from fieldctr.data.tally import Tally, by_split
from fieldctr.data.vocabularies import Known
from fieldctr.ranking import auc
from fieldctr.schema import Schema


def field_facts(
    specs: Sequence[Spec],
    schema: Schema,
    known: Sequence[Known],
    tally: Tally,
    seen: Seen,
    *,
    unread: np.ndarray,
    cut: Mapping[str, np.ndarray],
) -> dict[str, object]:
    """Per field: kind, vocab_size, and per split the share of rows without a value and of values without an id.

    A hashed field has, in place of the latter, the share of values in buckets that no train row fills, and `filled`.
    `unread` (specs of the reader, 2, 3): cells that are not blank and say nothing, as NULL_WORDS and as infinite.
    `seen` has these shares for statistics, where a value without an id is one that no train row has, and for histories.
    `cut` has (3, 2) per multi-valued field the values that were one too many, and the rows that had them: a field that
    lost some has `cut`, their number, that of the rows, and what share they are of its values.
    """
    plain = len(specs) - len(seen.missing)
    missing = [*(field.missing / tally.rows for field in known[:plain]), *seen.missing]
    unseen = [*(field.unseen for field in known[:plain]), *seen.unseen]
    filled = [*(field.filled for field in known[:plain]), *(None for _ in seen.missing)]
    return {
        spec.name: {
            "kind": spec.kind,
            "vocab_size": schema.fields[i].vocab_size,
            "missing": by_split(missing[i].tolist()),
            "unseen": by_split(unseen[i].tolist()),
            **({} if filled[i] is None else {"filled": filled[i]}),
            **(_unread(unread[i]) if i < plain else {}),
            **(_cut(cut[spec.name], known[i]) if spec.name in cut else {}),
        }
        for i, spec in enumerate(specs)
    }


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


def _cut(cut: np.ndarray, known: Known) -> dict[str, object]:
    """What a multi-valued field lost, (3, 2) values and rows, beside what it kept."""
    values, rows = cut.T
    if not values.any():
        return {}
    share = values / np.maximum(known.values + values, 1)
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

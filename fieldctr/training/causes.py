"""Why a fit blows up, in words: the numeric field that is most likely to blame is named."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import CTRModel

LARGE = 1e3  # a number far above 1 takes an embedding, a logit and a gradient with it
BLOCK = 1 << 16  # rows looked at together
OTHERS = "optimizer.lr too high, or a large initial scale (model.embedding_std)"


@dataclass(frozen=True)
class Largest:
    """The numeric field with the largest value of a split."""

    field: str
    value: float

    def __str__(self) -> str:
        cure = "give it scale: standard, or kind: quantile if it has that already"
        return f"numeric field '{self.field}' has values up to {self.value:.3g}: {cure}"


def largest(model: nn.Module, split: Split) -> Largest | None:
    """The field of the value that is farthest from zero, if that is beyond LARGE and the model knows its schema."""
    schema = model.schema if isinstance(model, CTRModel) else None
    if schema is None or split.values is None or not len(split):
        return None
    low, high = split.values.min(0), split.values.max(0)
    farthest = np.where(-low > high, low, high)
    column = int(np.abs(farthest).argmax())
    if abs(farthest[column]) <= LARGE:
        return None
    return Largest([field.name for field in schema.fields if field.numeric][column], float(farthest[column]))


def causes(model: nn.Module, split: Split) -> str:
    """What to look at when numbers of the model on this split are useless."""
    found = largest(model, split)
    if found is None:
        return f"Likely causes: {OTHERS}"
    return f"Likely cause: {found}. Else: {OTHERS}"


def refuse_alike(valid: Split) -> None:
    """UserError for a split whose rows are all alike: a model's logits on it would differ by rounding alone."""
    first = valid.ids_of(slice(0, 1))
    if not all((valid.ids_of(slice(i, i + BLOCK)) == first).all() for i in range(0, len(valid), BLOCK)):
        return
    if valid.values is None or (valid.values == valid.values[:1]).all():
        raise UserError(
            f"all {len(valid):,} rows of valid are alike: no field knows a value of theirs. `fieldctr prepare` shows "
            "what is missing or unseen; look at min_count, missing and the split rule"
        )


def worse_than_nothing(model: nn.Module, train: Split, valid: Split, ne: float) -> str:
    """A sentence where a model predicts worse than the click rate alone and a numeric field explains it; else ''."""
    found = largest(model, train) or largest(model, valid)
    if ne <= 1 or found is None:
        return ""
    return f"valid LogLoss is {ne:,.4g} times that of always predicting the click rate. Likely cause: {found}"

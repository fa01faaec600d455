"""What a backbone can say of its inside, beside its logits.

A backbone may have a method `diagnostics(emb, inputs) -> Diagnostics`, with the arguments of its forward pass. It is
called at evaluations, without gradients, on one batch.
"""

from typing import NamedTuple

from torch import Tensor


class Diagnostics(NamedTuple):
    """Numbers are logged at each evaluation; matrices are drawn and warnings said at the end of a run."""

    numbers: dict[str, float]
    matrices: dict[str, Tensor]  # by what they show; (F, F), or (F, n) with n unnamed columns
    warnings: list[str]

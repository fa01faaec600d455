"""What a model is given: the one type that data makes and models read."""

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """One batch of samples without their labels."""

    ids: Tensor  # (B, S) int32, local ids; S = sum of the fields' widths
    values: Tensor | None = None  # (B, N) float32, one column per numeric field, 0 where missing; then all vectors

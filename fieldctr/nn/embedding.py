"""What a model reads."""

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """One batch of samples without their labels."""

    ids: Tensor  # (B, S) int32, local ids; S = sum of the fields' widths
    values: Tensor | None = None  # (B, N) float32, one column per numeric field; 0 where missing

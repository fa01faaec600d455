"""Logistic regression on all features: the floor that every other model must beat.

Source: Richardson et al., "Predicting Clicks", WWW 2007.
"""

from torch import Tensor, nn

from fieldctr.inputs import Inputs
from fieldctr.nn.embedding import LinearTerm
from fieldctr.schema import Schema


class LR(nn.Module):
    """b + sum_i w_i."""

    reads_embeddings = False
    finds_pairs = False

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.linear = LinearTerm(schema)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.linear(inputs)

"""FFM: every feature has one vector for each other field; a pair meets by the two vectors meant for each other.

Source: Juan et al., "Field-aware Factorization Machines for CTR Prediction", RecSys 2016, section 3.
Differs: with the bias and the first-order term that the paper leaves out of its formulas.
"""

from torch import Tensor, nn

from fieldctr.config import Weight
from fieldctr.inputs import Inputs
from fieldctr.nn.embedding import FeatureEmbedding, LinearTerm
from fieldctr.schema import Schema


class FFM(nn.Module):
    """b + sum_i w_i + sum_{i<j} <v_{i, field j}, v_{j, field i}>.

    A feature of field i keeps its F - 1 vectors in the order of the fields behind i, counted around.
    """

    reads_embeddings = False

    def __init__(self, schema: Schema, dim: int, *, vector_std: Weight) -> None:
        super().__init__()
        self.linear = LinearTerm(schema)
        self.num_others, self.dim = schema.num_fields - 1, dim
        self.vectors = FeatureEmbedding(schema, self.num_others * dim, init_std=vector_std)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        logit = self.linear(inputs)
        # Pairs by their distance: each step works on (B, F, D), and no copy of all F (F-1) vectors is made.
        ahead = self.vectors(inputs).split(self.dim, dim=2)  # B,F,D each: for the field 1, 2, ... behind
        for distance in range(1, (self.num_others + 1) // 2 + 1):
            back = ahead[-distance].roll(-distance, dims=1)  # of the field at that distance, for the one before it
            twice = 2 * distance == self.num_others + 1  # half around, both fields of a pair look ahead
            logit = logit + (ahead[distance - 1] * back).sum((1, 2)) * (0.5 if twice else 1.0)
        return logit

"""FFM: every feature has one vector for each other field; a pair meets by the two vectors meant for each other.

Source: Juan et al., "Field-aware Factorization Machines for CTR Prediction", RecSys 2016, equation 4.
Differs: with the bias and the first-order term that the paper leaves out of its formulas.
"""

from torch import Tensor, nn
from torch.nn import functional

from fieldctr.config import Weight
from fieldctr.nn.embedding import FeatureEmbedding, Inputs, LinearTerm
from fieldctr.schema import Schema


class FFM(nn.Module):
    """b + sum_i w_i + sum_{i<j} <v_{i, field j}, v_{j, field i}>."""

    reads_embeddings = False

    def __init__(self, schema: Schema, dim: int, *, vector_std: Weight) -> None:
        super().__init__()
        self.linear = LinearTerm(schema)
        self.num_fields, self.dim = schema.num_fields, dim
        self.vectors = FeatureEmbedding(schema, (schema.num_fields - 1) * dim, init_std=vector_std)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        meant = self.by_field(self.vectors(inputs))
        return self.linear(inputs) + 0.5 * (meant * meant.transpose(1, 2)).sum((1, 2, 3))

    def by_field(self, vectors: Tensor) -> Tensor:
        """(B, F, (F-1) D) -> (B, F, F, D): what field i means for field j; zero on the diagonal, which no row has.

        The F^2 - 1 entries behind the first, in rows of F + 1, end each in one of the diagonal.
        """
        fields = self.num_fields
        rows = vectors.reshape(len(vectors), fields - 1, fields, self.dim)
        without_first = functional.pad(rows, (0, 0, 0, 1)).flatten(1, 2)  # B,FF-1,D
        return functional.pad(without_first, (0, 0, 1, 0)).unflatten(1, (fields, fields))

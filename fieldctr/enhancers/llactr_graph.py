"""Fields pass messages along the graph of names close in meaning: fusion of a language model's vectors by a graph.

logit += weight sum_i <e_i, x_i^1 + x_i^2>,  x^t = A x^(t-1) W_t,  x^0 = e,  A_ij = s_ij / sqrt(d_i d_j) for j in N(i)

N(i) are the k other fields with the highest cosine s_ij of their vectors; cosines below 0 count as 0; d_i sums those of
N(i). Two rounds reach the neighbours' neighbours. A is fixed: only W_1 and W_2 are learned.

Source: an answer to the open question of LLaCTR (arXiv:2505.14057), fusion beyond additive matrices; propagation as in
Wu et al., "Simplifying Graph Convolutional Networks" (arXiv:1902.07153), equation 8.
Differs: no self-loops, as a field's product with itself is no interaction; A is not made symmetric, so that each field
has k neighbours and no field is a hub; every round is read out, by its product with the feature embeddings; W_t = 1 at
the start, so that before anything is learned the names weigh the pairs.
"""

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Weight
from fieldctr.enhancers.neighbours import mixed, nearest_fields, unit_vectors
from fieldctr.schema import Schema

ROUNDS = 2


class LLaCTRGraph(nn.Module):
    """2 d^2 weights; O(F k d) a sample."""

    field_embeddings: Tensor  # (F, E)
    fields: Tensor  # (F, k) the neighbours of each field
    adjacency: Tensor  # (F, k) their entries of A

    def __init__(
        self, schema: Schema, dim: int, field_embeddings: Tensor, *, weight: Weight, neighbours: Positive
    ) -> None:
        super().__init__()
        self.weight = weight
        unit = unit_vectors(schema, field_embeddings)
        cosine, fields = nearest_fields(unit, neighbours)
        self.register_buffer("field_embeddings", unit)
        self.register_buffer("fields", fields)
        self.register_buffer("adjacency", normalised(cosine.clamp_min(0), fields))
        rounds = [nn.Linear(dim, dim, bias=False) for _ in range(ROUNDS)]
        for mix in rounds:
            nn.init.eye_(mix.weight)
        self.rounds = nn.ModuleList(rounds)

    def forward(self, emb: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, D) -> extra logit (B,), no penalty ()."""
        with torch.autocast(emb.device.type, enabled=False):  # like every sum over pairs: a logit must not tie
            state = emb = emb.float()
            heard = torch.zeros_like(emb)
            for mix in self.rounds:
                state = mixed(mix(state), self.adjacency, self.fields)  # B,F,D
                heard = heard + state
            return self.weight * (emb * heard).sum((1, 2)), emb.new_zeros(())

    def fold(self) -> None:
        """The field vectors have done their work."""
        self.field_embeddings = self.field_embeddings[:, :0].clone()  # a view would keep them in memory


def normalised(similarity: Tensor, fields: Tensor) -> Tensor:
    """s_ij / sqrt(d_i d_j), (F, k), of similarities above or at 0; 0 for a field that is similar to none."""
    scale = similarity.sum(1).clamp_min(1e-12).rsqrt()  # F
    return torch.where(similarity > 0, similarity * scale.unsqueeze(1) * scale[fields], 0.0)

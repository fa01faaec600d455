"""Fields attend to the fields whose names are close in meaning: fusion of a language model's vectors by attention.

logit += weight sum_i <e_i, sum_{j in N(i)} a_ij V e_j>
a_i = softmax over j in N(i) of (<h_i, h_j> + <Q h_i, K h_j>) / temperature

h_i is the unit vector of field i's name, N(i) are the other fields, or the k of the highest cosine. A sample decides
nothing of a: it is computed once a batch, and once and for all in what serves.

Source: an answer to the open question of LLaCTR (arXiv:2505.14057), fusion beyond additive matrices; attention as in
Vaswani et al. (arXiv:1706.03762), section 3.2.1.
Differs: queries and keys come from the names alone, values from the feature embeddings; what Q and K learn is added to
the cosines, and small at the start, where V = 1: before anything is learned the names weigh the pairs; its result is
one term of the logit, as an enhancer of any backbone leaves the embeddings alone.
"""

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Weight
from fieldctr.enhancers.neighbours import mixed, nearest_fields, unit_vectors
from fieldctr.errors import UserError
from fieldctr.schema import Schema

START = 0.05  # of Q and K: what they add to cosines is below 0.01 at a rank of 8


class LLaCTRAttention(nn.Module):
    """2 E r + d^2 weights; O(F k d) a sample."""

    field_embeddings: Tensor  # (F, E)
    fields: Tensor  # (F, k) that each field attends to
    cosine: Tensor  # (F, k) of their names with its own
    folded: Tensor | None  # (F, k) attention, where nothing is learned any more

    def __init__(
        self,
        schema: Schema,
        dim: int,
        field_embeddings: Tensor,
        *,
        weight: Weight,
        neighbours: Positive | None,
        rank: Positive,
        temperature: Weight,
    ) -> None:
        super().__init__()
        if not temperature:
            raise UserError("enhancer.temperature=0 is not allowed: expected float > 0, such as 0.1")
        self.weight, self.temperature = weight, temperature
        unit = unit_vectors(schema, field_embeddings)
        self.register_buffer("field_embeddings", unit)
        cosine, fields = nearest_fields(unit, neighbours)
        self.register_buffer("cosine", cosine)
        self.register_buffer("fields", fields)
        self.register_buffer("folded", None)
        self.query, self.key = (nn.Linear(unit.shape[1], rank, bias=False) for _ in range(2))
        self.value = nn.Linear(dim, dim, bias=False)
        with torch.no_grad():
            for part in (self.query, self.key):
                part.weight.normal_(std=START)
            nn.init.eye_(self.value.weight)

    def attention(self) -> Tensor:
        """How much each field listens to which others: (F, k), rows sum to 1."""
        if self.folded is not None:
            return self.folded
        query, key = self.query(self.field_embeddings), self.key(self.field_embeddings)  # F,r
        score = self.cosine + (query.unsqueeze(1) * key[self.fields]).sum(2)  # F,k
        return (score / self.temperature).softmax(1)

    def forward(self, emb: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, D) -> extra logit (B,), no penalty ()."""
        with torch.autocast(emb.device.type, enabled=False):  # like every sum over pairs: a logit must not tie
            emb = emb.float()
            context = mixed(self.value(emb), self.attention(), self.fields)  # B,F,D
            return self.weight * (emb * context).sum((1, 2)), emb.new_zeros(())

    def fold(self) -> None:
        """Keep the attention; what it was made of has done its work."""
        self.folded = self.attention()
        self.query, self.key = nn.Identity(), nn.Identity()
        self.field_embeddings = self.field_embeddings[:, :0].clone()  # a view would keep them in memory

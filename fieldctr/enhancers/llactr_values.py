"""LLaCTR by values: a language model's vector of each frequent value, and of the field for the rare ones.

logit += fie_weight sum_{i<j} m_ij(x) <e_i, e_j>,  m_ij(x) = <Q r_i, Q r_j> + b
loss += fre_weight sum_i KL(softmax(A r_i) || softmax(e_i)), the mean over samples

r_i is the unit vector of what sample x has in field i: its value's where that is frequent, else its field's; of several
values the mean. Q starts at the leading principal directions of all these vectors, so that m_ij starts as nearly their
cosine: before anything is learned what values mean weighs their pair.

Source: an answer to the open question of LLaCTR (arXiv:2505.14057), a vector for each value instead of one for each
field. Its FRE and FIE, with r_i(x) in the place of h_i.
Differs: m_ij is of rank r, and the sum over pairs half of |sum_i Q r_i e_i^T|^2 - sum_i |Q r_i|^2 |e_i|^2 (as in FM,
Rendle 2010): O(F r d) a sample, no pair is made; a weight for each of the pairs of values cannot be learned.
Differs: all vectors are of length 1, as those of the other fusions.
"""

import torch
from torch import Tensor, nn

from fieldctr.config import Positive, Weight
from fieldctr.inputs import Inputs
from fieldctr.nn.interaction import pair_sum
from fieldctr.nn.value_lookup import ValueLookup, ValueVectors
from fieldctr.schema import Schema

ROUNDS = 4  # of the iteration that finds principal directions; more move no cosine by 0.01


class LLaCTRValues(nn.Module):
    """E r + 1 weights for FIE, (E + 1) d for FRE. A weight of zero leaves its part out altogether."""

    reads_inputs = True

    def __init__(
        self,
        schema: Schema,
        dim: int,
        value_vectors: ValueVectors,
        *,
        fre_weight: Weight,
        fie_weight: Weight,
        fie_rank: Positive,
    ) -> None:
        super().__init__()
        self.fre_weight, self.fie_weight = fre_weight, fie_weight
        unit = nn.functional.normalize(value_vectors.vectors.float(), dim=1)
        self.lookup = ValueLookup(value_vectors._replace(vectors=unit), schema)
        width = unit.shape[1]
        if fre_weight:
            self.fre = nn.Linear(width, dim)
        if fie_weight:
            self.metric: nn.Module = nn.Linear(width, min(fie_rank, width), bias=False)
            with torch.no_grad():
                self.metric.weight.copy_(principal(unit, min(fie_rank, width)))
            self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, emb: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(B, F, D) -> extra logit (B,), penalty (); no penalty in evaluation."""
        with torch.autocast(emb.device.type, enabled=False):  # like every sum over pairs: a logit must not tie
            emb, rows = emb.float(), self.lookup(inputs.ids)
            return self.extra_logit(emb, rows, inputs.ids), self.penalty(emb, rows, inputs.ids)

    def extra_logit(self, emb: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
        """FIE: (B, F, D), vectors (B, S), ids (B, S) -> (B,)."""
        if not self.fie_weight:
            return emb.new_zeros(len(emb))
        mapped = self.lookup.mapped(self.metric, rows, ids)  # B,F,r
        whole = (mapped.mT @ emb).square().sum((1, 2))  # B,r,D: all ordered pairs, i = j among them
        own = (mapped.square().sum(2) * emb.square().sum(2)).sum(1)
        return self.fie_weight * (0.5 * (whole - own) + self.shift * pair_sum(emb))

    def penalty(self, emb: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
        """FRE: (B, F, D), vectors (B, S), ids (B, S) -> ()."""
        if not self.fre_weight or not self.training:
            return emb.new_zeros(())
        wanted = self.lookup.mapped(self.fre, rows, ids).log_softmax(-1)  # B,F,D
        distance = (wanted.exp() * (wanted - emb.log_softmax(-1))).sum((1, 2))
        return self.fre_weight * distance.mean()

    def fold(self) -> None:
        """Keep r numbers for each vector; FRE and the vectors have done their work."""
        if self.fie_weight:
            self.lookup.vectors = self.metric(self.lookup.vectors)
            self.metric = nn.Identity()
        self.fre = nn.Identity()


def principal(vectors: Tensor, count: int) -> Tensor:
    """Directions in which vectors (n, E) are the longest: (count, E), orthonormal, by iteration from a random start."""
    found = torch.randn(vectors.shape[1], count)
    for _ in range(ROUNDS):
        found = torch.linalg.qr(vectors.T @ (vectors @ found)).Q
    return found.T

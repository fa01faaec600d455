"""LLaCTR: a language model's vectors of the field names shape feature embeddings (FRE) and field pairs (FIE).

Source: "Field Matters: A Lightweight LLM-enhanced Method for CTR Prediction" (arXiv:2505.14057) and its released code.
FRE adds fre_weight * sum_k KL(softmax(A h_k) || softmax(e_k)) to the loss. FIE adds to the logit fie_weight *
sum_{i<j} m_ij <e_i, e_j>, with m adapted from the cosine similarities of the field vectors h.
Differs: the adaptors A and m are trained, as the paper says, with a gradient clip of their own; in the released code
they stay as drawn while their gradients pile up inside the clip of all others (`adaptors: frozen` is that). FIE is an
interaction for every backbone; for FinalMLP and WuKong the released code adds the constant sum_{i<j} m_ij
(`fie_term: constant` is that).
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.config import Positive, Weight
from fieldctr.enhancers.field_pairs import Fixed, LowRank, PairAdaptor, Pairs, pair_adaptor
from fieldctr.errors import UserError
from fieldctr.nn.interaction import upper
from fieldctr.schema import Schema

Alignment = Literal["kl", "mse", "contrastive"]


class LLaCTR(nn.Module):
    """FRE and FIE. A weight of zero leaves its part out altogether."""

    field_embeddings: Tensor  # (F, E)

    def __init__(
        self,
        schema: Schema,
        dim: int,
        field_embeddings: Tensor,
        *,
        fre_weight: Weight,
        fre_loss: Alignment,
        fre_temperature: Weight,
        fie_weight: Weight,
        fie_adaptor: Pairs,
        fie_rank: Positive,
        fie_term: Literal["pairs", "constant"],
        adaptors: Literal["trained", "frozen"],
        adaptor_clip_norm: Weight | None,
    ) -> None:
        super().__init__()
        if len(field_embeddings) != schema.num_fields:
            raise UserError(f"enhancer: {len(field_embeddings)} field vectors for {schema.num_fields} fields")
        self.num_fields = schema.num_fields
        self.fre_weight, self.fre_loss, self.fre_temperature = fre_weight, fre_loss, fre_temperature
        self.fie_weight, self.fie_term = fie_weight, fie_term
        self.register_buffer("field_embeddings", field_embeddings.float())
        self.adaptors = Adaptors(frozen=adaptors == "frozen", clip_norm=adaptor_clip_norm)
        if fre_weight:
            self.adaptors["fre"] = nn.Linear(field_embeddings.shape[1], dim)
        if fie_weight:
            self.adaptors["fie"] = pair_adaptor(fie_adaptor, field_embeddings, rank=fie_rank)

    def forward(self, emb: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, D) -> extra logit (B,), penalty (); no penalty in evaluation."""
        with torch.autocast(emb.device.type, enabled=False):  # like every sum over pairs: a logit must not tie
            emb = emb.float()
            return self.extra_logit(emb), self.penalty(emb)

    @property
    def pairs(self) -> PairAdaptor | None:
        """The adaptor of FIE; None without FIE."""
        return cast("PairAdaptor", self.adaptors["fie"]) if "fie" in self.adaptors else None

    def extra_logit(self, emb: Tensor) -> Tensor:
        """FIE: (B, F, D) -> (B,)."""
        if self.pairs is None:
            return emb.new_zeros(len(emb))
        if self.fie_term == "constant":
            return self.fie_weight * self.pairs.pair_weight().sum().expand(len(emb))
        return self.fie_weight * self.pairs(emb)

    def penalty(self, emb: Tensor) -> Tensor:
        """FRE: (B, F, D) -> ()."""
        if "fre" not in self.adaptors or not self.training:
            return emb.new_zeros(())
        target = self.adaptors["fre"](self.field_embeddings)  # F,D
        if self.fre_loss == "kl":
            distance = kl(target, emb)
        elif self.fre_loss == "mse":
            distance = (target - emb).square().sum((1, 2)).mean()
        else:
            distance = contrast(target, emb, self.fre_temperature)
        return self.fre_weight * distance

    def fold(self) -> None:
        """Keep one weight per pair; FRE, the field vectors and the adaptor have done their work."""
        if self.pairs is not None and not isinstance(self.pairs, LowRank):  # a low rank is cheaper than its pairs
            self.adaptors["fie"] = Fixed(self.pairs.pair_weight())
        if "fre" in self.adaptors:
            del self.adaptors["fre"]
        self.field_embeddings = self.field_embeddings[:, :0].clone()  # a view would keep them in memory

    def pair_weights(self) -> Tensor:
        """What FIE adds to the weight of each pair: (F, F), zero on and below the diagonal. All that serving needs."""
        if self.pairs is None or self.fie_term == "constant":
            return torch.zeros(self.num_fields, self.num_fields)
        return upper(self.fie_weight * self.pairs.pair_weight().detach(), self.num_fields)


class Adaptors(nn.ModuleDict):
    """The learned parts, with what the optimizer asks a module for: a clip of its own, or never to move."""

    def __init__(self, *, frozen: bool, clip_norm: float | None) -> None:
        super().__init__()
        self.frozen = frozen
        self.clip_norm = None if frozen else clip_norm


def kl(target: Tensor, emb: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(emb)), summed over fields and dims, mean over samples: (F, D), (B, F, D) -> ()."""
    wanted, found = target.log_softmax(-1), emb.log_softmax(-1)
    return (wanted.exp() * (wanted - found.mean(0))).sum()  # linear in `found`: the batch is averaged first


def contrast(target: Tensor, emb: Tensor, temperature: float) -> Tensor:
    """-log softmax over all fields of cos(feature, field) / temperature, at the feature's own field.

    Summed over fields, mean over samples: (F, D), (B, F, D) -> ().
    """
    cosine = functional.normalize(emb, dim=-1) @ functional.normalize(target, dim=-1).T  # B,F,F
    own = (cosine / temperature).log_softmax(-1).diagonal(dim1=1, dim2=2)  # B,F
    return -own.sum(1).mean()

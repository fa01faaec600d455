"""One projection matrix per field: free ones, one for all, or mixtures of a few shared bases.

Source: FAT (arXiv:2511.12081) version 2, section 3.4: W_f = sum of alpha_fm B_m over the K bases that field f's
router scores highest, alpha_f = softmax of those K scores.
Differs: bases start at sqrt(K / d_in), so that a mixture of K of them starts near 1 / sqrt(d_in), as a free matrix
does; the paper's initial scale is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldctr.errors import UserError

Shapes = dict[str, tuple[int, int]]  # role -> d_in, d_out
Projections = Literal["hyper", "full", "shared", "pair"]
Routing = Literal["topk", "dense"]
Phi = Literal["learned", "llm_init", "llm_frozen", "llm_anchored"]


META_STD = 0.1  # of meta-embeddings at the start


@dataclass(frozen=True)
class Routed:
    """How fields choose among bases."""

    num_bases: int  # M
    top_k: int  # K
    meta_dim: int  # of the fields' meta-embeddings
    routing: Routing  # dense mixes all M
    phi: Phi  # where meta-embeddings start, and whether they stay there, move freely, or pay for moving


class FreeMatrices(nn.Module):
    """Matrices per role, (F, d_in, d_out) or (1, d_in, d_out) where all fields share one. No bias."""

    def __init__(self, matrices: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weight = nn.ParameterDict(matrices)

    @classmethod
    def drawn(cls, count: int, shapes: Shapes) -> Self:
        """`count` random ones per role, at the scale 1 / sqrt(d_in)."""
        return cls({role: torch.empty(count, *shape).normal_(std=shape[0] ** -0.5) for role, shape in shapes.items()})

    def forward(self) -> dict[str, Tensor]:
        """The matrices by role."""
        return dict(self.weight.items())


class ComposedMatrices(nn.Module):
    """Per field and role a mixture of bases, chosen by the field's meta-embedding. Independent of the samples.

    `start` has the meta-embeddings (F, meta_dim) that a language model suggests; they are random without.
    """

    anchor: Tensor | None

    def __init__(self, num_fields: int, shapes: Shapes, routed: Routed, start: Tensor | None = None) -> None:
        super().__init__()
        if routed.top_k > routed.num_bases:
            raise UserError(f"model.top_k={routed.top_k} exceeds model.num_bases={routed.num_bases}; lower it")
        self.phi = routed.phi
        self.chosen = routed.top_k if routed.routing == "topk" else routed.num_bases
        size, count = routed.meta_dim, routed.num_bases
        meta = torch.empty(num_fields, size).normal_(std=META_STD) if start is None else start.clone()
        if routed.phi == "llm_frozen":
            self.register_buffer("meta", meta)
        else:
            self.meta = nn.Parameter(meta)
        self.register_buffer("anchor", start if routed.phi == "llm_anchored" else None)
        self.router = nn.ParameterDict({role: torch.empty(size, count).normal_(std=size**-0.5) for role in shapes})
        self.bases = nn.ParameterDict(
            {
                role: torch.empty(count, *shape).normal_(std=(self.chosen / shape[0]) ** 0.5)
                for role, shape in shapes.items()
            }
        )

    def forward(self) -> dict[str, Tensor]:
        """Per role (F, d_in, d_out)."""
        # fp32 also under autocast: in bf16 3 % of the top-K sets flip, which is 17 % of output error.
        with torch.autocast(self.meta.device.type, enabled=False):
            return {
                role: (self.routing(role) @ bases.flatten(1)).unflatten(1, bases.shape[1:])  # F,M @ M,d_in*d_out
                for role, bases in self.bases.items()
            }

    @torch.no_grad()
    def place(self, new: Tensor, drawn: Tensor) -> None:
        """Put the `new` (F,) fields' meta-embeddings among the others' as they were drawn, if a language model did."""
        if self.phi == "learned":
            return
        self.meta[new] = aligned(drawn, self.meta, new)
        if self.anchor is not None:
            self.anchor[new] = self.meta[new]

    def strayed(self) -> Tensor:
        """Squared distance of the meta-embeddings from what they are anchored to: ()."""
        return self.meta.new_zeros(()) if self.anchor is None else (self.meta - self.anchor).square().sum()

    def routing(self, role: str) -> Tensor:
        """alpha, (F, M): each row has K non-zero entries and sums to 1."""
        scores = self.meta @ self.router[role]  # F,M
        best, chosen = scores.topk(self.chosen, dim=1)  # F,K
        return torch.zeros_like(scores).scatter(1, chosen, best.softmax(1))


def meta_embeddings(vectors: Tensor, size: int) -> Tensor:
    """Meta-embeddings from a language model's field vectors: their principal components, at the scale of learned ones.

    (F, E) -> (F, size); zeros where the vectors have fewer components, or are equal.
    """
    centred = vectors.float() - vectors.float().mean(0)
    left, scale, _ = torch.linalg.svd(centred, full_matrices=False)
    points = (left * scale)[:, :size]
    points = points * points.gather(0, points.abs().argmax(0, keepdim=True)).sign()  # a component has no sign
    points = functional.pad(points, (0, size - points.shape[1]))
    equal = points.norm() < 1e-5 * vectors.float().norm()  # what is left of them then is rounding
    return torch.where(equal, torch.zeros_like(points), points * (META_STD / points.std()))


def aligned(points: Tensor, settled: Tensor, new: Tensor) -> Tensor:
    """Where `points` (F, k) has its `new` (F,) rows, seen from the others, which now are as in `settled`: (new, k).

    Turned, moved and scaled so that the others meet best: principal components of other vectors have other axes.
    Source: orthogonal Procrustes (Schoenemann 1966). Differs: spreads are made equal, so that others that do not
    match, as a placebo's, shrink nothing.
    """
    here, there = points[~new], settled[~new]
    centred, target = here - here.mean(0), there - there.mean(0)
    left, _, right = torch.linalg.svd(centred.T @ target)
    scale = target.norm() / centred.norm().clamp(min=1e-12)
    return (points[new] - here.mean(0)) @ (left @ right) * scale + there.mean(0)


def field_matrices(
    kind: Projections, num_fields: int, shapes: Shapes, routed: Routed, start: Tensor | None = None
) -> nn.Module:
    """Mixtures of bases (hyper), one for all (shared), or a matrix per field (full, and pair, whose q is F wide)."""
    if kind == "hyper":
        return ComposedMatrices(num_fields, shapes, routed, start)
    return FreeMatrices.drawn(1 if kind == "shared" else num_fields, shapes)


def multipliers(matrices: nn.Module) -> nn.Module:
    """What of `field_matrices` grows with the width of tokens: not a hypernetwork's routers and meta-embeddings."""
    return matrices.bases if isinstance(matrices, ComposedMatrices) else matrices


def project(tokens: Tensor, matrices: Tensor) -> Tensor:
    """Each field's tokens by its matrix: (F, B, d_in), (F or 1, d_in, d_out) -> (F, B, d_out)."""
    return tokens @ matrices[0] if len(matrices) == 1 else torch.bmm(tokens, matrices)

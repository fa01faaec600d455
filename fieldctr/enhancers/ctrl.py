"""CTRL: before it is trained on clicks, a backbone's view of a row and a language model's are drawn together.

Source: Li et al., "CTRL: Connect Collaborative and Language Model for CTR Prediction" (arXiv:2306.02841), sections 4.2
and 4.3. First stage, without labels: the vector that the backbone's last layer reads, and the mean of the language
model's last layer over the row's text, pass a linear map each to one width, then M linear maps each into sub-spaces.
The similarity of i and j is the sum over i's sub-vectors of the largest inner product with one of j's. The loss is the
mean of the InfoNCE from texts to rows and from rows to texts, the other rows of the batch being the negatives. Second
stage: the language model and the maps are gone, the last layer is new, and the backbone trains on clicks from these
weights: what serves is the backbone alone.
Differs: the language model is frozen and reads each text once (`text_tower=frozen`), because a CPU cannot train one;
`text_tower=trained` trains LoRA weights beside its layers, the paper all weights.
Differs: `max_rows` rows of train are read, the paper's all of them, because the language model's price is by the row.
Differs: both views are standardised over the batch before their maps, because an FM's are 1e-8 at the start: two of
them without a text (`source=views`) were never told apart in 395 steps.
Differs: sub-vectors have length 1, and there are 4 of width 32, because the paper says neither.
Differs: the rate stays where its warm-up ends, and no weight decays, because the paper says neither.
Differs: batches are of 256 rows, the paper's of 6,400, because few rows make few steps: after 80 on 4,000 rows of
MovieLens, 75 % of FM's views find their text first among 256, 92 % of DeepFM's.
Differs: FM's view of a row, which the paper does not have, is its pairs' products by dimension before they are summed;
what the first stage does not move, such as first-order weights and the last layer, starts as it does without it.
Differs: one first stage serves all seeds of the second, because that is how its price is paid once.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fieldctr.config import Between, Positive, Share

TINY = 1e-18  # below the variance of an FM's products, 1e-15 at the start
PRODUCTS = 1 << 25  # inner products at a time: 128 MB


@dataclass(frozen=True, kw_only=True)
class CTRL:
    """What the first stage is; the model is built without it."""

    pretrains = True  # the hook

    source: Literal["text", "untrained", "random", "permuted", "constant", "views"]
    text_tower: Literal["frozen", "trained"]
    max_rows: Positive | None
    epochs: Annotated[int, Between(0)]
    batch_size: Annotated[int, Between(2)]
    lr: Annotated[float, Between(0)]
    warmup_steps: Annotated[int, Between(0)]
    temperature: Annotated[float, Between(1e-3)]
    width: Positive
    subspaces: Positive
    subspace_width: Positive
    mask: Share
    seed: Annotated[int, Between(0, 2**32 - 1)]

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: linear from a fiftieth, as the paper's from 1e-5 to 5e-4."""
        return self.lr * (0.02 + 0.98 * min(1.0, step / max(1, self.warmup_steps)))


class Alignment(nn.Module):
    """The maps of the first stage, and its loss."""

    def __init__(self, row_width: int, text_width: int, settings: CTRL) -> None:
        super().__init__()
        self.subspaces, self.temperature = settings.subspaces, settings.temperature
        inner = settings.subspaces * settings.subspace_width
        self.maps = nn.ModuleList(
            nn.Sequential(nn.Linear(wide, settings.width), nn.Linear(settings.width, inner))
            for wide in (row_width, text_width)
        )

    def forward(self, rows: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Views of the same n samples, (n, row_width) and (n, text_width) -> the loss (), and how many find their own.

        Both directions count, so that 2 n is all of them.
        """
        both = (self.sub_vectors(0, rows), self.sub_vectors(1, texts))
        return info_nce(*both, temperature=self.temperature)

    def sub_vectors(self, side: int, vectors: Tensor) -> Tensor:
        """(n, width) -> (n, M, subspace_width), each of length 1."""
        return functional.normalize(self.maps[side](standard(vectors)).unflatten(1, (self.subspaces, -1)), dim=2)


def standard(vectors: Tensor) -> Tensor:
    """(n, width) -> (n, width), each column of mean 0 and deviation 1; one that is the same everywhere is 0."""
    return (vectors - vectors.mean(0)) / (vectors.var(0, correction=0) + TINY).sqrt()


def max_sims(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """(n, M, w), (m, M, w) -> for each pair the similarity of one to the other, and of the other to one: (n, m) each.

    It is the sum over the sub-vectors of the first of the largest inner product with one of the second's.
    """
    products = (one.flatten(0, 1) @ other.flatten(0, 1).T).view(*one.shape[:2], *other.shape[:2])  # n,M,m,M
    return products.amax(3).sum(1), products.amax(1).sum(2)


def info_nce(one: Tensor, other: Tensor, *, temperature: float, products: int = PRODUCTS) -> tuple[Tensor, Tensor]:
    """The mean of both directions' -log softmax(similarity / temperature) of one's own, and how many come first: ().

    The inner products are made `products` at a time, and where that is not at once, again in the backward pass: those
    of 6,400 rows would fill 2.6 GB.
    """
    parts = one.split(max(1, products // (len(other) * one.shape[1] * other.shape[1])))
    make = max_sims if len(parts) == 1 else partial(checkpoint, max_sims, use_reentrant=False)
    blocks = zip(*(make(part, other) for part in parts), strict=True)
    forth, back = (torch.cat(block) / temperature for block in blocks)  # n,n each
    own = torch.arange(len(one), device=one.device)
    loss = functional.cross_entropy(forth, own) + functional.cross_entropy(back.T, own)
    return loss / 2, (forth.argmax(1) == own).sum() + (back.argmax(0) == own).sum()

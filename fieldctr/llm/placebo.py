"""What stands for the meaning of names or texts: their vectors, or a placebo that lacks one part of it."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fieldctr.config import EncoderConfig
from fieldctr.errors import UserError

Source = Literal["ssft", "untuned", "random", "permuted", "constant", "opaque", "synonyms"]
TextSource = Literal["text", "untrained", "random", "permuted", "constant"]


def stand_in(vectors: Tensor, source: Source, *, epoch: int | None, seed: int) -> Tensor:
    """(F, E) out of the (epochs + 1, F, E) that were cached; only `opaque` and `synonyms` cost another SSFT.

    ssft: as tuned; opaque, synonyms: as tuned on names without a meaning, and on other words; untuned: before SSFT;
    random: Gaussian of the same scale; permuted: each field gets another one's vector; constant: all get the mean.
    """
    tuned = vectors[-1 if epoch is None else epoch]
    if source == "untuned":
        return vectors[0]
    if source == "random":
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(tuned.shape, generator=generator) * tuned.std()
    if source == "permuted":
        return tuned[derangement(len(tuned), seed)]
    if source == "constant":
        return tuned.mean(0).expand_as(tuned).contiguous()
    return tuned


def reader_of_texts(config: EncoderConfig, source: TextSource) -> EncoderConfig:
    """Who reads the texts: the encoder, or for `untrained` one of its architecture that has learned nothing.

    What `stand_in_texts` puts in the place of vectors costs nothing; this costs reading all texts again.
    """
    if source != "untrained":
        return config
    if config.kind == "random":
        raise UserError(
            "source=untrained takes the encoder's architecture with random weights, and encoder.kind=random has none. "
            "Take another encoder, or source=random"
        )
    return replace(config, weights="random")


def stand_in_texts(vectors: Tensor, rows: Tensor, source: TextSource | Source, *, seed: int) -> tuple[Tensor, Tensor]:
    """Vectors (texts, E) and the rows (entities,) that entities have in them; equal texts keep having one vector.

    random: Gaussian of the same scale; permuted: each text gets another one's vector; constant: all get the mean; any
    other source: as they are.
    """
    if source == "random":
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(vectors.shape, generator=generator) * vectors.std(), rows
    if source == "permuted":
        return vectors, derangement(len(vectors), seed)[rows.long()]
    if source == "constant":
        return vectors.mean(0, keepdim=True), torch.zeros_like(rows)
    return vectors, rows


def of_other_fields(fields: Tensor, rows: Tensor, num_fields: int, *, seed: int) -> Tensor:
    """Whose vectors fields and values get when each field and its values have those of another one: (F + n,).

    `fields` (n,) are those of the values, `rows` (F + n,) the vectors of the fields and, behind them, of the values.
    What tells a field's values from those of others stays; their meaning does not. Exchanged one by one they would lose
    both, and a gain from knowing the field would pass for one from meaning. A field with fewer values lends them
    repeatedly, one without lends its own vector.
    """
    moved, lender = rows.clone(), derangement(num_fields, seed)
    moved[:num_fields] = rows[lender]
    for field in range(num_fields):
        own, lent = ((fields == one).nonzero()[:, 0] + num_fields for one in (field, int(lender[field])))
        lent = lent if len(lent) else lender[field : field + 1]
        moved[own] = rows[lent[torch.arange(len(own)) % len(lent)]]
    return moved


def derangement(count: int, seed: int) -> Tensor:
    """A random order of 0..count-1 that leaves nothing in its place: one cycle through all."""
    cycle = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.empty_like(cycle).index_copy(0, cycle, cycle.roll(1))

"""Numbers that say whether a model's parts live: gradients, the spectrum of its embeddings, and what it says of itself.

Source of the effective rank: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".
Embeddings that fill few of their dimensions keep large CTR models from gaining (Guo et al., arXiv:2310.04400).
"""

import math

import torch
from torch import Tensor, nn

from fieldctr.inputs import Inputs
from fieldctr.models.ctr_model import CTRModel
from fieldctr.models.hooks import Diagnostics, hook
from fieldctr.training.loss import batch_loss

ROWS = 1024  # of the training split, always the same


def diagnose(model: nn.Module, inputs: Inputs, label: Tensor, weight: Tensor | None = None) -> dict[str, float]:
    """All numbers of one batch, on the model in evaluation mode; draws no random number, leaves no gradient."""
    was_training = model.training
    model.eval()
    numbers = {f"grad_norm/{part}": norm for part, norm in gradient_norms(model, inputs, label, weight).items()}
    if isinstance(model, CTRModel):
        with torch.no_grad():
            emb = model.embedding(model.with_texts(inputs))
        numbers |= {"effective_rank": effective_rank(emb)} if emb.shape[2] else {}
        found = diagnostics(model, inputs)
        numbers |= found.numbers if found else {}
    model.train(was_training)
    return numbers


@torch.no_grad()
def diagnostics(model: CTRModel, inputs: Inputs) -> Diagnostics | None:
    """What the backbone says of itself, if it says anything."""
    says = hook(model.backbone, "diagnostics")
    if says is None:
        return None
    inputs = model.with_texts(inputs)
    columns = model.embedding.columns(inputs)
    whole = hook(model.backbone, "reads_columns")
    return says(columns if whole else model.embedding.pooled(columns, inputs), inputs)


def gradient_norms(model: nn.Module, inputs: Inputs, label: Tensor, weight: Tensor | None = None) -> dict[str, float]:
    """Euclidean norm of the loss's gradient, by the first two words of the weights' names."""
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    loss = batch_loss(model(inputs), label, weight)
    squares: dict[str, float] = {}
    for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True):
        if gradient is not None:
            values = gradient.coalesce().values() if gradient.is_sparse else gradient
            part = ".".join(name.split(".")[:2])
            squares[part] = squares.get(part, 0.0) + float(values.double().square().sum())
    return {part: math.sqrt(square) for part, square in squares.items()}


def effective_rank(emb: Tensor) -> float:
    """exp of the entropy of the singular values' shares: (B, F, D) -> 1 to D, or 0 where nothing differs.

    Each field's mean is taken out; rows count as often as they are read.
    """
    centred = (emb - emb.mean(0)).flatten(0, 1).double()  # BF,D
    scale = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).sqrt()
    if not scale.sum():
        return 0.0
    share = scale / scale.sum()
    return float(torch.special.entr(share).sum().exp())

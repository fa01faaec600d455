"""One learning rate for all widths of a model.

A step of Adam moves every entry of a matrix by about the rate, and so a product of it by the rate times the width: at
the rate that is best for narrow tokens, wide ones leap past everything in the first steps.
Source: muP (Yang et al., "Tensor Programs V", arXiv:2203.03466), table 8: matrices learn at 1 / width of the rate, what
adds one number per unit (embeddings, biases, norms) at all of it. Differs: all of it up to `optimizer.base_width`, so
that the rates found there stay what they are, and initial scales are left alone.
"""

from torch import nn


def learn_by_width(width: int, *modules: nn.Module) -> None:
    """Let modules whose weights multiply `width` units learn at base_width / width of the rate (`training.optim`)."""
    for module in modules:
        module.lr_width = width  # ty: ignore

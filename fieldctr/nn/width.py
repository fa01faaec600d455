"""One learning rate for all widths of a model.

A step of Adam moves every entry of a matrix by about the rate, and so a product of it by the rate times the width: at
the rate that is best for narrow tokens, wide ones leap past everything in the first steps.
Source: muP (Yang et al., "Tensor Programs V", arXiv:2203.03466), table 8: matrices learn at 1 / width of the rate, what
adds one number per unit (embeddings, biases, norms) at all of it. Differs: 1 up to RATE_WIDTH, so that the rates found
there stay what they are, and initial scales are left alone.
"""

from torch import nn

RATE_WIDTH = 16  # at which conf/model/fat.yaml and conf/tuned found their rates


def learn_by_width(width: int, *modules: nn.Module) -> None:
    """Let modules whose weights multiply `width` units learn at RATE_WIDTH / width of the rate (`training.optim`)."""
    for module in modules:
        module.lr_scale = min(1.0, RATE_WIDTH / width)  # ty: ignore

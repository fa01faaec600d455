"""The training loss of a batch."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fieldctr.models.ctr_model import Output


def batch_loss(output: Output, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of B samples and the model's penalty: () from a logit and labels (B,).

    `weight` (B,) is over its mean in the train split (`data.batches`), and the mean is sum(weight * loss) / B. So every
    sample pulls by its own weight whatever batch it falls into, and an epoch's gradients add up to that of the weighted
    mean over train. Dividing by the batch's own sum of weights would not: in a small batch a heavy sample would then
    count for little more than its light neighbours, and a batch of zeros would be 0 / 0. Adam forgives a constant
    factor, not one that differs from batch to batch; penalties, clip_norm and L2 keep the proportion that they have
    without weights.
    """
    return binary_cross_entropy_with_logits(output.logit.float(), label, weight) + output.penalty

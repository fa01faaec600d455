"""Activation checkpointing: keep each layer's input only, and compute the layer again when its gradient is due.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv:1604.06174). Gradients stay equal,
dropout included; the price is one more forward pass. A backbone names these layers by its hook `layers`.
"""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from fieldctr.errors import UserError
from fieldctr.models.ctr_model import CTRModel
from fieldctr.models.hooks import hook


def recompute_layers(model: nn.Module) -> None:
    """Let every layer of the backbone forget its activations. UserError for a backbone without layers."""
    layers = _layers(model)
    if not layers:
        name = type(model.backbone if isinstance(model, CTRModel) else model).__name__
        raise UserError(
            f"trainer.activation_checkpointing=true: {name} has no layers to compute again. "
            "Set trainer.activation_checkpointing=false"
        )
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def keep_activations(model: nn.Module) -> None:
    """Let layers that `recompute_layers` changed keep their activations again."""
    for layer in _layers(model):
        vars(layer).pop("forward", None)


def _layers(model: nn.Module) -> list[nn.Module]:
    found = hook(model.backbone, "layers") if isinstance(model, CTRModel) else None
    return list(found) if isinstance(found, nn.ModuleList | nn.Sequential) else []

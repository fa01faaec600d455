"""Activation checkpointing: keep each layer's input only, and compute the layer again when its gradient is due.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv:1604.06174). Gradients stay equal,
dropout included; the price is one more forward pass. A backbone names these layers by its attribute `layers`.
"""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from fieldctr.errors import UserError


def recompute_layers(model: Any) -> None:
    """Let every layer of the backbone forget its activations. UserError for a backbone without layers."""
    layers = _layers(model)
    if not layers:
        raise UserError(
            f"trainer.activation_checkpointing=true: {type(model.backbone).__name__} has no layers to compute again. "
            "Set trainer.activation_checkpointing=false"
        )
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def keep_activations(model: Any) -> None:
    """Undo it."""
    for layer in _layers(model):
        vars(layer).pop("forward", None)


def _layers(model: Any) -> list[nn.Module]:
    found = getattr(getattr(model, "backbone", None), "layers", None)
    return list(found) if isinstance(found, nn.ModuleList | nn.Sequential) else []

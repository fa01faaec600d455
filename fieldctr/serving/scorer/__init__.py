"""Scores raw rows with the model in the folder above: `Scorer().pctr([{"user": "u1", "price": 3}, ...])`.

Needs numpy, and onnxruntime for model.onnx or torch for model.pt2; nothing else.
"""

from .score import Scorer

__all__ = ["Scorer"]

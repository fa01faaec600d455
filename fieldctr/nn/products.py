"""Matrix products by what their time depends on, to do them again with nothing around them."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Operand(NamedTuple):
    """How a factor lies in memory."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        return cls(tensor.shape, tensor.stride(), tensor.dtype)

    def drawn(self, device: torch.device) -> Tensor:
        """Random numbers that lie so."""
        steps = zip(self.shape, self.stride, strict=True)
        length = 1 + sum(max(size - 1, 0) * stride for size, stride in steps)
        return torch.randn(length, dtype=self.dtype, device=device).as_strided(self.shape, self.stride)


class Product(NamedTuple):
    """A product of two matrices, or of two batches of them."""

    left: Operand
    right: Operand


def products_alone(products: Iterable[Product], device: torch.device) -> Callable[[], None]:
    """What multiplies as `products` did, in their order and with numbers of its own. Equal ones share their factors."""
    order = list(products)
    factors = {product: (product.left.drawn(device), product.right.drawn(device)) for product in set(order)}

    @torch.inference_mode()
    def multiply() -> None:
        for product in order:
            torch.matmul(*factors[product])

    return multiply

"""Attention over fields that knows the ordered pair: alpha_ij = softmax over j of w_ij <q_i, k_j> / sqrt(d_head).

Source: FAT (arXiv:2511.12081) version 2, section 3.2.
Differs: where the scores are many, the backward pass computes them again instead of keeping them, a few samples at a
time: those of 1,000 fields and 256 samples are 1 GB a head and layer, and on a CPU any that leave a core's cache cost
more to write and read than to compute (2048 samples of 40 fields, width 16: 108 ms again, 144 kept).
`scaled_dot_product_attention` has no factor on its scores. `flex_attention` has (`score_mod`), but on a CPU no backward
pass (torch 2.15), and forward it takes 1.8 to 6.3 times as long as these products (20 to 300 fields, one thread); on a
GPU it wants heads of width 16 or more, where FAT's default has 8. It has not been tried on one.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fieldctr.errors import UserError

Modulation = Literal["pre", "post", "none"]
# Scores that are kept; above that they are computed again, which costs a sixth of the attention's products.
KEPT_SCORES = {"cpu": 1 << 18, "cuda": 1 << 26}  # 1 MB, 256 MB
SLICE_SCORES = {"cpu": 1 << 18, "cuda": 1 << 22}  # scores then, 1 MB and 16 MB


class Pairs(NamedTuple):
    """What is known of a pair of tokens besides their content."""

    modulation: Modulation  # w on the scores before the softmax (pre), or on alpha after it (post)
    weight: Tensor | None  # w, (1 or H, T, T), row = query; None without modulation
    absent: Tensor | None  # (B, T), tokens that are padding: nobody attends to them
    scale: float | None = None  # of all scores; null: 1 / sqrt(d_head)

    def of(self, rows: slice) -> "Pairs":
        """The pairs of the samples in `rows`."""
        return self if self.absent is None else self._replace(absent=self.absent[rows])


def check_heads(width: int, num_heads: int) -> None:
    """UserError where heads do not divide the tokens' width."""
    if width % num_heads:
        raise UserError(f"model.num_heads={num_heads} does not divide the tokens' width, {width}")


def field_attention(qkv: Tensor, pairs: Pairs, num_heads: int) -> Tensor:
    """Queries, keys and values of T tokens, (T, B, 3 D) -> (T, B, D)."""
    num_tokens, batch, _ = qkv.shape
    scores = batch * num_heads * num_tokens**2
    if torch.compiler.is_compiling() or scores <= KEPT_SCORES[qkv.device.type]:  # compiled, slices would be unrolled
        q, k, v = by_head(qkv, 3, num_heads)
        return joined(mixed(attention(q @ k.transpose(1, 2), q.shape[-1], pairs), v, pairs), num_heads)
    return _Attention.apply(qkv, pairs.weight, pairs, num_heads)


def pair_attention(qkv: Tensor, pairs: Pairs, num_heads: int) -> Tensor:
    """Attention with a query for each key's field, <z_i W_Q^(ij), z_j W_K^(j)>: (T, B, T D + 2 D) -> (T, B, D).

    The O(F^2 d^2) form that FAT decomposes (section 3.2).
    """
    dots, v = pair_dots(qkv, num_heads)
    return joined(mixed(attention(dots, v.shape[-1], pairs), v, pairs), num_heads)


def pair_dots(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Inner products and values of `pair_attention`: (BH, T, T), (BH, T, D/H)."""
    num_tokens, _, width = qkv.shape
    dim = width // (num_tokens + 2)
    query, key_value = qkv.split([num_tokens * dim, 2 * dim], dim=2)
    k, v = by_head(key_value, 2, num_heads)
    q = by_head(query, num_tokens, num_heads)  # by key, BH, query, D/H
    return (q * k.transpose(0, 1).unsqueeze(2)).sum(-1).permute(1, 2, 0), v


def attention(dots: Tensor, size: int, pairs: Pairs) -> Tensor:
    """alpha in fp32 from the inner products of vectors with `size` entries: (BH, T, T) -> (BH, T, T)."""
    scores = scored(dots.float(), pairs, size)
    if pairs.absent is not None:
        batch, num_tokens = pairs.absent.shape
        by_sample = scores.view(batch, -1, num_tokens, num_tokens)
        scores = by_sample.masked_fill(pairs.absent[:, None, None], float("-inf")).view_as(scores)
    return scores.softmax(-1)


def mixed(alpha: Tensor, v: Tensor, pairs: Pairs) -> Tensor:
    """sum_j alpha_ij v_j, under `post` of w_ij alpha_ij v_j: (BH, T, T), (BH, T, D/H) -> (BH, T, D/H)."""
    kept = times(alpha, pairs.weight) if pairs.modulation == "post" else alpha
    return kept.to(v.dtype) @ v


def scored(dots: Tensor, pairs: Pairs, size: int) -> Tensor:
    """Scores from the inner products of vectors with `size` entries, or their gradients back: it is linear."""
    scale = scale_of(pairs, size)
    if pairs.modulation != "pre":
        return dots * scale
    assert pairs.weight is not None
    return times(dots, pairs.weight * scale)


def scale_of(pairs: Pairs, size: int) -> float:
    """The factor of inner products of vectors with `size` entries."""
    return float(size**-0.5) if pairs.scale is None else pairs.scale


def times(values: Tensor, weight: Tensor | None) -> Tensor:
    """Each head's (T, T) by its table or the common one: (BH, T, T), (1 or H, T, T) -> (BH, T, T)."""
    assert weight is not None
    return values * weight if len(weight) == 1 else (values.unflatten(0, (-1, len(weight))) * weight).flatten(0, 1)


def by_head(tokens: Tensor, count: int, num_heads: int) -> Tensor:
    """(T, B, count D) -> (count, BH, T, D/H). The copy pays: products on strided views are slower than both."""
    split = tokens.unflatten(2, (count, num_heads, -1))  # T,B,count,H,D/H
    return split.permute(2, 1, 3, 0, 4).flatten(1, 2)


def joined(tokens: Tensor, num_heads: int) -> Tensor:
    """(BH, T, D/H) -> (T, B, D)."""
    return tokens.unflatten(0, (-1, num_heads)).permute(2, 0, 1, 3).flatten(2)


class _Attention(torch.autograd.Function):
    """Attention in slices of the batch, computed again in the backward pass: scores and alpha are never whole."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, weight: Tensor | None, pairs: Pairs, num_heads: int) -> Tensor:
        """`weight` is that of `pairs`, named for its gradient."""
        ctx.save_for_backward(qkv)
        ctx.pairs, ctx.num_heads = pairs, num_heads
        out = qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3)
        for rows in slices(qkv, num_heads):
            some = pairs.of(rows)
            q, k, v = by_head(qkv[:, rows], 3, num_heads)
            out[:, rows] = joined(mixed(attention(q @ k.transpose(1, 2), q.shape[-1], some), v, some), num_heads)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (qkv,) = ctx.saved_tensors
        d_qkv, d_weight = torch.empty_like(qkv), None
        for rows in slices(qkv, ctx.num_heads):
            d_q, d_k, d_v, d_part = _gradients(qkv[:, rows], grad[:, rows], ctx.pairs.of(rows), ctx.num_heads)
            d_qkv[:, rows] = torch.cat([joined(d, ctx.num_heads) for d in (d_q, d_k, d_v)], dim=2)
            d_weight = d_part if d_weight is None or d_part is None else d_weight + d_part
        return d_qkv, d_weight, None, None


def _gradients(qkv: Tensor, grad: Tensor, pairs: Pairs, num_heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients with respect to q, k, v, (BH, T, D/H), and the pairs' weight."""
    q, k, v = by_head(qkv, 3, num_heads)
    (g,) = by_head(grad, 1, num_heads)
    dots, size, d_weight = q @ k.transpose(1, 2), q.shape[-1], None
    alpha = attention(dots, size, pairs)
    d_alpha, kept = (g @ v.transpose(1, 2)).float(), alpha
    if pairs.modulation == "post":
        d_weight, kept = _summed(d_alpha * alpha, pairs.weight), times(alpha, pairs.weight)
        d_alpha = times(d_alpha, pairs.weight)
    d_v = kept.to(g.dtype).transpose(1, 2) @ g
    d_scores = torch.ops.aten._softmax_backward_data(d_alpha, alpha, -1, alpha.dtype)
    if pairs.modulation == "pre":
        d_weight = _summed(d_scores * dots, pairs.weight) * scale_of(pairs, size)
    d_dots = scored(d_scores, pairs, size).to(q.dtype)
    return d_dots @ k, d_dots.transpose(1, 2) @ q, d_v, d_weight


def slices(qkv: Tensor, num_heads: int) -> Iterator[slice]:
    """Slices of the batch with about SLICE_SCORES scores."""
    num_tokens, batch, _ = qkv.shape
    step = max(1, SLICE_SCORES[qkv.device.type] // (num_heads * num_tokens**2))
    yield from (slice(start, start + step) for start in range(0, batch, step))


def _summed(values: Tensor, weight: Tensor | None) -> Tensor:
    """The gradient of a table: (BH, T, T) -> (1 or H, T, T)."""
    assert weight is not None
    return values.unflatten(0, (-1, len(weight))).sum(0)

"""Clicks from a teacher with ever smaller effects: more rows and wider models keep finding something, by a known law.

logit(x) = bias + first_order a(x) + pair_strength P(x) + triple_strength T(x)
P(x) = sum over k = 1..K of s_k u_ki(x_i) v_kj(x_j)                with s_k = k^-pair_exponent / norm
T(x) = sum over k = 1..K' of t_k u_ki(x_i) v_kj(x_j) w_kl(x_l)     with t_k = k^-triple_exponent / norm

Fields are independent, each with `vocab_size` values drawn by Zipf: p(c) ~ 1 / (c + 1)^zipf. Every u, v, w is Gaussian
over its field's values, then centred and scaled under p: an effect has variance 1 and shows in none of its fields
alone. The effects of rank k go round the pairs (i, j) of fields, or the triples, in a drawn order, so that each field
needs one direction more for every few ranks; the norms give P and T the variance 1. So does a's, one weight per value.

Why AUC follows a law: who knows the k strongest pairs and not the others lacks the variance sum_{j > k} s_j^2, which
falls as k^(1 - 2 pair_exponent), and AUC and LogLoss lack about as much in proportion. A width bounds how many
directions a model holds, a number of rows how many it can tell from noise. Facts hold what such an oracle reaches.
Rows are drawn in blocks that depend on (seed, block) alone: memory does not grow with rows.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import polars as pl

from fieldctr.config import Between, Count, Positive, Share, Weight
from fieldctr.data.new_rows import NewRows
from fieldctr.data.sources.synthetic import BLOCK, bias_of, draw, in_blocks, sigmoid, zipf_cdf
from fieldctr.data.table import LABEL, PCTR, SPLIT, SPLITS, Table
from fieldctr.errors import UserError
from fieldctr.ranking import counted_auc

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)  # a mean over a standard normal


def read(
    raw_dir: Path,
    *,
    num_rows: Positive,
    num_fields: Annotated[int, Between(3)],
    vocab_size: Annotated[int, Between(2)],
    zipf: Weight,
    seed: Count,
    click_rate: Share,
    first_order: Weight,
    num_pair_effects: Count,
    pair_strength: Weight,
    pair_exponent: float,
    num_triple_effects: Count,
    triple_strength: Weight,
    triple_exponent: float,
    new_rows: NewRows | None = None,
) -> Table:
    """`num_rows` samples, no file needed: the first 80 % train, then 10 % valid, then 10 % test; fields f1, f2, ...

    The strengths are standard deviations of their part of the logit.
    """
    del raw_dir
    if new_rows:
        return Table(new_rows.scan(), (new_rows.path,))
    if click_rate in (0, 1):
        raise UserError(f"dataset.source.click_rate={click_rate} is not allowed: nobody or everybody would click")
    kinds = (
        Kind(2, num_pair_effects, pair_strength, pair_exponent),
        Kind(3, num_triple_effects, triple_strength, triple_exponent),
    )
    teacher = Teacher(np.random.default_rng(seed), num_fields, zipf_cdf(vocab_size, zipf), first_order, kinds)
    pilot = teacher.draw(np.random.default_rng([seed, 0, 0]), BLOCK)
    teacher.bias = bias_of(teacher.logit(pilot), click_rate)
    facts = {
        "planted": [
            {"fields": [f"f{i + 1}" for i in group.fields], "strengths": group.strengths.tolist()}
            for group in teacher.groups
        ],
        "oracle": oracle(teacher, pilot),
    }

    def frame(block: int) -> pl.DataFrame:
        return _frame(teacher, np.random.default_rng([seed, 1, block]), num_rows, block)

    schema: dict[str, pl.DataType] = {f"f{i + 1}": pl.Int64() for i in range(num_fields)}
    schema |= {LABEL: pl.Int8(), SPLIT: pl.String(), PCTR: pl.Float64()}
    return Table(in_blocks(frame, num_rows, schema), facts=facts)


class Kind(NamedTuple):
    """Effects of so many fields each, and how their strengths fall off."""

    order: int  # 2: pairs, 3: triples
    count: int
    strength: float  # standard deviation of their sum
    exponent: float

    def strengths(self) -> np.ndarray:
        """(count,) in the order of their ranks."""
        falling = np.arange(1, self.count + 1) ** -self.exponent
        return self.strength * falling / max(float(np.linalg.norm(falling)), 1e-12)


class Group(NamedTuple):
    """All R effects of one pair or triple of fields."""

    fields: tuple[int, ...]
    strengths: np.ndarray  # (R,)
    factors: tuple[np.ndarray, ...]  # per field (vocab_size, R)

    def parts(self, codes: np.ndarray) -> np.ndarray:
        """What each effect adds to the logit of rows (n, F): (n, R)."""
        first, *others = (factor[codes[:, field]] for field, factor in zip(self.fields, self.factors, strict=True))
        product = first * self.strengths
        for other in others:
            product *= other
        return product


class Teacher:
    """The law of the clicks: all that is drawn once."""

    def __init__(
        self, rng: np.random.Generator, num_fields: int, cdf: np.ndarray, first_order: float, kinds: Sequence[Kind]
    ) -> None:
        self.num_fields, self.cdf, self.bias = num_fields, cdf, 0.0
        self.p = np.diff(cdf, prepend=0.0)
        self.first = first_order / num_fields**0.5 * self._factors(rng, num_fields).T
        self.groups = [group for kind in kinds for group in self._groups(rng, kind)]

    def _factors(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(vocab_size, count) Gaussian columns, of mean 0 and variance 1 under p."""
        drawn = rng.standard_normal((len(self.p), count))
        drawn -= self.p @ drawn
        return drawn / np.sqrt(self.p @ drawn**2)

    def _groups(self, rng: np.random.Generator, kind: Kind) -> Iterator[Group]:
        sets = list(combinations(range(self.num_fields), kind.order))
        strengths = kind.strengths()
        for place, k in enumerate(rng.permutation(len(sets))):
            own = strengths[place :: len(sets)]
            if len(own):
                yield Group(sets[k], own, tuple(self._factors(rng, len(own)) for _ in sets[k]))

    def draw(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """(rows, F) codes of the fields."""
        return draw(rng, self.cdf, rows * self.num_fields).reshape(rows, self.num_fields)

    def first_order(self, codes: np.ndarray) -> np.ndarray:
        """The logit of rows (n, F) as far as one field after the other decides it: (n,)."""
        return self.bias + sum(weights[column] for weights, column in zip(self.first, codes.T, strict=True))

    def logit(self, codes: np.ndarray) -> np.ndarray:
        """(n, F) -> (n,); before the bias was found it is 0."""
        return self.first_order(codes) + sum(group.parts(codes).sum(1) for group in self.groups)


def oracle(teacher: Teacher, codes: np.ndarray) -> list[dict[str, float]]:
    """What is reached by who knows the `effects` strongest effects exactly and averages over the others.

    Expected AUC and LogLoss (nats) over the rows (n, F), and `lacking`, the share of the effects' variance not known.
    """
    strengths = np.concatenate([np.abs(group.strengths) for group in teacher.groups] or [np.zeros(0)])
    rank = np.empty(len(strengths), np.int64)
    rank[np.argsort(-strengths, kind="stable")] = np.arange(len(strengths))
    capacities = np.unique([0, *(2**i for i in range(len(rank).bit_length())), len(rank)])
    # What the capacity next to an effect's rank adds over the one before it; summed up, what each capacity knows.
    step = np.searchsorted(capacities, rank, side="right")
    known = np.zeros((len(codes), len(capacities) + 1))
    known[:, 0] = teacher.first_order(codes)
    start = 0
    for group in teacher.groups:
        own = step[start : start + len(group.strengths)]
        known += group.parts(codes) @ (own[:, None] == np.arange(known.shape[1]))
        start += len(own)
    scores = np.cumsum(known[:, : len(capacities)], axis=1)
    pctr = sigmoid(scores[:, -1])
    rest = np.array([float((strengths[rank >= k] ** 2).sum()) for k in capacities])
    return [
        {
            "effects": int(k),
            "lacking": float(lacking / max(rest[0], 1e-12)),
            "auc": counted_auc(score, pctr, 1 - pctr),
            "logloss": _cross_entropy(pctr, _averaged(score, lacking)),
        }
        for k, score, lacking in zip(capacities, scores.T, rest, strict=True)
    ]


def _averaged(score: np.ndarray, variance: float) -> np.ndarray:
    """Mean click probability of rows whose logit is normal around the score."""
    spread = variance**0.5 * NODES
    return sum(w * sigmoid(score + x) for x, w in zip(spread, WEIGHTS / WEIGHTS.sum(), strict=True))


def _cross_entropy(truth: np.ndarray, said: np.ndarray) -> float:
    return float(-(truth * np.log(said) + (1 - truth) * np.log1p(-said)).mean())


def _frame(teacher: Teacher, rng: np.random.Generator, num_rows: int, block: int) -> pl.DataFrame:
    """A block of rows with what the source adds."""
    position = np.arange(block * BLOCK, min(num_rows, (block + 1) * BLOCK))
    codes = teacher.draw(rng, len(position))
    pctr = sigmoid(teacher.logit(codes))
    cuts = np.searchsorted([num_rows * 8 // 10, num_rows * 9 // 10], position, side="right")
    return pl.DataFrame({f"f{i + 1}": column for i, column in enumerate(codes.T)}).with_columns(
        **{
            LABEL: pl.Series((rng.random(len(pctr)) < pctr).astype(np.int8)),
            SPLIT: pl.Series(SPLITS).gather(cuts),
            PCTR: pl.Series(pctr),
        }
    )

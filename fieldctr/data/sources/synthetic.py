"""Clicks on ads from a known law: each row's true click probability is known, and so is the best possible AUC.

Fields follow the Taobao ad log (https://tianchi.aliyun.com/dataset/56): users with demographics, ads that determine
category, brand, campaign, customer and price, and a context. Draws are Zipf or hierarchical, rows come in time order.

logit = bias + first_order a(x) + pair_strength sum over planted pairs (i, j) of w_ij u_i M_ij u_j + drift t d(x)

a and d sum one weight per feature; u is a latent vector per feature, centred over the field's distribution, so that a
pair's effect shows in no single field; M_ij is a rotation of its own, so that fields, not only features, decide.
Rows are drawn in blocks that depend on (seed, block) alone: memory does not grow with rows.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from fieldctr.config import Count, Positive, Share, Weight
from fieldctr.data.new_rows import NewRows
from fieldctr.data.synthetic_names import Named, Names, named, value_names
from fieldctr.data.table import LABEL, PCTR, SPLIT, SPLITS, Table
from fieldctr.errors import UserError

BLOCK = 1 << 16  # rows
LATENT = 4  # dimensions of u
DAYS = 70  # that the log spans: its last tenth is one week
TEXTS: dict[str, list[str]] = {
    "gender": ["female", "male"],
    "age_level": ["under 18", "18 to 24", "25 to 29", "30 to 34", "35 to 39", "40 to 49", "50 and over"],
    "occupation": ["employed", "student"],
    "city_level": ["first tier", "second tier", "third tier", "fourth tier", "rural"],
    "shopping_level": ["deep user", "moderate user", "shallow user"],
    "consumption_level": ["low", "medium", "high"],
    "pid": ["home page", "search page", "cart page", "detail page"],
    "device": ["android phone", "iphone", "tablet", "desktop"],
    "network": ["wifi", "5g", "4g", "3g"],
    "ad_format": ["banner", "video", "carousel", "text"],
}
DEMOGRAPHICS = ("gender", "age_level", "occupation", "city_level", "shopping_level", "consumption_level")
CONTEXT = ("pid", "device", "network", "ad_format")
AD_PARTS = ("cate_id", "campaign_id", "customer", "brand", "price_level")
FIELDS = ("user_id", *DEMOGRAPHICS, "adgroup_id", *AD_PARTS, "hour", "weekday", *CONTEXT, "referrer", "app_version")
NUMBERS = ("price", "account_age_days")
OTHERS = dict.fromkeys(NUMBERS, pl.Float64()) | {LABEL: pl.Int8(), SPLIT: pl.String(), PCTR: pl.Float64()}
SPARSE = ("user_id", "adgroup_id", "campaign_id", "customer")  # too rare to learn a pair of: never planted


def read(
    raw_dir: Path,
    *,
    rows: Positive,
    seed: Count,
    users: Positive,
    ads: Positive,
    base_rate: Share,
    first_order: Weight,
    num_pairs: Count,
    pair_strength: Weight,
    drift: Weight,
    numeric: Weight,
    names: Names = "plain",
    new_rows: NewRows | None = None,
) -> Table:
    """A log of `rows` samples, no file needed: the first 80 % train, then 10 % valid, then 10 % test.

    `base_rate` is the click rate; the strengths are standard deviations of their part of the logit (`drift`: of its
    change from the first row to the last). `numeric` is the strength of price and account age, always columns.
    Of other `names` than plain, those of synthetic_names, the rows are the same but for the names of their values.
    """
    del raw_dir
    if new_rows:
        return Table(new_rows.scan(), (new_rows.path,))
    planted = [name for name in FIELDS if name not in SPARSE]
    if num_pairs > len(planted) * (len(planted) - 1) // 2:
        raise UserError(f"dataset.source.num_pairs={num_pairs} is not possible with {len(planted)} fields to pair")
    if base_rate in (0, 1):
        raise UserError(f"dataset.source.base_rate={base_rate} is not allowed: nobody or everybody would click")
    strengths = Strengths(first_order, pair_strength, drift, numeric)
    world = World(np.random.default_rng(seed), users, ads, num_pairs, strengths)
    world.settle(world.draw(np.random.default_rng([seed, 0, 0]), np.linspace(0, 1, BLOCK)), base_rate)
    facts = {"planted": [{"fields": [i, j], "strength": w * pair_strength} for i, j, w in world.pairs]}
    told = None if names == "plain" else named(names, FIELDS, [(i, j) for i, j, _ in world.pairs], seed=seed)
    values = {name: _values(name, world.sizes[name], told) for name in FIELDS}
    schema = {name: series.dtype for name, series in values.items()} | OTHERS
    frame = in_blocks(partial(_frame, world, values, rows, seed), rows, schema)
    return Table(frame, facts=facts, texts=told.texts if told else {})


class Strengths(NamedTuple):
    """Standard deviations of the parts of the logit."""

    first_order: float
    pairs: float
    drift: float
    numeric: float


class Block(NamedTuple):
    """Rows as codes, before they get names."""

    codes: dict[str, np.ndarray]  # per field (n,) int64
    price: np.ndarray  # (n,) log, standardised
    age: np.ndarray  # (n,) log account age, standardised
    time: np.ndarray  # (n,) 0 at the first row of the log, 1 at the last


class World:
    """Users, ads, their attributes and the law of the clicks: all that is drawn once."""

    def __init__(self, rng: np.random.Generator, users: int, ads: int, num_pairs: int, strengths: Strengths) -> None:
        self.strengths, self.bias = strengths, 0.0
        self.scale = {"first": 1.0, "pairs": 1.0, "change": 1.0}
        sizes = dict(
            zip(AD_PARTS, (max(2, ads // 40), max(2, ads // 2), max(2, ads // 4), max(2, ads // 10), 10), strict=True)
        )
        self.sizes = {name: len(texts) for name, texts in TEXTS.items()}
        self.sizes |= {
            "user_id": users,
            "adgroup_id": ads,
            "hour": 24,
            "weekday": 7,
            "referrer": 50,
            "app_version": 30,
        } | sizes
        self.cdf = {name: zipf_cdf(self.sizes[name], 1.0) for name in FIELDS} | {"user_id": zipf_cdf(users, 0.6)}
        self.users = {name: draw(rng, self.cdf[name], users) for name in DEMOGRAPHICS}
        self.log_age = rng.standard_normal(users)
        self.ads, self.log_price = self._ads(rng, ads)
        self.first = {name: rng.standard_normal(self.sizes[name]) for name in FIELDS}
        self.change = {name: rng.standard_normal(self.sizes[name]) for name in ("cate_id", "brand", "referrer")}
        self.latent = {name: rng.standard_normal((self.sizes[name], LATENT)) for name in FIELDS if name not in SPARSE}
        self.pairs = self._graph(rng, num_pairs)
        self.rotations = [np.linalg.qr(rng.standard_normal((LATENT, LATENT)))[0] for _ in self.pairs]

    def _ads(self, rng: np.random.Generator, ads: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """An ad has a campaign, which has a customer, which has a brand; its price depends on its category."""
        campaign = draw(rng, self.cdf["campaign_id"], ads)
        customer = draw(rng, self.cdf["customer"], self.sizes["campaign_id"])[campaign]
        brand = draw(rng, self.cdf["brand"], self.sizes["customer"])[customer]
        cate = draw(rng, self.cdf["cate_id"], ads)
        price = rng.standard_normal(self.sizes["cate_id"])[cate] * 0.8 + rng.standard_normal(ads) * 0.6
        level = np.argsort(np.argsort(price)) * self.sizes["price_level"] // ads
        return dict(zip(AD_PARTS, (cate, campaign, customer, brand, level), strict=True)), price

    def _graph(self, rng: np.random.Generator, num_pairs: int) -> list[tuple[str, str, float]]:
        names = [name for name in FIELDS if name not in SPARSE]
        every = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        weights = 0.85 ** np.arange(num_pairs)
        weights /= max(float(np.linalg.norm(weights)), 1e-12)
        chosen = rng.choice(len(every), num_pairs, replace=False)
        return [(*every[k], float(w)) for k, w in zip(chosen, weights, strict=True)]

    def draw(self, rng: np.random.Generator, time: np.ndarray) -> Block:
        """One row per entry of `time`."""
        rows = len(time)
        user, ad = draw(rng, self.cdf["user_id"], rows), draw(rng, self.cdf["adgroup_id"], rows)
        codes = {"user_id": user, "adgroup_id": ad}
        codes |= {name: parts[user] for name, parts in self.users.items()}
        codes |= {name: parts[ad] for name, parts in self.ads.items()}
        codes |= {name: draw(rng, self.cdf[name], rows) for name in (*CONTEXT, "referrer", "app_version")}
        hours = np.minimum((time * DAYS * 24).astype(np.int64), DAYS * 24 - 1)
        codes |= {"hour": hours % 24, "weekday": hours // 24 % 7}
        return Block(codes, self.log_price[ad], self.log_age[user], time)

    def settle(self, pilot: Block, base_rate: float) -> None:
        """Centre the latent vectors, scale every part of the logit to its strength and find the bias of `base_rate`."""
        for name, vectors in self.latent.items():
            seen = vectors[pilot.codes[name]]
            self.latent[name] = ((vectors - seen.mean(0)) / (seen.std() or 1.0)).astype(np.float32)
        for part in self.scale:
            self.scale[part] = 1.0 / max(float(self._part(part, pilot).std()), 1e-12)
        self.bias = bias_of(self.logit(pilot), base_rate)

    def _part(self, part: str, block: Block) -> np.ndarray:
        total = np.zeros(len(block.time))
        if part == "pairs":
            for (a, b, weight), rotation in zip(self.pairs, self.rotations, strict=True):
                left = (self.latent[a] @ (weight * rotation)).astype(np.float32)[block.codes[a]]
                total += np.einsum("nk,nk->n", left, self.latent[b][block.codes[b]])
            return total * self.scale[part]
        for name, weight in (self.first if part == "first" else self.change).items():
            total += weight[block.codes[name]]
        return total * self.scale[part]

    def logit(self, block: Block) -> np.ndarray:
        """(n,) before the bias was found it is 0."""
        s = self.strengths
        logit = self.bias + s.first_order * self._part("first", block) + s.pairs * self._part("pairs", block)
        if s.drift:
            logit += s.drift * block.time * self._part("change", block)
        return logit + s.numeric * (np.tanh(block.age) - block.price * np.abs(block.price) / 2)


def zipf_cdf(size: int, exponent: float) -> np.ndarray:
    """Cumulative probabilities of 0..size-1 under p(k) ~ 1 / (k + 1)^exponent."""
    p = np.arange(1, size + 1) ** -exponent
    return np.cumsum(p) / p.sum()


def draw(rng: np.random.Generator, cdf: np.ndarray, rows: int) -> np.ndarray:
    """(rows,) int64 drawn from the distribution."""
    return np.minimum(np.searchsorted(cdf, rng.random(rows), side="right"), len(cdf) - 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def bias_of(logit: np.ndarray, rate: float) -> float:
    """What to add to the logits (n,) for this mean probability."""
    low, high = -30.0, 30.0
    for _ in range(60):
        bias = (low + high) / 2
        low, high = (low, bias) if sigmoid(logit + bias).mean() > rate else (bias, high)
    return bias


def in_blocks(frame_of: Callable[[int], pl.DataFrame], rows: int, schema: dict[str, pl.DataType]) -> pl.LazyFrame:
    """Rows that `frame_of` makes, BLOCK at a time; polars asks for columns, filter and limit as it wishes."""

    def blocks(
        columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        last = rows if limit is None else min(rows, limit)
        for block, start in enumerate(range(0, last, BLOCK)):
            frame = frame_of(block)[: last - start]
            frame = frame if columns is None else frame.select(columns)
            yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(blocks, schema=schema)


def _frame(world: World, values: Mapping[str, pl.Series], rows: int, seed: int, block: int) -> pl.DataFrame:
    """A block of rows as a reader of a log would see them, with what the source adds."""
    rng = np.random.default_rng([seed, 1, block])
    position = np.arange(block * BLOCK, min(rows, (block + 1) * BLOCK))
    drawn = world.draw(rng, position / max(rows - 1, 1))
    pctr = sigmoid(world.logit(drawn))
    cuts = np.searchsorted([rows * 8 // 10, rows * 9 // 10], position, side="right")
    columns = {name: values[name].gather(drawn.codes[name]) for name in FIELDS}
    return pl.DataFrame(columns).with_columns(
        price=pl.Series(np.round(20 * np.exp(drawn.price), 2)),
        account_age_days=pl.Series(np.round(400 * np.exp(drawn.age))),
        **{
            LABEL: pl.Series((rng.random(len(pctr)) < pctr).astype(np.int8)),
            SPLIT: pl.Series(SPLITS).gather(cuts),
            PCTR: pl.Series(pctr),
        },
    )


def _values(name: str, size: int, told: Named | None) -> pl.Series:
    """What each code of the field is called."""
    plain = TEXTS.get(name)
    if told is None:
        return pl.Series(range(size) if plain is None else plain)
    return pl.Series(value_names(plain or [str(code) for code in range(size)], told.words[name]))

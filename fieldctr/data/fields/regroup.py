"""Other ways to cut the same columns into fields: does a model's result depend on how its schema was drawn?

merge    fields in groups of `size` become their cross: fewer fields that each know more
split    a field becomes `size` fields by a hash of its value, missing where the value is another one's: more fields
shuffle  fields exchange their names, texts and places: nothing that a model without names can notice but its seed
Field specs in, field specs out: the rest of the house sees a schema like any other, and so does `predict`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from fieldctr.config import Between
from fieldctr.data.fields.kinds import FieldSpec, Spec, derived_specs, raw_specs
from fieldctr.errors import UserError, listing, nearest


@dataclass(frozen=True)
class Regrouping:
    """How to cut the columns into other fields. Node `schema`."""

    change: Literal["merge", "split", "shuffle"]
    fields: list[str] | None  # which; null: all categorical ones with a table of their own (shuffle: all of any kind)
    size: Annotated[int, Between(2)] | None  # fields per group (merge), or parts per field (split)
    seed: Annotated[int, Between(0, 2**32 - 1)]  # which fields meet (merge, shuffle)


def regrouped(specs: tuple[Spec, ...], how: Regrouping) -> tuple[Spec, ...]:
    """The specs of the other schema; statistics and histories stay what they are, of the values that they were of.

    UserError names a field that does not exist or cannot be changed so.
    """
    fields, derived = raw_specs(specs), derived_specs(specs)
    chosen, size = _chosen(fields, {spec.shares for spec in specs}, how), how.size or 1
    if how.change == "split":
        parts = [_parts(spec, size) if spec in chosen else [spec] for spec in fields]
        return (*(part for one in parts for part in one), *derived)
    drawn = [chosen[i] for i in np.random.default_rng(how.seed).permutation(len(chosen))]
    if how.change == "merge":
        groups = [drawn[i : i + size] for i in range(0, len(drawn), size)]
        groups = [group for group in groups if len(group) > 1]
        alone = [spec for spec in fields if not any(spec in group for group in groups)]
        return (*alone, *map(_cross, groups), *derived)
    names = {content.name: spec.name for spec, content in zip(chosen, drawn, strict=True)}  # where a content went
    content = {spec.name: content for spec, content in zip(chosen, drawn, strict=True)}
    swapped = [
        replace(content.get(spec.name, spec), name=spec.name, text=spec.text, synonym=spec.synonym) for spec in fields
    ]
    swapped = [replace(one, shares=names.get(one.shares, one.shares)) for one in swapped]
    return (*swapped, *(spec.renamed(names) for spec in derived))


def _chosen(fields: Sequence[FieldSpec], owners: set[str], how: Regrouping) -> list[FieldSpec]:
    if how.fields is None:
        free = (spec for spec in fields if spec.kind == "categorical" and not _with_others(spec, owners))
        return list(fields if how.change == "shuffle" else free)
    known = {spec.name: spec for spec in fields}
    for name in how.fields:
        if name not in known:
            raise UserError(f"schema.fields: no field '{name}'. {nearest(name, known)}{listing(known)}")
        if how.change != "shuffle" and known[name].kind != "categorical":
            raise UserError(
                f"schema.fields: '{name}' is of kind {known[name].kind}; {how.change} needs categorical fields"
            )
        if how.change != "shuffle" and _with_others(known[name], owners):
            raise UserError(f"schema.fields: '{name}' has a history or another field in its table: leave it out")
    return [spec for spec in fields if spec.name in how.fields]


def _with_others(spec: FieldSpec, owners: set[str]) -> bool:
    """Whether another field has the same vocabulary."""
    return bool(spec.shares) or spec.name in owners


def _parts(spec: FieldSpec, count: int) -> list[FieldSpec]:
    return [replace(spec, name=f"{spec.name}/{i + 1}", bucket=i, buckets=count) for i in range(count)]


def _cross(group: Sequence[FieldSpec]) -> FieldSpec:
    return FieldSpec(
        " x ".join(spec.name for spec in group),
        column=group[0].column,
        columns=tuple(spec.column for spec in group),
        kind="cross",
        num_buckets=max((spec.num_buckets or 0 for spec in group), default=0) or None,
        min_count=max(spec.min_count for spec in group),
        text=" and ".join(spec.text for spec in group if spec.text),
        synonym=" and ".join(spec.synonym for spec in group if spec.synonym),
    )

"""How many parameters a model has, by formula: as the boards' code built it, and as it is built here.

Source: parameter counts in BARS-CTR's logs (FuxiCTR 1 and 2), which these formulas give exactly.
Differs: FwFM here has a first-order term linear in the embeddings (filv), the boards' one weight (scalar) or one vector
(felv) for each feature; FmFM here has no bias. What a table's rows are, `fieldctr.analysis.parity.protocol` says.
"""

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from fieldctr.analysis.parity.protocol import Count, Protocol
from fieldctr.schema import Schema

HERE = {"fwfm": "filv", "fmfm": "matrix without bias"}  # forms that differ from all of the boards'


class Tables(NamedTuple):
    """The sizes that a table of features decides."""

    rows: int  # of the feature embeddings
    first_order: int  # first-order weights: histories share embeddings with their items, not these
    fields: int


def board_parameters(protocol: Protocol, count: Count) -> int:
    """What the record's log must have said."""
    sizes = {name: 1 if size is None else size - 1 + count.padding for name, size in protocol.vocab_size.items()}
    rows = sum(size for name, size in sizes.items() if name not in protocol.shared)
    return num_parameters(count, Tables(rows, sum(sizes.values()), len(sizes)))


def parameters_here(schema: Schema, count: Count) -> int:
    """What the model of the same settings must have here."""
    tables = Tables(schema.vocab_size, schema.unshared().vocab_size, schema.num_fields)
    return num_parameters(replace(count, form=HERE.get(count.model, "")), tables)


def num_parameters(count: Count, tables: Tables) -> int:
    """The formula of `count.model` in `count.form`."""
    rows, dim, fields = tables.rows, count.dim, tables.fields
    pairs, width = fields * (fields - 1) // 2, fields * count.dim
    linear = tables.first_order + 1
    fm = linear + dim * rows
    hidden = _hidden(width, count)
    last = [width, *count.hidden_dims][-1]
    formulas = {
        ("lr", ""): linear,
        ("fm", ""): fm,
        ("fwfm", "scalar"): fm + pairs,
        ("fwfm", "felv"): 2 * dim * rows + pairs + 1,
        ("fwfm", "filv"): dim * rows + width + 1 + pairs,
        ("fmfm", "matrix"): fm + pairs * dim**2,
        ("fmfm", "vector"): fm + pairs * dim,
        ("fmfm", "matrix without bias"): fm - 1 + pairs * dim**2,
        ("deepfm", ""): fm - 1 + hidden + last + 1,
        ("dcnv2", ""): dim * rows + hidden + count.num_layers * (width**2 + width) + width + last + 1,
    }
    return formulas[count.model, count.form]


def _hidden(width: int, count: Count) -> int:
    """A network's hidden layers: weights, biases and, with batch norm, a scale and a shift for each unit."""
    per_unit = 3 if count.batch_norm else 1
    return sum((before + per_unit) * units for before, units in pairwise([width, *count.hidden_dims]))

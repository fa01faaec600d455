"""What a field reads of a row, as polars expressions; lists are in fieldctr.data.shards.lists.

log_square: Juan et al., "Field-aware Factorization Machines for CTR Prediction", RecSys 2016 (the authors' winning
Criteo recipe), as used by most published Criteo preparations.
"""

from collections.abc import Callable, Mapping

import polars as pl

from fieldctr.data.columns import column
from fieldctr.data.fields.kinds import FieldSpec
from fieldctr.data.fields.spelling import by_word, canonical, spelled, squared_logs, told_number, value_texts
from fieldctr.data.fields.times import moment
from fieldctr.data.hashing import hashed
from fieldctr.errors import UserError

AND = " & "  # between the parts of a cross


def values(spec: FieldSpec, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """The field's value per row: text, or a number (quantile, value); null where missing. For lists see data.lists.

    A number is as `fieldctr.data.fields.spelling.told_number` gives it, a text as `meaning` makes a value of it.
    """
    for name in spec.reads:
        if isinstance(schema[name], pl.List | pl.Array | pl.Struct | pl.Binary):
            raise UserError(f"field '{spec.name}': column '{name}' holds {schema[name]}. A list needs kind: multi.")
    if spec.kind == "cross":
        return _crossed(spec, schema)
    dtype = schema[spec.column]
    if spec.kind in ("categorical", "log_square"):
        return spelled(column(spec.column), dtype) if spec.buckets == 1 else _of_bucket(spec, dtype)
    if spec.kind == "datetime":
        return _datetime_part(spec, dtype)
    return told_number(column(spec.column), dtype, null_words=spec.null_words)


def meaning(spec: FieldSpec) -> Callable[[pl.Expr], pl.Expr]:
    """What becomes of the texts that `values` gives: computed once per distinct text, 10x the speed of once per row.

    Null where a text means that there is no value.
    """

    def known(texts: pl.Expr) -> pl.Expr:
        spell = squared_logs if spec.kind == "log_square" else canonical
        one = spell(texts, null_words=spec.null_words)
        return pl.when(one != spec.missing).then(one) if spec.missing else one

    return known


def _crossed(spec: FieldSpec, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """Null where a part is: a blank is nobody, alone or in company."""
    texts = [value_texts(column(name), schema[name], null_words=spec.null_words) for name in spec.columns]
    return pl.concat_str(texts, separator=AND)


def _of_bucket(spec: FieldSpec, dtype: pl.DataType) -> pl.Expr:
    texts = value_texts(column(spec.column), dtype, null_words=spec.null_words)
    bucket = by_word(lambda known: (hashed(known) % spec.buckets).astype("int64").tolist(), pl.Int64())
    own = texts.map_batches(bucket, return_dtype=pl.Int64, is_elementwise=True)
    return pl.when(own == spec.bucket).then(texts)


def _datetime_part(spec: FieldSpec, dtype: pl.DataType) -> pl.Expr:
    when = moment(spec.column, dtype, spec.unit).dt
    if spec.part == "is_weekend":
        return (when.weekday() > 5).cast(pl.Int8).cast(pl.String)
    return getattr(when, spec.part)().cast(pl.String)

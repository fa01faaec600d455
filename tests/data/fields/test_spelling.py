"""A value has one spelling, whatever the file, the type or the YAML that holds it."""

import math
import random
from decimal import Decimal

import polars as pl
import pytest
import yaml

from fieldctr.data.fields.spelling import (
    NOT_FINITE,
    NULL_WORD,
    NULL_WORDS,
    canonical_series,
    meant,
    number,
    spelled,
    text_of,
    told_number,
    value_texts,
)


def canonical(*texts: str | None) -> list[str | None]:
    return canonical_series(pl.Series(texts, dtype=pl.String)).to_list()


def cells(values: list, dtype: pl.DataType) -> list[str | None]:
    column = pl.Series("x", values, dtype=dtype, strict=False)
    return column.to_frame().select(value_texts(pl.col("x"), column.dtype)).to_series().to_list()


def naive(number: Decimal) -> str:
    """Digits by hand: no exponent, no zeros at the end, no -0."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_number_is_one_value_however_it_is_written(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        digits = draw.randrange(-(10 ** draw.randrange(1, 9)), 10 ** draw.randrange(1, 9))
        value = Decimal(digits).scaleb(-draw.randrange(0, 7))
        plain = naive(value)
        written = {plain, format(value, "f"), format(value, ".9f"), repr(float(value)), f"{float(value):.15e}"}
        assert set(canonical(*written)) == {plain}, written
        assert text_of(float(value)) == text_of(plain) == plain
        assert cells([float(value)], pl.Float64()) == [plain]
        assert cells([value], pl.Decimal(30, 9)) == [plain]
        assert text_of(yaml.safe_load(plain)) == plain


@pytest.mark.parametrize(
    "text", ["007", "12e45678", "1E5", "2e10", "1.2.3", "+1", "1e999", "0x10", "1_000", "-", "e", ""]
)
def test_a_text_that_no_program_writes_for_a_number_stays(text: str) -> None:
    assert canonical(text) == [text]


def test_booleans_are_alike_in_texts_types_and_yaml() -> None:
    assert canonical("True", "TRUE", "true", "False", "FALSE", "false") == ["true"] * 3 + ["false"] * 3
    assert cells([True, False, None], pl.Boolean()) == ["true", "false", None]
    assert text_of(True) in meant(True)
    for word in ("yes", "Yes", "YES", "true", "True", "on", "ON"):
        assert canonical(word)[0] in meant(yaml.safe_load(word)), "what YAML takes for true means the word too"
    assert set(meant(True)).isdisjoint(meant(False))


def test_categories_and_small_floats_are_spelled_as_texts() -> None:
    assert cells(["1.0", "a", None, ""], pl.Categorical()) == ["1", "a", None, None]
    assert cells([0.1, 1e-7, 16777216.0], pl.Float32()) == ["0.1", "0.0000001", "16777216"]
    assert cells([2**53 + 1, -1], pl.Int64()) == ["9007199254740993", "-1"]


@pytest.mark.parametrize("word", NULL_WORDS)
def test_a_word_for_no_value_is_missing_in_texts_and_in_numbers_alike(word: str) -> None:
    frame = pl.DataFrame({"x": [word, "1"]})
    assert frame.select(value_texts(pl.col("x"), pl.String()))["x"].to_list() == [None, "1"]
    assert frame.select(value_texts(pl.col("x"), pl.String(), null_words=False))["x"][0] is not None
    assert frame.select(told_number(pl.col("x"), pl.String())).to_series().to_list() == [NULL_WORD, 1.0]
    assert frame.select(number(pl.col("x"), pl.String())).to_series().to_list() == [None, 1.0]


def test_a_number_is_read_or_told_why_it_is_missing() -> None:
    texts = ["1", " 2.5 ", "", " ", None, "inf", "-Infinity", "1e39", "-1e300", "True", "false", "1e-5"]
    told = [1, 2.5, None, None, None, *[NOT_FINITE] * 4, 1, 0, 1e-5]
    assert pl.DataFrame({"x": texts}).select(told_number(pl.col("x"), pl.String())).to_series().to_list() == told
    typed = pl.DataFrame({"x": [1.0, math.inf, -math.inf, math.nan, 1e39, None]})
    expected = [1, NOT_FINITE, NOT_FINITE, None, NOT_FINITE, None]
    assert typed.select(told_number(pl.col("x"), pl.Float64())).to_series().to_list() == expected
    with pytest.raises(pl.exceptions.PolarsError, match="cheap"):
        pl.DataFrame({"x": ["1", "cheap"]}).select(number(pl.col("x"), pl.String()))


def test_whole_floats_lose_their_point_before_they_are_canonical() -> None:
    frame = pl.DataFrame({"x": [3.0, 0.5, -0.0, math.nan, None]})
    assert frame.select(spelled(pl.col("x"), pl.Float64()))["x"].to_list() == ["3", "0.5", "0", None, None]

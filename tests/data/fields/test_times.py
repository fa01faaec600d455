"""Moments: ISO texts in their forms, and numbers that can be none."""

import random
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from fieldctr.data.fields.times import TICKS, moment
from fieldctr.errors import UserError


def moments(values: list, unit: str) -> list[datetime | None]:
    frame = pl.LazyFrame({"t": values})
    return frame.select(moment("t", frame.collect_schema()["t"], unit).alias("m")).collect()["m"].to_list()


def in_utc(when: datetime) -> datetime:
    return when.astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize("seed", range(5))
def test_iso_texts_of_all_forms_stand_in_one_column(seed: int) -> None:
    draw, texts, expected = random.Random(seed), [], []
    for _ in range(200):
        when = datetime(1999, 1, 1) + timedelta(seconds=draw.randrange(10**9), microseconds=draw.randrange(10**6))
        zone = timezone(timedelta(minutes=draw.choice([-600, -210, 0, 60, 345, 720])))
        plain, zoned = when.replace(microsecond=0), when.replace(tzinfo=zone)
        day = when.replace(hour=0, minute=0, second=0, microsecond=0)
        forms = [
            (when.isoformat(), when), (plain.isoformat(sep=" "), plain), (plain.isoformat() + "Z", plain),
            (zoned.isoformat(), in_utc(zoned)), (zoned.strftime("%Y-%m-%dT%H:%M:%S.%f%z"), in_utc(zoned)),
            (f" {day.date().isoformat()} ", day), (plain.strftime("%Y-%m-%d %H:%M"), plain.replace(second=0)),
            ("", None), ("nan", None), ("NULL", None),
        ]  # fmt: skip
        text, moment_ = draw.choice(forms)
        texts.append(text)
        expected.append(moment_)
    assert moments(texts, "iso") == expected


@pytest.mark.parametrize("text", ["2024-13-01", "soon", "2024-01-01T25:00", "01/02/2024", "20240101"])
def test_what_is_no_iso_text_is_refused(text: str) -> None:
    with pytest.raises(pl.exceptions.PolarsError, match="conversion"):
        moments(["2024-01-01", text], "iso")


@pytest.mark.parametrize("unit", TICKS)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_number_in_its_unit_is_a_moment(unit: str, as_text: bool) -> None:
    number = round(1_700_000_000e6 / TICKS[unit])
    assert moments([str(number) if as_text else number], unit) == [datetime(2023, 11, 14, 22, 13, 20)]


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("likely", ["s", "ms", "us", "ns"])
def test_a_number_in_another_unit_is_named_with_the_likely_one(unit: str, likely: str) -> None:
    if TICKS[likely] >= TICKS[unit]:  # a finer unit makes of it an early moment, which can be true
        pytest.skip("not outside 1970 to 2100")
    with pytest.raises(UserError, match=rf"'t': .* in unit {unit}\. It is one in {likely}"):
        moments([round(1_700_000_000e6 / TICKS[likely])], unit)


def test_a_number_before_1970_is_named() -> None:
    with pytest.raises(UserError, match="-5 is no time between 1970 and 2100"):
        moments([-5], "s")


def test_a_format_reads_its_zone() -> None:
    assert moments(["01.02.2024 10:00 +0200"], "%d.%m.%Y %H:%M %z") == [datetime(2024, 2, 1, 8)]
    assert moments(["2024-02-01 10"], "%Y-%m-%d %H") == [datetime(2024, 2, 1, 10)]

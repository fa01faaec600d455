"""Quotes in delimited text: whether each encloses a cell, and where one does not."""

import numpy as np

from fieldctr.data.reading import Reading


def cure_of_quotes(reading: Reading) -> str:
    """What to do about quotes that do not enclose cells."""
    if reading.quote == "none":
        return "Nothing was written."
    return (
        "Where quotes are part of the text set quote: none; where a backslash escapes them, quote: backslash. "
        "Nothing was written."
    )


def encloses(text: bytes, separator: bytes, open_end: bool) -> bool:
    """Whether every quote begins or ends a cell, or is doubled."""
    begins, ends, odd = enclosing(text, separator, b'"')
    return bool(begins.all() and ends.all()) and (open_end or not odd)


def enclosing(text: bytes, separator: bytes, quote: bytes) -> tuple[np.ndarray, np.ndarray, bool]:
    """Which quotes that open stand at a cell's begin, which that close at its end; whether one is left over."""
    letters = np.frombuffer(b"\n" + text + b"\n", np.uint8)
    at = np.flatnonzero(letters == ord(quote))
    before, after = letters[at[::2] - 1], letters[at[1::2] + 1]
    borders = [ord(separator), ord("\n"), ord(quote)]
    return np.isin(before, borders), np.isin(after, [*borders, ord("\r")]), len(at) % 2 == 1


def misplaced(text: bytes, separator: bytes, quote: bytes, *, harmful: bool) -> int | None:
    """Where the first quote opens that does not enclose a cell.

    With `harmful`, that changes what is read: it closes within a cell, or opens in one and goes on behind its end.
    """
    begins, ends, odd = enclosing(text, separator, quote)
    letters = np.frombuffer(text, np.uint8)
    places = np.flatnonzero(letters == ord(quote))
    begins = begins[: len(ends)]
    bad = ~(begins & ends)
    if harmful:
        borders = np.flatnonzero((letters == ord(separator)) | (letters == ord("\n")))
        before = np.searchsorted(borders, places)
        bad &= begins | (before[::2][: len(ends)] != before[1::2])
    if not bad.any() and not odd:
        return None
    place = 2 * int(bad.argmax()) if bad.any() else len(places) - 1
    while place >= 2 and places[place] == places[place - 1] + 1:  # the second of two that stand for one
        place -= 2
    return int(places[place])

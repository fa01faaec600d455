"""Token ids of many texts, four bytes each.

A tokenizer's own answer takes 240 bytes a token: Python's numbers, a mask, and where each token lies in its text. A
million rows of 47 tokens would fill 11 GB; here they take 0.2.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np

AT_A_TIME = 4096  # texts that are in the tokenizer's own form at once


@dataclass(frozen=True)
class Tokens:
    """By text its token ids; those that the window did not hold are gone."""

    ids: np.ndarray  # of all texts, one behind the other
    ends: np.ndarray  # (texts,)
    cut: int  # texts that were longer than the window

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each text (texts,)."""
        return np.diff(self.ends, prepend=0)

    def of(self, texts: Iterable[int]) -> list[list[int]]:
        """The ids of the texts at these positions."""
        return [self.ids[self.ends[i - 1] if i else 0 : self.ends[i]].tolist() for i in texts]


def tokens_of(
    tokenizer: Any,
    texts: Sequence[str],
    window: int,
    *,
    keep: Literal["beginning", "end"] = "beginning",
    special: bool = True,
) -> Tokens:
    """The tokens of each text, at most `window`; `special` adds the model's own at its ends."""
    ids, sizes, cut = [np.empty(0, np.int32)], [np.empty(0, np.int64)], 0
    for start in range(0, len(texts), AT_A_TIME):
        some = list(texts[start : start + AT_A_TIME])
        found = tokenizer(some, add_special_tokens=special, verbose=False)["input_ids"]
        held = [each[:window] if keep == "beginning" else each[-window:] for each in found]
        ids.append(np.fromiter(chain.from_iterable(held), np.int32))
        sizes.append(np.array([len(each) for each in held]))
        cut += sum(len(each) > window for each in found)
    return Tokens(np.concatenate(ids), np.concatenate(sizes).cumsum(), cut)


def by_length(sizes: Iterable[int], micro_batch: int) -> Iterator[list[int]]:
    """Positions of texts of so many tokens, `micro_batch` at a time, short ones together: less padding."""
    order = np.argsort(np.fromiter(sizes, np.int64), kind="stable").tolist()
    return (order[at : at + micro_batch] for at in range(0, len(order), micro_batch))

"""Token ids of many texts against the tokenizer's own lists, and batches of equal length."""

import random

import numpy as np
import pytest

from fieldctr.llm import tokens
from fieldctr.llm.tokens import by_length, tokens_of


class Letters:
    """A tokenizer: a token for each letter, one of its own at either end."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, texts: list[str], *, add_special_tokens: bool, verbose: bool) -> dict[str, list[list[int]]]:
        self.most = max(self.most, len(texts))
        ends = [1] if add_special_tokens else []
        return {"input_ids": [[*ends, *map(ord, text), *ends] for text in texts]}


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("keep", ["beginning", "end"])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 11])
def test_ids_are_those_of_each_text_alone(
    count: int, keep: str, special: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "AT_A_TIME", 3)
    draw, tokenizer = random.Random(count), Letters()
    texts = ["".join(draw.choices("abcdé漢", k=draw.randrange(9))) for _ in range(count)]
    found = tokens_of(tokenizer, texts, 5, keep=keep, special=special)  # ty: ignore[invalid-argument-type]
    whole = Letters()(texts, add_special_tokens=special, verbose=False)["input_ids"]
    expected = [ids[:5] if keep == "beginning" else ids[-5:] for ids in whole]
    order = draw.sample(range(count), count)
    assert found.of(order) == [expected[i] for i in order]
    assert found.sizes.tolist() == [len(ids) for ids in expected]
    assert found.cut == sum(len(ids) > 5 for ids in whole)
    assert found.ids.nbytes == 4 * sum(map(len, expected))
    assert tokenizer.most <= 3


def test_batches_by_length_hold_every_text_once_and_short_ones_first() -> None:
    sizes = np.random.default_rng(1).integers(0, 9, 50)
    batches = list(by_length(sizes, 7))
    assert sorted(i for batch in batches for i in batch) == list(range(50))
    assert [len(batch) for batch in batches] == [7] * 7 + [1]
    ordered = [sizes[i] for batch in batches for i in batch]
    assert ordered == sorted(ordered)
    assert batches == list(by_length(map(int, sizes), 7))

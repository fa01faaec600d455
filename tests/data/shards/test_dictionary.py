"""Texts to codes to ids, one chunk at a time, and shards to one table."""

import random
from collections import Counter

import numpy as np
import polars as pl
import pytest

from fieldctr.data.shards import dictionary as module
from fieldctr.data.shards.dictionary import Dictionary, ids_of_texts, merge_texts, rank_texts


def coded(dictionary: Dictionary, texts: list[str | None]) -> list[int]:
    codes = dictionary.code(pl.Series(texts, dtype=pl.String))
    dictionary.count(0, codes)
    return codes.tolist()


def test_codes_go_on_from_chunk_to_chunk() -> None:
    dictionary = Dictionary()
    assert coded(dictionary, ["a", "b", None, "a"]) == [1, 2, 0, 1]
    assert coded(dictionary, ["c", "b", None, ""]) == [3, 2, 0, 0]
    assert dictionary.texts().to_list() == [None, "a", "b", "c"]


def test_two_dictionaries_do_not_mix() -> None:
    one, other = Dictionary(), Dictionary()
    assert coded(one, ["x", "y"]) == [1, 2]
    assert coded(other, ["y"]) == [1]
    assert other.texts().to_list() == [None, "y"]


@pytest.mark.parametrize("sparse", [1, 4])
def test_codes_are_those_of_a_plain_dict(monkeypatch: pytest.MonkeyPatch, sparse: int) -> None:
    """Also where the hash table is as full as can be, so that texts stand far behind their places, and grows often."""
    monkeypatch.setattr(module, "FIRST_SLOTS", 4)
    monkeypatch.setattr(module, "SPARSE", sparse)
    draw, dictionary, known = random.Random(1), Dictionary(), {"": 0}
    cells: list[str | None] = []
    for _ in range(20):
        texts = [draw.choice([None, "", "often", f"w{int(draw.paretovariate(0.5))}"]) for _ in range(200)]
        assert coded(dictionary, texts) == [known.setdefault(text or "", len(known)) for text in texts]
        cells += texts
    assert dictionary.known <= len(dictionary.slots) // sparse
    assert dictionary.texts().to_list() == [text or None for text in known]
    counts = Counter(known[text or ""] for text in cells)
    assert dictionary.counts[0, : dictionary.size].tolist() == [counts[code] for code in range(len(known))]


def test_spellings_of_one_number_share_an_id() -> None:
    dictionary = Dictionary()
    codes = coded(dictionary, ["3", "3.0", "3.00", "3.5", "-0", "-0.0", "0", "v3.0", "3.0"])
    every = merge_texts([(dictionary.texts(), dictionary.counts[:, : dictionary.size])], lambda need: None)
    words = rank_texts(every.names(), every.counts[0], 1)
    assert words.select("value", "id", "count").rows() == [("3", 1, 4), ("0", 2, 3), ("3.5", 3, 1), ("v3.0", 4, 1)]
    ids = ids_of_texts(every.names(), words)
    assert ids[every.code_maps[0]][codes].tolist() == [1, 1, 1, 3, 2, 2, 2, 4, 1]
    assert ids_of_texts(dictionary.texts(), words).tolist() == [0, 1, 1, 1, 3, 2, 2, 2, 4]
    assert ids[words["code"]].tolist() == [1, 2, 3, 4]


def test_shards_merge_to_what_one_shard_would_have_said() -> None:
    draw = random.Random(2)
    texts = [[draw.choice("abcdefghij") * draw.randrange(1, 4) for _ in range(50)] for _ in range(4)]
    shards = []
    for part in texts:
        dictionary = Dictionary()
        coded(dictionary, part)
        shards.append((dictionary.texts(), dictionary.counts[:, : dictionary.size]))
    every = merge_texts(shards, lambda need: None)
    whole = Counter(text for part in texts for text in part)
    assert dict(zip(every.names()[1:], every.counts[0, 1:].tolist(), strict=True)) == whole
    for (said, _), code_map in zip(shards, every.code_maps, strict=True):
        assert every.names().gather(code_map).to_list() == said.to_list()


def test_counts_grow_with_the_codes() -> None:
    dictionary = Dictionary()
    rng = np.random.default_rng(1)
    for start in range(0, 3000, 500):
        coded(dictionary, [f"w{k}" for k in rng.integers(0, start + 1, 100)])
    assert dictionary.counts.sum() == 600
    assert len(dictionary.texts()) == dictionary.size

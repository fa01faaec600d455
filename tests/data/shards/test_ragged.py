"""Lists of rows in one flat array, against Python lists."""

import random

import numpy as np
import pytest

from fieldctr.data.shards.ragged import Ragged, joined, part, taken, values_of


def ragged(lists: list[list[int]]) -> Ragged:
    return Ragged(np.array([x for row in lists for x in row], np.uint32), np.array([len(row) for row in lists], int))


def plain(found: Ragged) -> list[list[int]]:
    rest = iter(found.values.tolist())
    lists = [[next(rest) for _ in range(length)] for length in found.lengths.tolist()]
    assert list(rest) == []
    return lists


def drawn(draw: random.Random, rows: int) -> list[list[int]]:
    return [[draw.randrange(1, 9) for _ in range(draw.choice([0, 0, 1, 2, 7]))] for _ in range(rows)]


@pytest.mark.parametrize("seed", range(20))
def test_lists_are_what_python_makes_of_them(seed: int) -> None:
    draw = random.Random(seed)
    lists = drawn(draw, draw.choice([0, 1, 2, 30]))
    found = ragged(lists)
    assert found.rows.tolist() == [i for i, row in enumerate(lists) for _ in row]
    assert found.positions.tolist() == [k for row in lists for k in range(len(row))]
    rows = sorted(draw.sample(range(len(lists)), len(lists) // 2))
    assert plain(taken(found, np.array(rows, int))) == [lists[i] for i in rows]
    start = draw.randrange(len(lists) + 1)
    assert plain(part(found, start, start + 5)) == lists[start : start + 5]
    assert plain(found.kept(found.values % 2 == 0)) == [[x for x in row if x % 2 == 0] for row in lists]
    assert found.padded(8).T.tolist() == [row + [0] * (8 - len(row)) for row in lists]
    more = drawn(draw, 3)
    assert plain(joined([found, ragged(more)])) == lists + more
    assert values_of(found).tolist() == [x for row in lists for x in row]


def test_one_code_per_row_goes_the_same_ways() -> None:
    codes = np.array([3, 1, 2])
    assert taken(codes, np.array([0, 2])).tolist() == [3, 2]
    assert part(codes, 1, 9).tolist() == [1, 2]
    assert joined([codes, codes]).tolist() == [3, 1, 2, 3, 1, 2]
    assert values_of(codes) is codes

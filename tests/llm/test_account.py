"""What language models took before a training, summed over the accounts of what a run reads."""

from typing import Any

import pytest

from fieldctr.llm.account import offline


@pytest.mark.parametrize(
    ("accounts", "tokens", "seconds"),
    [
        ([], 0, 0),
        ([{"cost": {"tokens": 7, "seconds": 1.5, "calls": 9, "peak_mb": 99}}], 7, 1.5),
        ([{"cost": {"tokens": 5, "load_s": 1.0, "tune_s": 2.0, "rows": {"seconds": 50}}}], 5, 3.0),
        ([{"cost": {"tokens": 4, "read_s": 0.5, "align_s": 0.25}}, {"cost": {}}], 4, 0.75),
        (
            [{"cost": {"tokens": 1, "seconds": 1}, "knowledge": {"cost": {"read": 10, "written": 20, "seconds": 3}}}],
            31,
            4,
        ),
        ([{"cost": None}, {"cost": {"tokens": 2}}], 2, 0),
    ],
)
def test_costs_of_all_kinds_of_stages_are_added(accounts: list[dict[str, Any]], tokens: int, seconds: float) -> None:
    assert offline(accounts) == {"tokens": tokens, "seconds": seconds}

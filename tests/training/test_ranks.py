"""Two ranks are as good as one process: equal losses, models and ends. A pair of processes plays all of it once."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from by_path import loaded
from two_ranks import ranks_of

from fieldctr.errors import UserError
from fieldctr.training import checkpoint
from fieldctr.training.ranks import Ranks, joined

PROGRAM = Path(__file__).with_name("rank_fits.py")
UPDATES = ("dense", "lazy")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fits() -> ModuleType:
    return loaded(PROGRAM)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def pair(place: Path, fits: ModuleType, planted: ModuleType) -> tuple[Any, ...]:
    """What each of two ranks found. One process has begun a fit that they go on with."""
    runtime = planted.cpu_runtime(place / "machine")
    for update in UPDATES:
        assert "SIGTERM" in fits.interrupted(planted, runtime, update, place / f"{update}_alone", 46)
    codes, said = ranks_of(PROGRAM, place)
    assert codes == [0, 3], said
    return tuple(json.loads((place / f"rank{rank}.json").read_text()) for rank in range(2))


@pytest.fixture(scope="module", params=UPDATES)
def update(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def alone(place: Path, fits: ModuleType, planted: ModuleType, update: str) -> dict[str, Any]:
    """What one process finds."""
    runtime = planted.cpu_runtime(place / "machine")
    return {
        "steps": fits.steps(planted, runtime, update),
        "fit": fits.fit(planted, runtime, update, place / f"{update}_undisturbed"),
    }


def test_two_ranks_take_the_steps_of_one_process(pair: tuple[Any, ...], alone: dict[str, Any], update: str) -> None:
    found, expected = pair[0][update], alone["steps"]
    assert len(found["losses"]) == 52
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-5)
    assert found["auc"] == pytest.approx(expected["auc"], abs=1e-4)
    assert found["logloss"] == pytest.approx(expected["logloss"], abs=1e-5)
    assert found["samples"] == expected["samples"]


def test_ranks_stay_equal_to_the_last_bit(pair: tuple[Any, ...], update: str) -> None:
    assert pair[0][update] == pair[1][update]


@pytest.mark.parametrize(("at", "step"), [("step", 5), ("evaluation", 26)])
def test_a_signal_to_one_rank_ends_all_at_one_step_and_one_process_goes_on(
    pair: tuple[Any, ...],
    alone: dict[str, Any],
    place: Path,
    fits: ModuleType,
    planted: ModuleType,
    update: str,
    at: str,
    step: int,
) -> None:
    folder = place / f"{update}_{at}"
    assert {rank[f"{update} {at}"] for rank in pair} == {"interrupted by SIGTERM"}
    assert checkpoint.newest(folder) == step
    runtime = planted.cpu_runtime(place / "machine")
    with pytest.warns(UserWarning, match="2 processes, each cpu"):
        found = fits.fit(planted, runtime, update, folder, resume=True)
    ends_alike(found, alone["fit"])


def test_ranks_go_on_with_what_one_process_began(pair: tuple[Any, ...], alone: dict[str, Any], update: str) -> None:
    for rank in pair:
        ends_alike(rank[f"{update} resumed"], alone["fit"])


def ends_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["auc"] == pytest.approx(expected["auc"], abs=1e-4)
    assert found["best_step"] == expected["best_step"]
    assert found["samples"] == expected["samples"]


def test_a_rank_says_in_words_that_another_has_ended(pair: tuple[Any, ...]) -> None:
    assert "another process of torchrun has ended" in pair[0]["lost"]


def test_what_would_differ_from_one_process_is_refused(pair: tuple[Any, ...]) -> None:
    assert "Set batch_norm=false" in pair[0]["refused"]


@pytest.mark.parametrize("world", [2, 3, 8])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 64])
def test_blocks_make_up_the_batch_and_shares_make_up_the_loss(world: int, rows: int) -> None:
    ranks, batch = [Ranks(rank, world) for rank in range(world)], torch.arange(rows)
    blocks = [rank.block(batch)[: rank.size(rows)] for rank in ranks]
    assert torch.cat(blocks).equal(batch)
    assert min(len(rank.block(batch)) for rank in ranks) >= 1
    losses = batch.double() ** 2
    parts = [rank.share(losses[rank.block(batch)].mean(), rows) for rank in ranks]
    assert float(sum(parts)) == pytest.approx(float(losses.mean()))


def test_a_number_of_processes_that_torchrun_did_not_start_is_refused() -> None:
    with pytest.raises(UserError, match="nproc-per-node=2"), joined(2):
        pass

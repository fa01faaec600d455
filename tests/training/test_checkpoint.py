"""A checkpoint is whole or absent, and gives back what was put in."""

from pathlib import Path

import pytest
import torch

from fieldctr.errors import UserError
from fieldctr.training import checkpoint


def test_tensors_and_state_come_back(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    tensors = {
        "a": shared,
        "b": shared,  # one storage under two names
        "view": shared.view(2, 3).t(),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "rng": torch.get_rng_state(),
        "sum": torch.tensor(0.1, dtype=torch.float64),
    }
    checkpoint.save(tmp_path, 7, tensors, {"lr": 0.1, "history": [{"auc": 0.5}]})
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found.state == {"lr": 0.1, "history": [{"auc": 0.5}]}
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)


def test_the_newest_step_stays_alone(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        checkpoint.save(tmp_path, step, {"x": torch.tensor(step)}, {"step": step})
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["step-100"]


def test_what_a_killed_save_leaves_is_never_read_and_is_removed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 9, {"x": torch.tensor(9)}, {"step": 9})
    half = tmp_path / "checkpoint" / ".step-10"
    half.mkdir()
    (half / checkpoint.TENSORS).write_bytes(b"half")
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found.state == {"step": 9}
    checkpoint.save(tmp_path, 11, {"x": torch.tensor(11)}, {"step": 11})
    assert not half.exists()


def test_of_two_whole_checkpoints_the_newer_counts(tmp_path: Path) -> None:
    """Killed between the rename and the removal of the older one."""
    checkpoint.save(tmp_path / "other", 9, {"x": torch.tensor(9)}, {"step": 9})
    checkpoint.save(tmp_path, 10, {"x": torch.tensor(10)}, {"step": 10})
    (tmp_path / "other" / "checkpoint" / "step-9").rename(tmp_path / "checkpoint" / "step-9")
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found.state == {"step": 10}


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, "checksums.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "longer"])
def test_a_damaged_checkpoint_is_named_with_its_cure(tmp_path: Path, name: str, damage: str) -> None:
    checkpoint.save(tmp_path, 3, {"x": torch.tensor(3)}, {"step": 3})
    path = tmp_path / "checkpoint" / "step-3" / name
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    path.unlink()
    if damage != "gone":
        path.write_bytes({"cut": data[:middle], "flipped": flipped, "longer": data + b"0"}[damage])
    with pytest.raises(UserError, match=r"checkpoint/step-3/.* is (damaged|missing).*resume=false"):
        checkpoint.load(tmp_path)


def test_another_fit_does_not_go_on_from_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, {"x": torch.tensor(3)}, {"step": 3}, of="a")
    found = checkpoint.load(tmp_path, of="a")
    assert found is not None
    assert found.state == {"step": 3}
    with pytest.raises(UserError, match=r"another configuration, or of other data.*resume=false"):
        checkpoint.load(tmp_path, of="b")


def test_of_several_at_one_step_the_last_counts_and_stays_alone(tmp_path: Path) -> None:
    """Before an evaluation and after it: the first is not removed before the second is whole."""
    for number in range(3):
        checkpoint.save(tmp_path, 5, {"x": torch.tensor(number)}, {"number": number})
        found = checkpoint.load(tmp_path)
        assert found is not None
        assert found.state == {"number": number}
        assert len(list((tmp_path / "checkpoint").iterdir())) == 1

"""scripts/gpu_check.py from end to end on a CPU: all but what only a GPU has."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from by_path import loaded

from fieldctr.commands.machine import torch_as_it_was

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = loaded(SCRIPT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(module, "LOSSES", 4)
    with torch_as_it_was():
        yield module


def run(script: ModuleType, output: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, dict]:
    call = ["gpu_check.py", "--device", "cpu", "--small", "--output", str(output), *words]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit) as end:
        script.main()
    return int(end.value.code or 0), json.loads(output.read_text())


@pytest.mark.filterwarnings("ignore")
def test_losses_agree_across_devices_and_checkpoints_and_each_arm_is_measured(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = run(
        script, tmp_path / "found.json", monkeypatch, "--parts", "equal", "speed", "--models", "deepfm", "fat_xs"
    )
    assert code == 0, found
    assert [one["largest_difference"] for one in found["equal"]] == [0, 0, 0, 0]
    assert [one["resumed"] for one in found["equal"]] == [0, 0, 0, 0]
    assert all(one["ok"] and one["last_loss"] != one["first_loss"] for one in found["equal"])
    assert [(one["model"], one["mode"]) for one in found["speed"]] == [("deepfm", "eager"), ("fat_xs", "eager")]
    assert all(one["ms"] > 0 and one["gflop"] > 0 and one["share_of_peak"] > 0 for one in found["speed"])
    assert "| deepfm | fp32 | eager | 32 |" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_what_fails_is_told_and_costs_nothing_else(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "TOLERANCE", -1.0)

    def broken(*given: object) -> dict:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(script, "measured", broken)
    code, found = run(script, tmp_path / "found.json", monkeypatch, "--parts", "equal", "speed", "--models", "deepfm")
    assert code == 1
    assert not any(one["ok"] for one in found["equal"])
    assert found["speed"][0]["error"] == "RuntimeError: out of memory"


@pytest.mark.filterwarnings("ignore")
def test_ranks_are_left_out_where_each_cannot_have_a_gpu(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(script, "machine", lambda device: {"device": device, "torch": ""})
    monkeypatch.setattr(sys, "argv", ["", "--parts", "ranks", "--output", str(tmp_path / "found.json")])
    with pytest.raises(SystemExit, match="0"):
        script.main()
    found = json.loads((tmp_path / "found.json").read_text())["ranks"]
    assert [one["mode"] for one in found] == ["2 ranks by nccl, torch", "2 ranks by nccl, torchrec"]
    assert {one["left_out"] for one in found} == {"NCCL takes a GPU for each rank, and torch sees 1"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_ranks_are_compared_with_one_process(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "HANGS_S", 1800)
    code, found = run(script, tmp_path / "found.json", monkeypatch, "--parts", "ranks")
    assert code == 0, found
    plain, shards = found["ranks"]
    assert plain["ranks"] == 2
    assert plain["largest_difference"] <= script.TOLERANCE
    assert shards.get("left_out") == "TorchRec is not installed" or shards["ok"]
    assert "| deepfm | fp32 | 2 ranks by gloo, torch | 128 |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_arms_that_do_not_fit_into_the_time_are_named(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, found = run(script, tmp_path / "found.json", monkeypatch, "--parts", "speed", "ssft", "--minutes", "0")
    assert code == (0 if found["ssft"]["ok"] else 1)
    assert {one["left_out"] for one in found["speed"]} == {"no time left"}
    assert len(found["speed"]) == len(script.MODELS)

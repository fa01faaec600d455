"""Tables in TorchRec's shards learn as plain ones do, and leave runs that need no TorchRec."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from by_path import loaded
from two_ranks import ranks_of

from fieldctr.commands.doctor import shards
from fieldctr.config import EmbeddingConfig
from fieldctr.errors import UserError
from fieldctr.training import checkpoint, torchrec_pair
from fieldctr.training.torchrec_pair import pair_fits, refuse_misfits

PROGRAM = Path(__file__).with_name("torchrec_fits.py")
WAYS = ("table_wise", "row_wise", "column_wise", "auto")
needs_pair = pytest.mark.skipif(not pair_fits(), reason=f"TorchRec is not here: {torchrec_pair.LOCK} has it")
TORCHREC = EmbeddingConfig(engine="torchrec")


@pytest.fixture(scope="module")
def fits() -> ModuleType:
    return loaded(PROGRAM)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torchrec")


@pytest.fixture(scope="module")
def undisturbed(place: Path, fits: ModuleType, planted: ModuleType) -> list[float]:
    """The AUCs of a fit of one process with plain tables."""
    return fits.fit(planted, planted.cpu_runtime(place / "machine"), None, place / "undisturbed")


@pytest.fixture(scope="module")
def pair(place: Path, fits: ModuleType, planted: ModuleType) -> list[dict[str, Any]]:
    """What each of two ranks found. One process with plain tables has begun a fit that they go on with."""
    runtime = planted.cpu_runtime(place / "machine")
    assert "SIGTERM" in fits.interrupted(planted, runtime, None, place / "alone")
    codes, said = ranks_of(PROGRAM, place)
    assert codes == [0, 0], said
    assert said[1] == ""
    return [torch.load(place / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@needs_pair
@pytest.mark.parametrize("way", WAYS)
def test_shards_take_the_steps_of_a_plain_table(
    way: str, pair: list[dict[str, Any]], fits: ModuleType, planted: ModuleType, place: Path
) -> None:
    runtime = planted.cpu_runtime(place / "machine")
    if way == "column_wise":  # where each shard of columns has a sum of squares of its own
        with fits.columns_in_shards():
            expected = fits.steps(planted, runtime, None)
    else:
        expected = fits.steps(planted, runtime, None)
    for rank in pair:
        found = rank[way]
        assert len(found["losses"]) == fits.STEPS
        torch.testing.assert_close(found["losses"], expected["losses"], atol=1e-5, rtol=0)
        assert found["here"] == ["embedding.table"]
        for part in ("weights", "state"):
            assert found[part].keys() - {"rowwise/embedding.table/square_sum"} <= expected[part].keys()
            for name, tensor in expected[part].items():
                torch.testing.assert_close(found[part][name], tensor, atol=1e-5, rtol=1e-4, msg=f"{part} {name}")


@pytest.mark.slow
@needs_pair
def test_shards_lie_where_they_were_asked_for(pair: list[dict[str, Any]]) -> None:
    shapes = {way: [rank[way]["shapes"] for rank in pair] for way in WAYS}
    sizes = [5, 60, 200, 2]  # rows of each table, and below of the shards that are on either rank
    assert sorted(shapes["table_wise"][0] + shapes["table_wise"][1]) == sorted((size, 8) for size in sizes)
    assert all(shapes["table_wise"])
    assert [sorted(found) for found in shapes["row_wise"]] == [
        sorted((rows, 8) for rows in part) for part in ([3, 30, 100, 1], [2, 30, 100, 1])
    ]
    assert shapes["column_wise"][0] == shapes["column_wise"][1]
    assert sorted(shapes["column_wise"][0]) == sorted((size, 4) for size in sizes)


@pytest.mark.slow
@needs_pair
def test_a_fit_goes_on_from_shards_to_plain_tables_and_back(
    pair: list[dict[str, Any]], undisturbed: list[float], fits: ModuleType, planted: ModuleType, place: Path
) -> None:
    assert all(rank["interrupted"] == "interrupted by SIGTERM" for rank in pair)
    assert checkpoint.newest(place / "interrupted") == 6
    runtime = planted.cpu_runtime(place / "machine")
    with pytest.warns(UserWarning, match="2 processes, each cpu"):
        found = fits.fit(planted, runtime, None, place / "interrupted", resume=True)
    assert found == pytest.approx(undisturbed, abs=1e-4)
    for rank in pair:
        assert rank["resumed"] == pytest.approx(undisturbed, abs=1e-4)


@pytest.mark.slow
@needs_pair
def test_a_model_without_a_table_that_can_be_sharded_is_refused(pair: list[dict[str, Any]]) -> None:
    assert all("width is a multiple of 4" in rank["refused"] for rank in pair)


@pytest.mark.slow
@needs_pair
def test_a_run_is_evaluated_without_torchrec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fieldctr import load_run

    words = [
        *("train", "tracker=none", "dataset=synthetic", "dataset.source.rows=3000", "model=deepfm", "embedding_dim=4"),
        *("trainer.batch_size=128", "trainer.max_epochs=1", "runtime.threads=1", "runtime.matmul=mkl", "outputs=o"),
        *("embedding.engine=torchrec", "optimizer=rowwise_adagrad", "trainer.clip_norm=null", "trainer.ema_decay=null"),
        "hydra.run.dir=run",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fieldctr"]
    done = subprocess.run([*torchrun, *words], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    monkeypatch.chdir(tmp_path)
    for name in ("torchrec", "fbgemm_gpu"):
        monkeypatch.setitem(sys.modules, name, None)
    run = load_run("run")
    assert run.config["embedding"]["engine"] == "torchrec"
    assert run.evaluate("test") == run.metrics["test"]


def test_settings_that_do_not_go_with_shards_are_refused_in_one_sentence(
    planted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchrec_pair, "pair_fits", lambda: True)
    plain = planted.trainer_config(clip_norm=None, ema_decay=None)
    adagrad = planted.optimizer_config(embedding_rule="rowwise_adagrad")
    refuse_misfits(TORCHREC, plain, adagrad, 2)
    refuse_misfits(EmbeddingConfig(), planted.trainer_config(), planted.optimizer_config(), 1)
    with pytest.raises(
        UserError, match=r"Add optimizer=rowwise_adagrad trainer.clip_norm=null trainer.ema_decay=null$"
    ):
        refuse_misfits(TORCHREC, planted.trainer_config(), planted.optimizer_config(), 2)
    with pytest.raises(UserError, match=r"Add trainer.compile=false$"):
        refuse_misfits(TORCHREC, planted.trainer_config(clip_norm=None, ema_decay=None, compile=True), adagrad, 2)
    with pytest.raises(UserError, match="nproc-per-node=2"):
        refuse_misfits(TORCHREC, plain, adagrad, 1)
    with pytest.raises(UserError, match="dry_run"):
        refuse_misfits(TORCHREC, planted.trainer_config(dry_run=True), adagrad, 1)


@pytest.mark.parametrize(
    ("here", "fits"),
    [
        ({"torch": "2.14.1+cu130", "fbgemm-gpu-cpu": "1.9.0", "torchrec": "1.9.2"}, True),
        ({"torch": "2.14.1", "fbgemm-gpu": "1.9.0+cu130", "torchrec": "1.9.2"}, True),
        ({"torch": "2.15.0", "fbgemm-gpu-cpu": "1.9.0", "torchrec": "1.9.2"}, False),
        ({"torch": "2.14.1", "fbgemm-gpu-cpu": "1.10.0", "torchrec": "1.9.2"}, False),
        ({"torch": "2.14.1", "torchrec": "1.9.2"}, False),
        ({"torch": "2.14.1"}, False),
    ],
)
def test_the_doctor_says_which_pair_is_here(
    here: dict[str, str], fits: bool, planted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchrec_pair, "installed", lambda: here)
    mark, said = shards()
    assert mark == ("ok" if fits else "absent")
    assert all(f"{name} {version}" in said for name, version in here.items())
    if not fits:
        assert torchrec_pair.LOCK in said
        with pytest.raises(UserError, match=r"embedding.engine=torch$"):
            refuse_misfits(TORCHREC, planted.trainer_config(), planted.optimizer_config(), 2)

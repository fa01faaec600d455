"""A signal at any step and any evaluation batch of a fit, resumed any number of times, changes no bit."""

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from fieldctr import signals
from fieldctr.training import checkpoint
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Fit, Trainer

UPDATES = ("dense", "lazy")
STEPS = [1, *[2] * 4, *[3] * 4, 4, *[5] * 4, *[6] * 4]  # at each look for a signal: after a step, or a batch of three


class Fits:
    """Lives of one fit of two epochs: three steps in each, of which the last two are evaluated."""

    def __init__(self, planted: ModuleType, runtime: Runtime, update: str) -> None:
        self.planted, self.train, self.valid = planted, planted.split(192, 1), planted.split(60, 2)
        optimizer = planted.optimizer_config(embedding_update=update, embedding_l2=0.0)
        settings = planted.trainer_config(max_epochs=2, eval_batch_size=20, checkpoint_every_s=1e9)
        self.trainer, self.log = Trainer(settings, optimizer, runtime, seed=3), list[dict[str, float]]()
        self.lives = 0

    def live(self, folder: Path | None, *, resume: bool = False) -> tuple[Fit, nn.Module]:
        """A fit, or the next life of one, in a process that knows nothing of those before."""
        torch.rand(5)  # another state of the global generator
        model = self.planted.Tiny(seed=77 if self.lives else 1)
        self.lives += 1
        done = self.trainer.fit(
            model, self.train, self.valid, folder=folder, resume=resume, log=self.log.append, rewrite=self.rewrite
        )
        return done, model

    def rewrite(self, records: list[dict[str, float]]) -> None:
        self.log[:] = records


@pytest.fixture(scope="module")
def undisturbed(planted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runtime = planted.cpu_runtime(tmp_path_factory.mktemp("cache"))
    return {update: what(Fits(planted, runtime, update)) for update in UPDATES}


def what(fits: Fits, folder: Path | None = None, *, resume: bool = False) -> tuple[Any, ...]:
    """All that a fit leaves, but for seconds."""
    with signals.handled():  # which forgets signals before
        done, model = fits.live(folder, resume=resume)
    plain = done._replace(seconds={}, samples_per_s=0.0, best=timeless([done.best])[0], history=timeless(done.history))
    return plain, timeless(fits.log), {name: value.tolist() for name, value in model.state_dict().items()}


def timeless(records: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


@pytest.fixture(autouse=True)
def _the_old_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    for number, action in before.items():
        signal.signal(number, action)
    with signals.handled():  # forgets what it heard
        pass


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], int]:
    """Do something that gets a real signal at its n-th look for one; how often it looked."""
    check = signals.check

    def run(at: int, action: Callable[[], Any]) -> int:
        looks = itertools.count(1)

        def checking() -> None:
            nonlocal look
            look = next(looks)
            if look == at:
                signal.raise_signal(signal.SIGTERM)
            check()

        look = 0
        monkeypatch.setattr(signals, "check", checking)
        with signals.handled():
            action()
        return look

    return run


SignalAt = Callable[[int, Callable[[], Any]], int]


@pytest.mark.slow
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("at", range(1, len(STEPS) + 1))
def test_interrupted_anywhere_and_resumed_is_undisturbed(
    planted: ModuleType, runtime: Runtime, tmp_path: Path, undisturbed: Any, signal_at: SignalAt, at: int, update: str
) -> None:
    fits = Fits(planted, runtime, update)
    with pytest.raises(signals.Interrupted):
        signal_at(at, lambda: fits.live(tmp_path))
    assert checkpoint.newest(tmp_path) == STEPS[at - 1]
    assert not list(tmp_path.rglob(".*"))
    assert what(fits, tmp_path, resume=True) == undisturbed[update]


@pytest.mark.parametrize("update", UPDATES)
def test_interrupted_in_every_life_it_ends_undisturbed(
    planted: ModuleType, runtime: Runtime, tmp_path: Path, undisturbed: Any, signal_at: SignalAt, update: str
) -> None:
    """Lives of one look, two, ...: the first ones in a row are stopped within the same evaluation."""
    fits, lives = Fits(planted, runtime, update), 0
    for at in itertools.count(1):
        try:
            signal_at(at, lambda: fits.live(tmp_path, resume=True))
        except signals.Interrupted:
            lives += 1
        else:
            break
    assert lives > 5
    assert what(fits, tmp_path, resume=True) == undisturbed[update]


def test_each_step_and_each_batch_of_an_evaluation_looks_for_a_signal(
    planted: ModuleType, runtime: Runtime, signal_at: SignalAt
) -> None:
    fits = Fits(planted, runtime, "dense")
    assert signal_at(0, lambda: fits.live(None)) == len(STEPS) + 1  # and the end of the fit


def test_an_interrupted_evaluation_gives_back_weights_and_mode(
    planted: ModuleType, runtime: Runtime, tmp_path: Path, signal_at: SignalAt
) -> None:
    """What a fit knows of seconds counts an evaluation that was cut short as one, and nothing twice."""
    fits, model = Fits(planted, runtime, "dense"), planted.Tiny(seed=1)
    with pytest.raises(signals.Interrupted):
        signal_at(4, lambda: fits.trainer.fit(model, fits.train, fits.valid, folder=tmp_path))
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert model.training
    assert all(torch.equal(value, found.tensors[f"model/{name}"]) for name, value in model.state_dict().items())
    assert found.state["history"] == []
    assert found.state["seconds"]["evaluate"] > 0

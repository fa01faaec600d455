"""Mirrors of a run's metrics: Weights & Biases or TensorBoard. Nothing ever reads a mirror back.

A mirror starts with the first metrics, so that it costs no time before the first training step, and its failure never
ends a run: it is said once on stderr and the run goes on without it. Nothing is lost then, as metrics.jsonl and
result.json hold all of it: `fieldctr sync` makes the mirror anew from them.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Protocol, Self

from fieldctr.artifacts import digest
from fieldctr.config import TrackerConfig, flat
from fieldctr.disk import remove
from fieldctr.errors import UserError
from fieldctr.signals import Interrupted

METRICS = "metrics.jsonl"  # what a run has logged, in its folder
PNG_SIZE = (16, 20)  # bytes at which a PNG file has its width and its height
CLOSING_S = 5.0  # for the mirror of a run that a signal ends: a network that is down must not hold it


class Mirror(Protocol):
    """What a tracking library is asked to do."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...
    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None: ...
    def finish(self, summary: Mapping[str, float], pictures: Mapping[str, Path], exit_code: int) -> None: ...


class Tracker:
    """One run's mirror, started lazily and silenced at its first failure."""

    def __init__(self, config: TrackerConfig, folder: Path, name: str, run_config: Mapping[str, Any]) -> None:
        kinds: dict[str, type[WandbMirror] | type[TensorboardMirror]] = {
            "wandb": WandbMirror,
            "tensorboard": TensorboardMirror,
        }
        self.kind = kinds.get(config.name)
        self.start = (config, folder, name, run_config)
        self.mirror: Mirror | None = None
        self.failed = False
        if config.name == "tensorboard" and not importlib.util.find_spec("tensorboard"):
            raise UserError("tracker=tensorboard needs its package: pip install 'fieldctr[tensorboard]'")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._try(lambda mirror: mirror.log(metrics, step))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table to show beside the metrics; TensorBoard has none."""
        self._try(lambda mirror: mirror.table(name, rows))

    def finish(self, summary: Mapping[str, float], pictures: Mapping[str, Path] | None = None) -> None:
        """Close the mirror of a run that succeeded. `pictures` are PNG files to show beside the metrics."""
        self._try(lambda mirror: mirror.finish(summary, pictures or {}, 0))
        self.kind = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.mirror and error is not None:  # else a failed run stays open, and shows as running
            closing = Thread(target=self._try, args=(lambda mirror: mirror.finish({}, {}, 1),), daemon=True)
            closing.start()
            closing.join(CLOSING_S if isinstance(error, Interrupted) else None)
            if closing.is_alive():
                print(f"fieldctr: the tracker was not done in {CLOSING_S:.0f} s and is left behind", file=sys.stderr)

    def _try(self, action: Callable[[Mirror], None]) -> None:
        if self.kind is None:
            return
        try:
            self.mirror = self.mirror or self.kind(*self.start)
            action(self.mirror)
        except Exception as error:  # noqa: BLE001  whatever a tracking library raises, the run must go on
            print(f"fieldctr: the tracker failed and is off for this run: {error}", file=sys.stderr)
            self.kind, self.failed = None, True


def identity(folder: Path, run_config: Mapping[str, Any]) -> str:
    """The id of a folder's run in W&B, always the same one: of where the folder is, and of the configuration."""
    return digest({"folder": str(folder.resolve()), "config": dict(run_config)})[:16]


class WandbMirror:
    """Weights & Biases, offline unless the configuration says online. Never prompts.

    A folder has one run there, which takes the place of what an earlier process left of it: it begins with all that
    metrics.jsonl holds, so that a run which was killed and resumed is whole.
    """

    def __init__(self, config: TrackerConfig, folder: Path, name: str, run_config: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # the one look-up of a host that offline mode leaves
        for kind in ("CACHE", "CONFIG", "DATA"):
            os.environ.setdefault(f"WANDB_{kind}_DIR", str((folder / "wandb").absolute()))
        import wandb  # 1-2 s

        self.wandb = wandb
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            init_timeout=30 if config.mode == "online" else 600,  # offline nothing but a busy machine takes long
            x_service_wait=600,  # as does its own process at any time
        )
        own = identity(folder, run_config)
        remove(folder.glob(f"wandb/offline-run-*-{own}"))
        self.run = wandb.init(
            project=config.project,
            group=config.group,
            tags=config.tags,
            name=name,
            id=own,
            mode=config.mode,
            dir=folder,
            config=flat(run_config),
            settings=quiet,
            reinit="finish_previous",  # a multirun holds many runs in one process
        )
        for record in logged(folder):
            self.log(record, int(record["step"]))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        columns: list[Any] = list(dict.fromkeys(key for row in rows for key in row))
        cells: list[Any] = [[row.get(column) for column in columns] for row in rows]
        self.run.log({name: self.wandb.Table(columns=columns, data=cells, allow_mixed_types=True)})

    def finish(self, summary: Mapping[str, float], pictures: Mapping[str, Path], exit_code: int) -> None:
        self.run.summary.update(dict(summary))
        if pictures:
            self.run.log({name: self.wandb.Image(str(path)) for name, path in pictures.items()})
        self.run.finish(exit_code=exit_code)


def logged(folder: Path) -> list[dict[str, Any]]:
    """Every evaluation of the run in a folder so far."""
    path = folder / METRICS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class TensorboardMirror:
    """TensorBoard event files in the run folder."""

    def __init__(self, config: TrackerConfig, folder: Path, name: str, run_config: Mapping[str, Any]) -> None:
        from tensorboard.summary import Writer  # not torch.utils.tensorboard: that imports all of TensorFlow's stubs

        self.folder = folder / "tensorboard"
        self.writer = Writer(str(self.folder))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        pass

    def finish(self, summary: Mapping[str, float], pictures: Mapping[str, Path], exit_code: int) -> None:
        for name, value in summary.items():
            self.writer.add_scalar(f"final/{name}", value, 0)
        self.writer.close()
        if pictures:
            self._show(pictures)

    def _show(self, pictures: Mapping[str, Path]) -> None:
        """In an event file of their own: the package's writer knows scalars alone."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        events: Any = event_pb2  # generated: a type checker finds nothing in them
        summaries: Any = summary_pb2
        writer = EventFileWriter(str(self.folder))
        for name, path in pictures.items():
            data = path.read_bytes()
            width, height = (int.from_bytes(data[at : at + 4], "big") for at in PNG_SIZE)
            image = summaries.Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=data)
            value = summaries.Summary.Value(tag=name, image=image)
            writer.add_event(events.Event(wall_time=time.time(), summary=summaries.Summary(value=[value])))
        writer.close()

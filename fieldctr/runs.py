"""A run's folder: everything that a number in a table leads back to.

config.json     the resolved configuration          run.json       commit, versions, host, command line
metrics.jsonl   every evaluation                    checkpoint/    where a killed run goes on
model.safetensors, schema.json, {valid,test}.scores.npy; learning.png, and pictures of what the model says of itself
result.json     written last: it exists if and only if the run finished; error.txt if it failed or a signal stopped it
checksums.json  of a finished run's files
"""

import contextlib
import json
import re
import sys
import time
import traceback
import weakref
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fieldctr.artifacts import digest
from fieldctr.checksums import CHECKSUMS_FILE, check, complete, is_sealed
from fieldctr.config import EmbeddingConfig, EncoderConfig, OptimizerConfig, TrainConfig, TrainerConfig, flat, later
from fieldctr.disk import cause_of, flush, read_object, sentence, write_json, write_text
from fieldctr.errors import UserError
from fieldctr.locks import HeldError, Release, lock
from fieldctr.provenance import provenance
from fieldctr.signals import interruption

RESULT, CONFIG, METRICS, RECORD, ERROR = "result.json", "config.json", "metrics.jsonl", "run.json", "error.txt"
MODEL, SCHEMA, SCORES = "model.safetensors", "schema.json", "*.scores.npy"
SEALED = (CONFIG, RECORD, METRICS, MODEL, SCHEMA, SCORES)  # beside the result: what numbers and scores come from
# These do not change what is computed; runs of earlier versions have no choices.
VOLATILE = ("resume", "tracker", "outputs", "data_root", "dataset.raw_dir", "choices", "runtime.ranks")
MINE = (  # all that a run leaves; other files in the folder are the user's
    *(RESULT, CONFIG, METRICS, RECORD, ERROR, CHECKSUMS_FILE, "checkpoint", MODEL, SCHEMA, SCORES),
    *("learning.*", "field_pairs.*", "attention.*", "bases.*", "evaluate-*.json", "wandb", "tensorboard"),
)
ASIDE = "earlier-"
READS, READERS_FILE = "reads", "runs.txt"  # key in a run's record; in what it reads, the runs
CODE = "code"  # key in a run's record and result: where the user's own modules came from, if there are any
LATER = {  # keys that earlier versions lacked, with what those did: a run at these values is the same run
    **{f"trainer.{name}": value for name, value in later(TrainerConfig).items()},
    **{f"optimizer.{name}": value for name, value in later(OptimizerConfig).items()},
    **{f"embedding.{name}": value for name, value in later(EmbeddingConfig).items()},
    **{f"encoder.{name}": value for name, value in later(EncoderConfig).items()},
    "evaluate_test": TrainConfig.evaluate_test,
    "id_dropout": None,
    "knowledge": {},
}


class Run:
    """A context manager around one run's folder, which is this process's alone; an exception leaves error.txt."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.release = weakref.finalize(self, _locked(folder))
        self.seconds: dict[str, float] = {}
        self.result: dict[str, Any] | None = None  # of a run that had finished already

    @classmethod
    def start(cls, folder: Path, config: Mapping[str, Any], *, resume: bool) -> Self:
        """Open the folder: with `resume` a run of the same configuration goes on; else earlier files move aside.

        UserError where another process has it open, or the run there has another configuration.
        """
        run = cls(folder, config)
        _finish_moving(folder)
        if resume and (folder / CONFIG).exists():
            _refuse_another(folder, config)
            run.result = finished(folder, config)  # while this process waited for its turn
            if run.result is not None:
                return run
        else:
            _move_aside(folder)
        (folder / ERROR).unlink(missing_ok=True)
        write_json(folder / CONFIG, config)
        write_json(folder / RECORD, provenance() | {"config_digest": config_digest(config)})
        return run

    def reads(self, folders: Iterable[Path]) -> None:
        """Note here and there which tables, vectors and stages the run reads too: `fieldctr clean` leaves them."""
        folders = list(folders)
        before = read_whole(self.folder / RECORD).get(READS, [])
        self.note({READS: list(dict.fromkeys([*before, *(folder.name for folder in folders)]))})
        for folder in folders:
            path, run = folder / READERS_FILE, str(self.folder.resolve())
            if run in lines_of(path):
                continue
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"{run}\n")
            except OSError as error:
                what = "`fieldctr clean` by its owner cannot know of this run"
                print(f"fieldctr: {path}: {cause_of(error)}. {what}", file=sys.stderr)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add facts of how the run came about to its record, run.json."""
        write_json(self.folder / RECORD, {**read_whole(self.folder / RECORD), **facts})

    @contextlib.contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time a stage of the run: its wall seconds go into result.json."""
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)

    def rewrite_metrics(self, records: Iterable[Mapping[str, Any]]) -> None:
        """metrics.jsonl from the beginning: after a resume it holds each evaluation once."""
        write_text(self.folder / METRICS, "".join(f"{json.dumps(record)}\n" for record in records))

    def log(self, record: Mapping[str, Any]) -> None:
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(record)}\n")

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Seal the run, write result.json, its last file, and give its content."""
        record = read_whole(self.folder / RECORD)
        whole = {
            **result,
            "seconds": self.seconds,
            **{key: record[key] for key in ("config_digest", "versions", "commit", CODE) if key in record},
            "sealed": True,
        }
        names = [path.name for pattern in SEALED for path in self.folder.glob(pattern)]
        complete(self.folder, RESULT, whole, names)
        return whole

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            stop = interruption(error)
            text = f"{stop}\n" if stop else "".join(traceback.format_exception(error))
            try:
                write_text(self.folder / ERROR, text)
            except OSError as unwritten:  # a full disk must not hide the first error
                print(f"fieldctr: {sentence(unwritten)}", file=sys.stderr)
        self.release()


class FollowedRun(Run):
    """A run that another process writes, as one of several that make it sees it: nothing is written."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.release = lambda: None
        self.seconds, self.result = {}, None

    def reads(self, folders: Iterable[Path]) -> None: ...
    def note(self, facts: Mapping[str, Any]) -> None: ...
    def rewrite_metrics(self, records: Iterable[Mapping[str, Any]]) -> None: ...
    def log(self, record: Mapping[str, Any]) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _locked(folder: Path) -> Release:
    """Have the folder alone; UserError where another process has it.

    Without, two calls that resume one sweep would write into each other's metrics and checkpoints.
    """
    try:
        return lock(folder)
    except HeldError as held:
        raise UserError(
            f"the run in {folder} is being made by another process ({held}). Wait for it, or choose another "
            "hydra.run.dir (in a multirun hydra.sweep.dir)"
        ) from held


def finished(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of a finished run of this very configuration in `folder`, or None. UserError where it is damaged."""
    if not (folder / RESULT).exists():
        return None
    result = load_result(folder)
    return result if result["config_digest"] == config_digest(config) else None


def load_config(folder: Path, *, key: str = "run") -> dict[str, Any]:
    """The configuration of the run in `folder`, which `key` named; a UserError where there is none, or no whole one."""
    path = folder / CONFIG
    if not path.exists():
        raise UserError(f"{key}={folder}: no {CONFIG} there, so it is no run folder. Runs are below outputs/train")
    return read_whole(path)


def load_result(folder: Path, *, key: str = "run") -> dict[str, Any]:
    """The result of the run in `folder`, which `key` named; a UserError while it has not finished, or is damaged."""
    path = folder / RESULT
    if not path.exists():
        raise UserError(
            f"{key}={folder}: no {RESULT}, so it has not finished. Go on: resume=true hydra.run.dir={folder}"
        )
    result = read_whole(path)
    if "sealed" in result or is_sealed(folder):
        check(folder, [RESULT, CONFIG], cure=_cure(folder))
    return result


def refuse_trial(folder: Path, result: Mapping[str, Any], *, key: str = "run") -> None:
    """UserError where the run is a trial of a search, whose test split is not to be read."""
    if "test" not in result:
        raise UserError(
            f"{key}={folder} is a trial of a search (evaluate_test=false), which selects on valid: it does not "
            "read test. Train its settings without evaluate_test=false"
        )


def shown_name(folder: Path) -> str:
    """What a tracker calls the run: its folder's name, in a study with its arm's, where seed1 alone says little."""
    name = folder.resolve().name
    return f"{folder.resolve().parent.name}_{name}" if re.fullmatch(r"(seed|trial_)\d+", name) else name


def leave_beside(folder: Path, name: str, numbers: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write numbers that are of the run of this `result`; UserError where its folder holds another one by now."""
    refuse_made_anew(folder, result)
    write_json(folder / name, numbers)
    try:
        refuse_made_anew(folder, result)
    except UserError:
        (folder / name).unlink(missing_ok=True)
        raise


def refuse_made_anew(folder: Path, result: Mapping[str, Any]) -> None:
    """UserError where the run in `folder` is no longer the one of this `result`."""
    if not (folder / RESULT).exists() or load_result(folder) != result:
        raise UserError(f"run={folder} was made anew while it was read. Call again when it has finished")


def check_run(folder: Path, names: Iterable[str] | None = None) -> None:
    """UserError where a file of a finished run, or one of `names`, is not what it was when the run finished.

    Runs of earlier versions have no checksums and pass; `load_result` knows them.
    """
    if is_sealed(folder):
        check(folder, names, cure=_cure(folder))


def lines_of(path: Path) -> list[str]:
    """The lines of a file; none where it is not there."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def read_whole(path: Path) -> dict[str, Any]:
    """The object in a file of a run; UserError where it is damaged."""
    found = read_object(path)
    if found is None:
        raise UserError(f"{path} is damaged: it is no JSON object. {_cure(path.parent)}")
    return found


def _cure(folder: Path) -> str:
    return f"Take it from a copy, or train anew: hydra.run.dir={folder} without resume keeps what is there aside"


def config_digest(config: Mapping[str, Any]) -> str:
    """sha256 of what determines a run's numbers."""
    leaves = lasting(config)
    return digest({key: value for key, value in leaves.items() if key not in LATER or value != LATER[key]})


def _refuse_another(folder: Path, config: Mapping[str, Any]) -> None:
    before, now = lasting(load_config(folder)), lasting(config)
    differing = [key for key in sorted(before | now) if before.get(key, "absent") != now.get(key, "absent")]
    if differing:
        changes = ", ".join(
            f"{key}={now.get(key, 'absent')} (was {before.get(key, 'absent')})" for key in differing[:3]
        )
        raise UserError(
            f"resume=true: the run in {folder} has another configuration: {changes}. "
            "Resume it with its own keys, or start anew with resume=false"
        )


def _move_aside(folder: Path) -> None:
    """Keep what an earlier run left here: nothing is lost and nothing is mixed."""
    if not _left(folder):
        return
    numbers = [int(path.name.removeprefix(ASIDE)) for path in folder.glob(f"{ASIDE}[0-9]*") if path.name[8:].isdigit()]
    moving = folder / f".{ASIDE}{1 + max(numbers, default=0)}"
    moving.mkdir()  # from now on what lies in `folder` is of the earlier run
    flush(folder)
    _finish_moving(folder)


def _finish_moving(folder: Path) -> None:
    """Collect the earlier run in its hidden folder, then show it, by one rename; also what a killed call began."""
    for moving in folder.glob(f".{ASIDE}[0-9]*"):
        for path in _left(folder):
            path.rename(moving / path.name)
        aside = folder / moving.name.removeprefix(".")
        moving.rename(aside)
        flush(folder)
        print(f"{folder} held an earlier run: moved to its subfolder {aside.name}", file=sys.stderr)


def _left(folder: Path) -> list[Path]:
    """The files of a run, its result first: without one it passes for unfinished."""
    return [path for name in MINE for path in folder.glob(name)]


def lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves, by dotted key, that decide what a run computes; with those that an earlier version lacked."""
    leaves = LATER | flat(config)
    return {key: leaves[key] for key in leaves if key not in VOLATILE and key.partition(".")[0] not in VOLATILE}

"""What a worker of a study does: one job, as the command of the same words does it."""

import sys
import time
from pathlib import Path

from fieldctr.commands.baseline_run import train_baseline
from fieldctr.commands.launch import compose
from fieldctr.commands.machine import start_runtime
from fieldctr.commands.train import train as train_run
from fieldctr.commands.vectors import text_folders, vectors
from fieldctr.config import TrainConfig, parse
from fieldctr.data.prepare import prepared
from fieldctr.disk import remove, sentence
from fieldctr.errors import UserError
from fieldctr.locks import HeldError
from fieldctr.studies.jobs import Job, Status
from fieldctr.training import checkpoint

HELD_S = 60.0  # for a worker of a study that was killed to leave the folder


def work(job: Job) -> tuple[Status, str]:
    """Do the job, or go on with it; what a user or the machine can be told of in a sentence is told so."""
    end = time.monotonic() + HELD_S
    while True:
        try:
            KINDS[job.kind](job)
        except UserError as error:
            if isinstance(error.__cause__, HeldError) and time.monotonic() < end:
                time.sleep(1)
                continue
            return "failed", str(error)
        except MemoryError as error:
            return "failed", f"the memory is full{f': {error}' if str(error) else ''}"
        except OSError as error:
            return "failed", sentence(error)
        return "done", ""


def make_stages(job: Job) -> None:
    """Prepare the table, and make the vectors, that the runs of these words read."""
    config = parse(TrainConfig, compose("train", job.words, config_dir=job.config_dir), "")
    outputs = Path(config.outputs)
    runtime = start_runtime(config.runtime, config.trainer, outputs=outputs)
    dataset = prepared(config.dataset, data_dir=outputs / "data", schema=config.schema)
    texts = text_folders(config, dataset, runtime.device)
    vectors(config, dataset, runtime.device, texts=texts)


def train(job: Job) -> None:
    """Train a run, or a trial of a search. The run records the call that repeats it, not the study's."""
    node = compose("train", job.words, config_dir=job.config_dir)
    place = [f"hydra.run.dir={job.folder}"]
    sys.argv = ["fieldctr train", *(["--config-dir", job.config_dir] if job.config_dir else []), *job.words, *place]
    train_run(node | {"choices": node["choices"] | {"settings": job.origin}}, folder=job.folder)
    if not node["evaluate_test"]:
        remove([job.folder / checkpoint.FOLDER])  # a trial that has finished never goes on, and there are many


def baseline(job: Job) -> None:
    """Boosted trees, or logistic regression at its optimum, in the form of a run."""
    train_baseline(job.kind, compose("baseline", job.words, config_dir=job.config_dir), job.folder)


KINDS = {"stages": make_stages, "train": train, "lightgbm": baseline, "logistic": baseline}

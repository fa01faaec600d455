"""`fieldctr train`: prepare, build, fit, evaluate, record."""

import contextlib
import itertools
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from fieldctr.artifacts import digest
from fieldctr.commands.beginning import beginning, settings_name
from fieldctr.commands.ending import ending
from fieldctr.commands.finished import FinishedRun
from fieldctr.commands.machine import start_runtime, torch_as_it_was
from fieldctr.commands.pictures import draw, inside
from fieldctr.commands.pretraining import pretrain, refuse_misfit_stage
from fieldctr.commands.show import summary
from fieldctr.commands.vectors import text_folders, vectors
from fieldctr.config import TrainConfig, parse
from fieldctr.data.dataset import Dataset
from fieldctr.data.frames import FOLDER, AnyFrame, in_place_of_files
from fieldctr.data.npy import save_alone
from fieldctr.data.prepare import prepared
from fieldctr.data.test_reads import note_test_read, sealed_test
from fieldctr.disk import replacing
from fieldctr.errors import UserError
from fieldctr.launched import launched, refuse_many
from fieldctr.llm.account import offline
from fieldctr.models.ctr_model import (
    CTRModel,
    adds_fields,
    build_model,
    flops_per_sample,
    reads_text_vectors,
    reads_value_vectors,
    refuse_misfits,
)
from fieldctr.runs import CODE, MODEL, SCHEMA, FollowedRun, Run, config_digest, finished, shown_name
from fieldctr.schema import Schema
from fieldctr.signals import Interrupted
from fieldctr.tracking import Tracker
from fieldctr.training import checkpoint, optim, torchrec_pair
from fieldctr.training.evaluate import Evaluation, evaluate
from fieldctr.training.first_bias import start_at_click_rate
from fieldctr.training.metrics import metric_class
from fieldctr.training.optim import learning_rates
from fieldctr.training.pace import Pace
from fieldctr.training.ranks import Ranks, joined
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Fit, Record, Trainer
from fieldctr.trust import own_code


def train(config: Mapping[str, Any], frame: AnyFrame | None = None, *, folder: str | Path | None = None) -> FinishedRun:
    """Run or resume the training that `compose("train", [...])` describes; gives the finished run.

    A polars or pandas `frame` takes the place of the source's files: its content decides the table's digest. Without
    `folder` the run gets a new one below `outputs`. Ctrl-C leaves the newest checkpoint and nothing half-written:
    resume=true and the same `folder` go on from there. Processes that torchrun started make one run together.
    """
    node = dict(config)
    settings = parse(TrainConfig, node, "")
    if settings.trainer.dry_run:
        raise UserError("trainer.dry_run=true trains nothing, so there is no run to give. Take it on the command line")
    with joined(settings.runtime.ranks) as ranks:
        node["runtime"] = {**node["runtime"], "ranks": ranks.world}
        if frame is not None:
            with ranks.first():
                node["dataset"] = in_place_of_files(settings.dataset, frame, Path(settings.outputs))
            settings = replace(settings, dataset=node["dataset"])
        place = ranks.once(lambda: new_folder(settings) if folder is None else Path(folder))
        if not (settings.resume and ranks.once(lambda: finished(place, node))):
            with torch_as_it_was(), resumable(place), opened(place, node, settings, ranks) as run:
                if ranks.once(lambda: run.result) is None:  # another process may have finished it meanwhile
                    walk(settings, run, ranks)
        ranks.wait()
        return FinishedRun(place, outputs=Path(settings.outputs))


def opened(folder: Path, node: Mapping[str, Any], config: TrainConfig, ranks: Ranks) -> Run:
    """The run of `folder`, which rank 0 alone writes."""
    return FollowedRun(folder, node) if ranks.rank else Run.start(folder, node, resume=config.resume)


def main(node: dict[str, Any], folder: Path) -> None:
    """Train in `folder`, or say what that would take."""
    config = parse(TrainConfig, node, "")
    if not config.trainer.dry_run:
        try:
            run = train(node, folder=folder)
        finally:
            with contextlib.suppress(OSError):
                if launched().rank:
                    folder.rmdir()  # Hydra made one for each process; the run's has files
        if not launched().rank:
            print(summary(run.result, folder))
        return
    refuse_many("trainer.dry_run=true")
    from fieldctr.commands.dry_run import dry_run

    print(dry_run(config))
    with contextlib.suppress(OSError):
        folder.rmdir()  # Hydra made it; one that holds a run stays


def new_folder(config: TrainConfig) -> Path:
    """One below `outputs` that is not there yet, named as the command line names it."""
    name = f"{config.choice('dataset')}_{config.choice('model')}_seed{config.seed}"
    path = Path(config.outputs) / "train" / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{name}"
    others = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], others) if not one.exists())


@contextlib.contextmanager
def resumable(folder: Path) -> Generator[None]:
    """A signal inside says where the run stands, and how the call goes on."""
    try:
        yield
    except Interrupted as stop:
        step = checkpoint.newest(folder)
        at = "before its first checkpoint" if step is None else f"at step {step:,}; a checkpoint of it is"
        stop.kept = f" {at} in {folder}"
        stop.go_on = {"hydra.run.dir": str(folder), "resume": "true"}
        raise


def walk(config: TrainConfig, run: Run, ranks: Ranks) -> None:
    """The walk of README, in its order."""
    refuse_mistakes(config, ranks)
    outputs = Path(config.outputs)
    runtime = start_runtime(config.runtime, config.trainer, outputs=outputs, ranks=ranks)
    mirrored = replace(config.tracker, name="none") if ranks.rank else config.tracker
    tracker = Tracker(mirrored, run.folder, shown_name(run.folder), run.config)
    with run.stage("prepare"), ranks.first():
        dataset = prepared(config.dataset, data_dir=outputs / "data", schema=config.schema)
    run.reads([dataset.folder, *frame_folders(config)])
    with run.stage("text_vectors"), ranks.first():
        texts = text_folders(config, dataset, runtime.device)
    if config.evaluate_test:
        walk_on(config, run, dataset, runtime, tracker, texts=texts)
        return
    with sealed_test(dataset) as sealed:
        walk_on(config, run, sealed, runtime, tracker, texts=texts)


def walk_on(
    config: TrainConfig, run: Run, dataset: Dataset, runtime: Runtime, tracker: Tracker, *, texts: dict[str, Path]
) -> None:
    """From the prepared table, and the folders of its texts' vectors, to the record."""
    with run.stage("field_vectors"), runtime.ranks.first():
        read = vectors(config, dataset, runtime.device, texts=texts)
    run.reads([dataset.folder, *read.folders, *frame_folders(config)])
    with run.stage("build"):
        model = build_model(
            dataset.schema,
            dim=config.embedding_dim,
            model=config.model,
            enhancer=config.enhancer,
            seed=config.seed,
            field_embeddings=read.fields,
            text_vectors=read.texts,
            value_vectors=read.values,
            id_dropout=config.id_dropout,
        )
        start = warm_started(model, config, dataset, read.fields)
    if code := own_code(run.config):
        run.note({CODE: code})
    if config.train_rows != "all":
        dataset = replace(dataset, train=dataset.train.sample(config.train_rows, seed=config.seed))
    start |= pretrain(model, config, run, dataset=dataset, runtime=runtime, vectors=read.fields)
    accounts = [*read.accounts, *([start["pretraining"]] if "pretraining" in start else [])]
    begun = begin(model, dataset, config)
    size, flops = model.num_parameters(), flops_per_sample(model, dataset.schema)
    for line in beginning(config, run.folder, dataset, model, runtime=runtime, begun=begun):
        say(line)

    with tracker:
        with run.stage("fit"):
            fit = fitted(model, dataset, config, runtime, run=run, tracker=tracker)
        with run.stage("evaluate"):
            found = evaluated(model, dataset, config, runtime, run)
        if runtime.ranks.rank:
            return
        record_model(run.folder, dataset.schema, model, found)
        matrices = inside(dataset, model, runtime)
        with run.stage("draw"):
            known = {"seed": config.seed, "best_step": fit.best_step, "data_digest": dataset.digest}
            fields = (model.schema or dataset.schema).fields
            pictures = draw(run, dataset, matrices, known, fields) if config.evaluate_test else {}
        scores = {f"{name}/{key}": value for name, split in found.items() for key, value in split.metrics.items()}
        tracker.finish(scores, pictures)
    run.finish(
        {
            "dataset": dataset.name,
            **{group: config.choice(group) for group in ("model", "enhancer", "ablation", "schema")},
            **read.origin,
            **start,
            **({"offline": offline(accounts)} if accounts else {}),
            "settings": settings_name(config),
            "seed": config.seed,
            **{name: split.metrics for name, split in found.items()},
            "num_parameters": size,
            "num_fields": dataset.schema.num_fields,
            "num_rows": {name: len(getattr(dataset, name)) for name in ("train", *found)},
            "flops_per_sample": flops,
            "learning_rates": learning_rates(model, config.optimizer),
            **begun,
            **ending(fit, config, run.folder, dataset),
            "peak_memory_mb": round(runtime.peak_memory_mb()),
            "runtime": runtime.describe(),
            "ranks": runtime.ranks.world,
            "data_digest": dataset.digest,
            "schema_digest": dataset.schema.fingerprint(),
        }
    )


def begin(model: CTRModel, dataset: Dataset, config: TrainConfig) -> dict[str, Any]:
    """Set the output bias of a model that is to be trained from the start; what result.json says of how it begins."""
    moved = config.trainer.first_bias == "log_odds" and config.warm_start is None
    bias = start_at_click_rate(model, dataset.train) if moved else None
    return {"pace": Pace.of(config.trainer, len(dataset.train))._asdict(), "first_bias": bias}


def refuse_mistakes(config: TrainConfig, ranks: Ranks) -> None:
    """UserError for what can be known before the table is read, and not after the first evaluation."""
    named = f"model={config.choice('model')} and enhancer={config.choice('enhancer')}"
    refuse_misfits(config.model, config.enhancer, named=named)
    optim.refuse_misfits(config.optimizer)
    torchrec_pair.refuse_misfits(config.embedding, config.trainer, config.optimizer, ranks.world)
    if config.warm_start and adds_fields(config.enhancer):
        raise UserError(
            f"warm_start and enhancer={config.choice('enhancer')} do not go together: it adds fields, whose weights no "
            "table can match. Take enhancer=none, or warm_start=null"
        )
    if config.warm_start and reads_value_vectors(config.enhancer):
        raise UserError(
            f"warm_start and enhancer={config.choice('enhancer')} do not go together: it reads the values of this "
            "table, and the run's weights are of its own. Take another enhancer, or warm_start=null"
        )
    if config.schema and reads_text_vectors(config.enhancer):
        raise UserError(
            f"schema={config.choice('schema')} changes the fields, and enhancer={config.choice('enhancer')} reads the "
            "entities as the dataset's YAML gives them. Use schema=none"
        )
    refuse_misfit_stage(config)
    for path in config.trainer.extra_metrics:
        metric_class(path)


def warm_started(model: CTRModel, config: TrainConfig, dataset: Dataset, vectors: dict[str, Tensor]) -> dict[str, Any]:
    """What result.json says of the run whose weights `model` takes over; nothing without one."""
    if config.warm_start is None:
        return {}
    from fieldctr.commands.warm_start import warm_start

    return {"warm_start": warm_start(model, Path(config.warm_start), config, dataset, vectors)}


def frame_folders(config: TrainConfig) -> Iterator[Path]:
    """Where the frame lies that the table was made of, if it was one."""
    folder = Path(str(config.dataset["raw_dir"]))
    if folder.parent == Path(config.outputs) / FOLDER:
        yield folder


def fitted(
    model: CTRModel, dataset: Dataset, config: TrainConfig, runtime: Runtime, *, run: Run, tracker: Tracker
) -> Fit:
    """Fit the model, or go on with it; each evaluation goes to metrics.jsonl and to the tracker."""

    def log(record: Record) -> None:
        run.log(record)
        tracker.log(record, step=int(record["step"]))

    return Trainer(config.trainer, config.optimizer, runtime, seed=config.seed, embedding=config.embedding).fit(
        model,
        dataset.train,
        dataset.valid,
        folder=run.folder,
        name=digest({"config": config_digest(run.config), "data": dataset.digest}),
        resume=config.resume,
        log=log,
        rewrite=run.rewrite_metrics,
    )


def evaluated(
    model: CTRModel, dataset: Dataset, config: TrainConfig, runtime: Runtime, run: Run
) -> dict[str, Evaluation]:
    """The fitted model on valid and, here only, on test, which the ledger is told; a trial on valid alone."""
    splits, settings = {"valid": dataset.valid}, config.trainer
    if config.evaluate_test:
        if not runtime.ranks.rank:
            note_test_read(dataset.folder, command="train", run=run.folder, config_digest=config_digest(run.config))
        splits["test"] = dataset.test
    return {
        name: evaluate(model, split, batch_size=settings.eval_batch_size, runtime=runtime, extra=settings.extra_metrics)
        for name, split in splits.items()
    }


def record_model(folder: Path, schema: Schema, model: CTRModel, found: dict[str, Evaluation]) -> None:
    """Leave the model, its schema and the scores."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / MODEL) as temporary:
        save_file(state, temporary)
    schema.save(folder / SCHEMA)
    for name, evaluation in found.items():
        save_alone(folder / f"{name}.scores.npy", evaluation.logit)


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(text, file=sys.stderr)

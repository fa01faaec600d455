"""`fieldctr train`: prepare, build, fit, evaluate, record."""

import contextlib
import sys
import warnings
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fieldctr.artifacts import digest
from fieldctr.catalog import options
from fieldctr.commands.launch import choice, run_folder
from fieldctr.commands.machine import start_runtime
from fieldctr.commands.trained import downsampled
from fieldctr.config import TrainConfig, TrainerConfig, parse
from fieldctr.data.batches import Batches
from fieldctr.data.dataset import Dataset
from fieldctr.data.npy import save_alone
from fieldctr.data.prepare import prepared
from fieldctr.data.table import SPLITS
from fieldctr.disk import replacing
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import (
    CTRModel,
    build_model,
    flops_per_sample,
    reads_field_embeddings,
    refuse_misfits,
)
from fieldctr.models.hooks import hook
from fieldctr.runs import MODEL, SCHEMA, Run, config_digest, finished
from fieldctr.schema import Schema
from fieldctr.signals import Interrupted
from fieldctr.tracking import Tracker
from fieldctr.training import checkpoint, optim
from fieldctr.training.diagnostics import ROWS, diagnostics
from fieldctr.training.evaluate import Evaluation, evaluate
from fieldctr.training.metrics import metric_class
from fieldctr.training.optim import learning_rates, lr_scales
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Fit, Record, Trainer


def main(node: dict[str, Any]) -> None:
    """Run or resume the training that `node` describes, in Hydra's run folder."""
    config, folder = parse(TrainConfig, node, ""), run_folder()
    if config.trainer.dry_run:
        from fieldctr.commands.dry_run import dry_run

        print(dry_run(config))
        with contextlib.suppress(OSError):
            folder.rmdir()  # Hydra made it; one that holds a run stays
        return
    result = finished(folder, node) if config.resume else None
    if result is None:
        with resumable(folder), Run.start(folder, node, resume=config.resume) as run:
            result = run.result or train(config, run)
    print(summary(result, folder))


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


def train(config: TrainConfig, run: Run) -> dict[str, Any]:
    """The walk of README, in its order; gives the content of result.json."""
    for path in config.trainer.extra_metrics:
        metric_class(path)  # a mistake is worth a sentence now, not after the first evaluation
    named = f"model={choice('model')} and enhancer={choice('enhancer')}"
    refuse_misfits(config.model, config.enhancer, named=named)
    optim.refuse_misfits(config.optimizer)
    outputs = Path(config.outputs)
    runtime = start_runtime(config.runtime, config.trainer, outputs=outputs)
    tracker = Tracker(config.tracker, run.folder, run.folder.name, run.config)
    with run.stage("prepare"):
        dataset = prepared(config.dataset, data_dir=outputs / "data", schema=config.schema)
    run.reads([dataset.folder])
    with run.stage("field_vectors"):
        vectors, origin = field_vectors(config, dataset, runtime.device)
    vector_folders = [outputs / "field_embeddings" / one["digest"] for one in origin.values()]
    run.reads([dataset.folder, *vector_folders])
    with run.stage("build"):
        model = build_model(
            dataset.schema,
            dim=config.embedding_dim,
            model=config.model,
            enhancer=config.enhancer,
            seed=config.seed,
            field_embeddings=vectors,
        )
        start = {}
        if config.warm_start is not None:
            from fieldctr.commands.warm_start import warm_start

            start = {"warm_start": warm_start(model, Path(config.warm_start), config, dataset, vectors)}
    if config.train_rows != "all":
        dataset = replace(dataset, train=dataset.train.sample(config.train_rows, seed=config.seed))
    size, flops = model.num_parameters(), flops_per_sample(model, dataset.schema)
    say(f"{choice('model')} on {dataset.name}: {size['embedding']:,} embedding + {size['dense']:,} dense parameters")
    for share in sorted({scale for scale in lr_scales(model, config.optimizer.base_width).values() if scale < 1}):
        say(f"wide matrices learn at {share:.3g} of optimizer.lr: {share * config.optimizer.lr:.3g}")
    say(f"{runtime.describe()}; settings: {settings_name()}; results go to {run.folder}")
    for note in how_rows_count(dataset, config.trainer):
        say(note)

    with tracker:
        with run.stage("fit"):
            fit = fitted(model, dataset, config, runtime, run=run, tracker=tracker)
        with run.stage("evaluate"):
            found = evaluated(model, dataset, config.trainer, runtime)
        record_model(run.folder, dataset.schema, model, found)
        pictures = draw(run.folder, dataset, model, runtime)
        scores = {f"{name}/{key}": value for name, split in found.items() for key, value in split.metrics.items()}
        tracker.finish(scores, pictures)
    return run.finish(
        {
            "dataset": dataset.name,
            "model": choice("model"),
            "enhancer": choice("enhancer"),
            "ablation": choice("ablation"),
            "schema": choice("schema"),
            **origin,
            **start,
            "settings": settings_name(),
            "seed": config.seed,
            "valid": found["valid"].metrics,
            "test": found["test"].metrics,
            "num_parameters": size,
            "num_fields": dataset.schema.num_fields,
            "num_rows": {name: len(getattr(dataset, name)) for name in SPLITS},
            "flops_per_sample": flops,
            "learning_rates": learning_rates(model, config.optimizer),
            "best_step": fit.best_step,
            "stopped": fit.stopped,
            "samples": fit.samples,
            "samples_per_s": round(fit.samples_per_s),
            "fit_seconds": {stage: round(value, 3) for stage, value in fit.seconds.items()},
            "peak_memory_mb": round(runtime.peak_memory_mb()),
            "runtime": runtime.describe(),
            "data_digest": dataset.digest,
            "schema_digest": dataset.schema.fingerprint(),
        }
    )


def how_rows_count(dataset: Dataset, trainer: TrainerConfig) -> Iterator[str]:
    """What a reader of the metrics must know of the samples."""
    if dataset.train.weight is not None:
        yield "samples count by their weights, in the loss and in all metrics"
        if trainer.extra_metrics:
            yield "trainer.extra_metrics know no weights and count each sample once: their names end in _unweighted"
    if dataset.negative_rate is not None:
        yield downsampled(dataset.negative_rate)


def fitted(
    model: CTRModel, dataset: Dataset, config: TrainConfig, runtime: Runtime, *, run: Run, tracker: Tracker
) -> Fit:
    """Fit the model, or go on with it; each evaluation goes to metrics.jsonl and to the tracker."""

    def log(record: Record) -> None:
        run.log(record)
        tracker.log(record, step=int(record["step"]))

    return Trainer(config.trainer, config.optimizer, runtime, seed=config.seed).fit(
        model,
        dataset.train,
        dataset.valid,
        folder=run.folder,
        name=digest({"config": config_digest(run.config), "data": dataset.digest}),
        resume=config.resume,
        log=log,
        rewrite=run.rewrite_metrics,
    )


def evaluated(model: CTRModel, dataset: Dataset, trainer: TrainerConfig, runtime: Runtime) -> dict[str, Evaluation]:
    """The fitted model on valid and, here only, on test."""
    return {
        name: evaluate(model, split, batch_size=trainer.eval_batch_size, runtime=runtime, extra=trainer.extra_metrics)
        for name, split in (("valid", dataset.valid), ("test", dataset.test))
    }


def field_vectors(
    config: TrainConfig, dataset: Dataset, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the model and the enhancer read of a language model, and what result.json says of it; mostly nothing."""
    vectors, origins = {}, {}
    for name, node, key in (
        ("model", config.model, "model_field_embeddings"),
        ("enhancer", config.enhancer, "field_embeddings"),
    ):
        if node and reads_field_embeddings(node, name):
            if config.schema:
                raise UserError(
                    f"schema={choice('schema')} changes the fields, and {name}={choice(name)} reads their names and "
                    f"entities as the dataset's YAML gives them. Use schema=none; {name}.source=permuted shuffles names"
                )
            from fieldctr.commands.field_vectors import vectors_for

            outputs = Path(config.outputs)
            vectors[name], found = vectors_for(
                node, name, dataset, config.dataset, config.encoder, outputs=outputs, device=device, seed=config.seed
            )
            origin = {"encoder": choice("encoder"), "source": node["source"], "digest": found.folder.name}
            origins[key] = origin | {"history": found.account["history"], "cost": found.account["cost"]}
    return vectors, origins


def record_model(folder: Path, schema: Schema, model: CTRModel, found: dict[str, Evaluation]) -> None:
    """Leave the model, its schema and the scores."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / MODEL) as temporary:
        save_file(state, temporary)
    schema.save(folder / SCHEMA)
    for name, evaluation in found.items():
        save_alone(folder / f"{name}.scores.npy", evaluation.logit)


def draw(folder: Path, dataset: Dataset, model: CTRModel, runtime: Runtime) -> dict[str, Path]:
    """Leave pictures of what the backbone can say of its inside, by name, and say what is wrong with it."""
    backbone, matrices = model.backbone, {}
    if pair_weights := hook(backbone, "pair_weights"):
        matrices["field_pairs"] = pair_weights()
    found = diagnostics(model, next(Batches(dataset.valid, batch_size=ROWS, device=runtime.device).ordered()).inputs)
    if found:
        matrices |= found.matrices
        for text in found.warnings:
            warnings.warn(text, stacklevel=2)
    if not matrices:
        return {}
    from fieldctr.analysis.plots import heatmap, save

    pictures, names = {}, [field.name for field in dataset.schema.fields]
    for name, matrix in matrices.items():
        figure = heatmap(names, matrix.detach().float().cpu().numpy(), f"{folder.name}: {name.replace('_', ' ')}")
        pictures[name] = save(figure, folder / name)
    return pictures


def settings_name() -> str:
    """The searched settings that the defaults list took for this run, or that there are none."""
    taken = [f"{group}/{choice(group)}" for group in ("tuned", "arm") if choice(group) in options(group)]
    return ", ".join(name for name in taken if not name.endswith("/none")) or "defaults"


def summary(result: dict[str, Any], folder: Path) -> str:
    """What a person wants to know first."""
    test, valid = result["test"], result["valid"]
    share = f", {test['attainable_share']:.1%} of what is attainable" if "attainable_share" in test else ""
    return (
        f"{result['model']} on {result['dataset']}, seed {result['seed']}: "
        f"test AUC {test['auc']:.4f}{share}, LogLoss {test['logloss']:.4f}; valid AUC {valid['auc']:.4f}\n"
        f"best step {result['best_step']}, {result['stopped']}; {result['samples_per_s']:,} samples/s, "
        f"{sum(result['seconds'].values()):.0f} s in all; {folder}/result.json"
    )


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(text, file=sys.stderr)

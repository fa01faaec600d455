"""Fit a model: one loop for CPU and CUDA, early stopping, averaged weights, resumable at any step.

A signal ends it after the step or the evaluation batch of that moment, with a checkpoint of this very step; an
evaluation that it cuts short is the first thing that a resumed fit does.

Source: training settings of LLaCTR's released code (istarryn/LLaCTR).
Differs: evaluates several times an epoch, because deep CTR models peak after one pass; keeps averaged weights.
"""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fieldctr import signals
from fieldctr.config import EmbeddingConfig, OptimizerConfig, TrainConfig, TrainerConfig
from fieldctr.data.batches import Batches
from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.training import checkpoint
from fieldctr.training.causes import causes, refuse_alike, worse_than_nothing
from fieldctr.training.compile import compile_backbone
from fieldctr.training.diagnostics import ROWS, diagnose
from fieldctr.training.evaluate import evaluate
from fieldctr.training.loss import batch_loss
from fieldctr.training.optim import Optimizer
from fieldctr.training.pace import Pace
from fieldctr.training.progress import Progress
from fieldctr.training.recompute import keep_activations, recompute_layers
from fieldctr.training.runtime import Runtime
from fieldctr.training.stopping import Record, State, decide, judge


class Fit(NamedTuple):
    """How a fit went. The model holds the best weights."""

    best_step: int
    best: Record  # the record of the best evaluation
    history: list[Record]
    seconds: dict[str, float]  # train, evaluate, checkpoint; of all lives of a resumed run
    samples: int  # trained on, repetitions counted
    samples_per_s: float
    stopped: str  # why
    cut: bool  # by the budget of epochs, not by patience


class Trainer:
    """Fits models with one set of settings."""

    def __init__(
        self,
        settings: TrainerConfig,
        optimizer: OptimizerConfig,
        runtime: Runtime,
        *,
        seed: int,
        embedding: EmbeddingConfig = TrainConfig.embedding,
    ) -> None:
        self.settings, self.optimizer, self.runtime, self.seed = settings, optimizer, runtime, seed
        self.embedding = embedding

    def fit(
        self,
        model: nn.Module,
        train: Split,
        valid: Split,
        *,
        folder: Path | None = None,
        name: str = "",
        resume: bool = False,
        log: Callable[[Record], None] = lambda record: None,
        rewrite: Callable[[list[Record]], None] = lambda records: None,
    ) -> Fit:
        """Train until patience or epochs run out; the best averaged weights end up in `model`.

        `folder` gets the checkpoints, which are of the fit of this `name` alone; with `resume` the newest one there is
        where the fit goes on, and `rewrite` is called first with the evaluations before it. `log` is called after each
        evaluation. UserError when the loss or the logits become useless, and when valid's rows are all alike.
        """
        refuse_alike(valid)
        fitting = Fitting(self, model.to(self.runtime.device), train, valid, folder, name=name)
        try:
            if resume and fitting.load():
                rewrite(fitting.state.history)
            fitting.run(log)
        finally:
            fitting.optimizer.close()
            keep_activations(model)
        return fitting.result()


class Fitting:
    """One fit in progress."""

    def __init__(
        self, trainer: Trainer, model: nn.Module, train: Split, valid: Split, folder: Path | None, *, name: str = ""
    ) -> None:
        self.settings, self.runtime, self.seed = trainer.settings, trainer.runtime, trainer.seed
        self.model, self.train, self.valid, self.folder, self.name = model, train, valid, folder, name
        self.ranks = self.runtime.ranks
        self.ranks.unite(model)
        self.pace = Pace.of(self.settings, len(train))
        self.batches = Batches(train, batch_size=self.pace.batch_size, device=self.runtime.device)
        self.steps_per_epoch = len(self.batches)
        self.total_steps = self.settings.max_epochs * self.steps_per_epoch
        self.eval_steps = eval_positions(self.steps_per_epoch, self.pace.evals_per_epoch)
        eps = trainer.optimizer.eps + trainer.optimizer.sample_eps / self.pace.batch_size
        self.optimizer = Optimizer(
            model,
            replace(trainer.optimizer, eps=eps),
            clip_norm=self.settings.clip_norm,
            ema_decay=self.settings.ema_decay,
            ranks=self.ranks,
            embedding=trainer.embedding,
        )
        self.state = State(lr=trainer.optimizer.lr)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.runtime.device)  # since the last evaluation
        self.losses = 0
        self.best: dict[str, Tensor] = {}
        self.warned = False
        self.sample = next(Batches(train, batch_size=ROWS, device=self.runtime.device).ordered())
        torch.manual_seed(self.ranks.seed(self.seed))  # dropout
        if self.settings.activation_checkpointing:
            recompute_layers(model)
        if self.settings.compile:
            graphs = self.settings.compile == "graphs"
            compile_backbone(model, graphs=graphs, deterministic=self.settings.deterministic)

    def run(self, log: Callable[[Record], None]) -> None:
        """Epoch by epoch, from wherever the state stands."""
        self.clock = self.saved = time.perf_counter()
        steps = {"total_steps": self.total_steps, "step": self.state.step}
        with signals.deferred(), Progress(**steps, batch_size=self.pace.batch_size) as progress:
            self.model.train()
            try:
                if self.due:
                    self.record(progress, log)
                while not self.state.stopped:
                    epoch, start = divmod(self.state.step, self.steps_per_epoch)
                    self.run_epoch(epoch, start, progress, log)
            except signals.Interrupted:
                self.save()
                raise

    def run_epoch(self, epoch: int, start: int, progress: Progress, log: Callable[[Record], None]) -> None:
        for inputs, label, weight in self.batches.shuffled(self.seed, epoch, start, part=self.ranks.block):
            self.train_step(inputs, label, weight)
            with self.ranks.together():
                signals.check()
            if self.due:
                self.record(progress, log)
                if self.state.stopped:
                    return
                continue  # the mean loss has just started anew
            if self.overdue():
                self.save()
            progress.tick(self.state.step, self.epochs, self.mean_loss)

    def overdue(self) -> bool:
        """Whether the last checkpoint is too old. Where tables lie in shards all ranks agree: each has rows."""
        late = time.perf_counter() - self.saved > self.settings.checkpoint_every_s
        return bool(self.ranks.total(torch.tensor(float(late)))) if self.optimizer.sharded else late

    @property
    def due(self) -> bool:
        """Whether this step's evaluation is still to be made."""
        made = self.state.history[-1]["step"] if self.state.history else 0
        return made < self.state.step and (self.state.step - 1) % self.steps_per_epoch + 1 in self.eval_steps

    def record(self, progress: Progress, log: Callable[[Record], None]) -> None:
        """Evaluate, and say, keep and log what came out."""
        record, better = self.evaluate()
        progress.evaluated(record, better=better)
        self.save()
        log(record)

    def train_step(self, inputs: Inputs, label: Tensor, weight: Tensor | None = None) -> None:
        """Forward, backward, update. Nothing here waits for the device."""
        if self.settings.compile == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # what the last step's graph made may be overwritten
        self.optimizer.begin(self.state.lr)
        with self.runtime.autocast():
            output = self.model(inputs)
        rows = self.batches.rows_of(self.state.step % self.steps_per_epoch)
        loss = self.ranks.share(batch_loss(output, label, weight), rows)
        loss.backward()
        self.optimizer.step(self.state.lr)
        self.loss_sum += self.ranks.total(loss.detach())
        self.losses += 1
        self.state.step += 1
        self.state.samples += rows

    def evaluate(self) -> tuple[Record, bool]:
        """Evaluate the averaged weights; keep them if they are the best; decide about learning rate and stopping."""
        train_loss = self.mean_loss()
        self.lap("train")
        try:
            with self.optimizer.averaged():
                metrics = self.validate()
                better, gain = judge(self.state, metrics, self.settings)
                diagnostics = self.diagnose()
                if better:
                    self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        finally:
            self.lap("evaluate")
        record = {"step": self.state.step, "epoch": self.epochs, "lr": self.state.lr, "train_loss": train_loss}
        record |= {f"valid/{name}": value for name, value in metrics.items()}
        record |= {f"diagnostics/{name}": value for name, value in diagnostics.items()}
        decide(self.state, self.settings, gain=gain, last_step=self.total_steps)
        self.loss_sum.zero_()
        self.losses = 0
        record["seconds"] = sum(self.state.seconds.values())
        self.state.history.append(record)
        return record, better

    def validate(self) -> Record:
        """Metrics on the validation split; UserError when the model says nothing."""
        metrics, logit = evaluate(
            self.model,
            self.valid,
            batch_size=self.settings.eval_batch_size,
            runtime=self.runtime,
            extra=self.settings.extra_metrics,
        )
        if logit.min() == logit.max():
            raise UserError(
                f"step {self.state.step}: all validation logits are {logit[0]:.4g}: the model tells no samples apart. "
                f"{causes(self.model, self.valid)}; or dead units (a zero initial scale)"
            )
        complaint = "" if self.warned else worse_than_nothing(self.model, self.train, self.valid, metrics["ne"])
        if complaint:
            self.warned = True
            warnings.warn(f"step {self.state.step}: {complaint}", stacklevel=2)
        return metrics

    def diagnose(self) -> Record:
        """Numbers from inside the model, on the same rows each time: about the cost of a step on ROWS samples."""
        eager = torch.compiler.set_stance("force_eager") if self.settings.compile else contextlib.nullcontext()
        with eager:
            return diagnose(self.model, *self.sample)

    @property
    def epochs(self) -> float:
        return self.state.step / self.steps_per_epoch

    def mean_loss(self) -> float:
        """Mean training loss since the last evaluation. Waits for the device; UserError when it is not finite."""
        loss = float(self.loss_sum) / max(self.losses, 1)
        if not math.isfinite(loss):
            raise UserError(f"step {self.state.step}: the training loss is {loss}. {causes(self.model, self.train)}")
        return loss

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage's seconds."""
        now = time.perf_counter()
        self.state.seconds[stage] += now - self.clock
        self.clock = now

    def save(self) -> None:
        """A checkpoint of this very step, by rank 0."""
        if self.folder is None:
            return
        self.runtime.synchronize()
        self.lap("train")
        with self.optimizer.whole():
            self.write(self.folder)
        self.lap("checkpoint")
        self.saved = self.clock

    def write(self, folder: Path) -> None:
        if self.ranks.rank:
            return
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"optimizer/{name}": value for name, value in self.optimizer.tensors().items()}
        tensors |= {f"rng/{name}": value for name, value in rng(self.runtime.device).items()}
        tensors["loss_sum"] = self.loss_sum
        state = {"losses": self.losses, "runtime": self.runtime.describe(), **asdict(self.state)}
        checkpoint.save(folder, self.state.step, tensors, state, of=self.name)

    def load(self) -> bool:
        """Go on from the newest checkpoint of the folder; False when there is none."""
        found = checkpoint.load(self.folder, of=self.name) if self.folder else None
        if found is None:
            return False
        tensors, state = found
        with self.optimizer.whole():
            self.model.load_state_dict(part(tensors, "model"))
            self.optimizer.load(part(tensors, "optimizer"))
        self.best = {name: value.to(self.runtime.device) for name, value in part(tensors, "best").items()}
        self.loss_sum.copy_(tensors["loss_sum"])
        if self.ranks.rank:
            torch.manual_seed(self.ranks.seed(self.seed, state["step"]))
        else:
            restore_rng(part(tensors, "rng"), self.runtime.device)
        self.losses, before = state.pop("losses"), state.pop("runtime")
        if before != self.runtime.describe():
            warnings.warn(
                f"resume: this fit began on ({before}) and goes on on ({self.runtime.describe()}): "
                "its weights will not be those of an undisturbed run, bit for bit",
                stacklevel=2,
            )
        self.state = State(**state)
        return True

    def result(self) -> Fit:
        """Put the best weights into the model and sum up."""
        self.model.load_state_dict(self.best)
        state = self.state
        best = next(record for record in state.history if record["step"] == state.best_step)
        rate = state.samples / state.seconds["train"]
        return Fit(state.best_step, best, state.history, state.seconds, state.samples, rate, state.stopped, state.cut)


def eval_positions(steps_per_epoch: int, evals_per_epoch: int) -> frozenset[int]:
    """Steps of an epoch (1..steps_per_epoch) after which to evaluate; the last is one of them."""
    return frozenset(math.ceil(steps_per_epoch * i / evals_per_epoch) for i in range(1, evals_per_epoch + 1))


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named prefix/..., without it."""
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def rng(device: torch.device) -> dict[str, Tensor]:
    """States of the generators that a step may draw from."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def restore_rng(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)

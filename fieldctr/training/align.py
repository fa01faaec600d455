"""CTRL's first stage: a backbone's weights move until its view of each row finds that of the row's text in a batch.

Source: enhancers/ctrl.py, which has the loss. No label is read.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fieldctr import signals
from fieldctr.data.batches import Batches
from fieldctr.data.dataset import Split
from fieldctr.enhancers.ctrl import CTRL, Alignment
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.llm.ssft import Record, spell
from fieldctr.models.ctr_model import CTRModel
from fieldctr.nn.id_dropout import IdDropout
from fieldctr.nn.text_lookup import TextLookup, TextVectors
from fieldctr.schema import Schema
from fieldctr.training.optim import frozen


class Watch(Protocol):
    """Whom the stage tells how far it is."""

    def tick(self, step: int, epoch: float, loss: Callable[[], float]) -> None: ...

    def say(self, line: str) -> None: ...


class Aligned(NamedTuple):
    """What the stage leaves."""

    moved: dict[str, Tensor]  # those of the model's weights and buffers that are others than before, on the CPU
    history: list[Record]  # by epoch: the mean loss, and the share of views that are nearest to their own
    steps: int


class FrozenTexts(nn.Module):
    """The vectors of samples' texts, which a language model read before."""

    def __init__(self, read: TextVectors, num_columns: int) -> None:
        super().__init__()
        self.lookup = TextLookup(read, num_columns)

    def forward(self, inputs: Inputs) -> Tensor:
        """One batch -> (B, E)."""
        return self.lookup(inputs)[0]


class MaskedRows(nn.Module):
    """The placebo without a text: a sample as the model itself sees it when some of its fields are missing."""

    def __init__(self, model: CTRModel, schema: Schema, share: float) -> None:
        super().__init__()
        self.model, self.mask = model, IdDropout(schema, dict.fromkeys([field.name for field in schema.fields], share))

    def forward(self, inputs: Inputs) -> Tensor:
        """One batch -> (B, W)."""
        return self.model.representation(self.mask(inputs))


def align(
    model: CTRModel,
    texts: nn.Module,
    split: Split,
    settings: CTRL,
    *,
    device: torch.device,
    watch: Callable[[int], AbstractContextManager[Watch]],
) -> Aligned:
    """Move the weights of `model`, and those that `texts` trains, in place; the split's labels are not read.

    Draws random numbers: fork and seed the generator first.
    """
    before = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    stage = nn.ModuleList([model, texts]).to(device)
    alignment = Alignment(*_widths(model, texts, split, device), settings).to(device)
    stage.append(alignment)
    still = set(map(id, frozen(model)))
    weights = [weight for weight in stage.parameters() if weight.requires_grad and id(weight) not in still]
    optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=0.0)
    batches, history, step = Batches(split, batch_size=settings.batch_size, device=device), list[Record](), 0
    with watch(settings.epochs * len(batches)) as watching:
        for epoch in range(settings.epochs):
            loss_sum, first_sum = torch.zeros((), device=device), torch.zeros((), device=device)
            stage.train()
            for inputs, *_ in batches.shuffled(settings.seed, epoch):
                signals.check()
                loss, first = alignment(model.representation(inputs), texts(inputs))
                optimizer.zero_grad()
                loss.backward()
                optimizer.param_groups[0]["lr"] = settings.rate(step)
                optimizer.step()
                step += 1
                loss_sum += loss.detach() * len(inputs.ids)
                first_sum += first
                watching.tick(step, step / len(batches), lambda loss=loss: loss.item())
            history.append(_record(epoch, loss_sum, first_sum, len(split)))
            watching.say(f"first stage of CTRL: {spell(history[-1])}")
    after = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    moved = {name: value.contiguous() for name, value in after.items() if not torch.equal(value, before[name])}
    return Aligned(moved, history, step)


def _record(epoch: int, loss_sum: Tensor, first_sum: Tensor, rows: int) -> Record:
    """UserError for a loss that is no number, before anything of it is kept."""
    loss = float(loss_sum) / rows
    if not math.isfinite(loss):
        raise UserError(f"the first stage of CTRL: the loss of epoch {epoch + 1} is {loss}. Lower enhancer.lr")
    return {"epoch": epoch + 1, "loss": loss, "accuracy": float(first_sum) / (2 * rows)}


@torch.no_grad()
def _widths(model: CTRModel, texts: nn.Module, split: Split, device: torch.device) -> tuple[int, int]:
    """How wide the views of the model and of the texts are; UserError where the model's are no vectors."""
    inputs = next(Batches(split, batch_size=2, device=device).ordered()).inputs
    view = model.eval().representation(inputs)
    if view.dim() != 2 or len(view) != len(inputs.ids):
        raise UserError(
            f"{type(model.backbone).__name__}.representation gives shape {tuple(view.shape)} for {len(inputs.ids)} "
            "samples: expected a vector for each of them, (B, W)"
        )
    return view.shape[1], texts.eval()(inputs).shape[1]

"""The step of a model's weights, with coupled L2, clipping by the global norm, and the moving average of the weights.

Adam is for all of them, unless `embedding_rule` or `matrix_rule` has another for tables or wide matrices.
Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1; the L2 term joins the gradient after clipping, as in LLaCTR's
released code (weight_decay of torch.optim.Adam). Average: Polyak and Juditsky 1992, in its exponential form.
A module says by its hooks (models/hooks.py) that its weights are frozen, or learn or are clipped apart from all others.
Differs: the average is bias-corrected like Adam's moments (algorithm 1, line 9). Started from the initial weights it
reached the same AUC on KuaiRand (DeepFM 0.7319 against 0.7313), but its logits were still shrunk: LogLoss 0.630 against
0.599 at the best step.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from fieldctr.config import EmbeddingConfig, OptimizerConfig, TrainConfig
from fieldctr.errors import UserError
from fieldctr.models.hooks import hook
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.training.adam import Adam
from fieldctr.training.lazy import LazyTable, Schedule
from fieldctr.training.muon import Muon, is_wide
from fieldctr.training.ranks import ALONE, Ranks
from fieldctr.training.row_adagrad import RowAdagrad
from fieldctr.training.sparse_gradients import BufferedTable, RowSums, step_rows

if TYPE_CHECKING:
    from fieldctr.training.torchrec_tables import ShardedTable


class Optimizer:
    """One step for all weights of a model, and their average. No call waits for the device."""

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        *,
        clip_norm: float | None,
        ema_decay: float | None,
        ranks: Ranks = ALONE,
        embedding: EmbeddingConfig = TrainConfig.embedding,
    ) -> None:
        self.model, self.ranks = model, ranks
        self.clip_norm, self.ema_decay, self.steps = clip_norm, ema_decay, 0
        refuse_misfits(config)
        device, scales = next(model.parameters()).device, scales_of(model, config)
        self.frozen, self.clip_groups = frozen(model), clip_groups(model)
        apart = {id(weight) for weight in (*self.frozen, *(one for group in self.clip_groups for one in group.weights))}
        self.sharded: dict[str, ShardedTable] = {}
        if embedding.engine == "torchrec":
            from fieldctr.training.torchrec_tables import sharded_tables  # 7 s, and not everywhere

            self.sharded = sharded_tables(model, embedding, config, ranks, apart=apart, scales=scales)
        tables = {name: module for name, module in model.named_modules() if isinstance(module, EmbeddingTable)}
        self.lazy: dict[str, LazyTable] = {}
        self.rowwise: dict[str, RowAdagrad] = {}
        self.buffered: list[BufferedTable] = []
        learning = {name: table for name, table in tables.items() if table.weight.requires_grad}
        if config.embedding_rule == "rowwise_adagrad":
            rows = step_rows(device)
            self.rowwise = {
                name: RowAdagrad(table, rows, config, lr_scale=scales.get(id(table.weight), 1.0))
                for name, table in learning.items()
            }
        elif config.embedding_update == "lazy":
            self.schedule, rows = Schedule(config, device, averaged=ema_decay is not None), step_rows(device)
            self.lazy = {name: LazyTable(table, self.schedule, rows) for name, table in tables.items()}
        elif device.type == "cpu" or ranks.many:  # ranks exchange rows
            sums = RowSums()
            self.buffered = [BufferedTable(table, sums) for table in learning.values()]
        lazy = {id(tables[name].weight) for name in self.lazy}
        for weight in self.frozen:
            weight.grad = torch.zeros_like(weight)
        if lazy & scales.keys():
            raise UserError(
                "optimizer.embedding_update=lazy: a module with an embedding table sets lr_scale or lr_width, and lazy "
                "tables learn at the rate itself. Set them on other modules, or optimizer.embedding_update=dense"
            )
        not_dense = lazy | {id(weight) for weight in self.frozen} | {id(tables[name].weight) for name in self.rowwise}
        dense = {
            name: weight
            for name, weight in model.named_parameters()
            if weight.requires_grad and id(weight) not in not_dense
        }
        table_weights = {id(table.weight) for table in tables.values()}
        wide = wide_matrices(dense, table_weights, config) if config.matrix_rule == "muon" else {}
        rest = {name: weight for name, weight in dense.items() if name not in wide}
        self.dense = Adam(rest, config, tables=table_weights, lr_scales=scales)
        self.muon = Muon(wide, config, lr_scales=scales)
        self.average = Average(model, without=lazy) if ema_decay else None

    def begin(self, lr: float) -> None:
        """Say the learning rate before the forward pass, which takes it along for the rows of shards."""
        for table in self.sharded.values():
            table.begin(lr)

    def step(self, lr: float) -> None:
        """Apply the gradients at learning rate `lr` and clear them."""
        self.steps += 1
        decay = decay_at(self.ema_decay, self.steps) if self.ema_decay else 0.0
        if self.ranks.many:
            self.ranks.sum_gradients(self.model.parameters())
            for table in self.lazy.values():
                table.read_elsewhere()
        rows = [table.gradient() for table in (*self.lazy.values(), *self.rowwise.values())]
        buffered = {id(table.table.weight): table.gradient() for table in self.buffered}
        scale = None
        if self.clip_norm is not None:
            # Of a buffered table, only the rows that are not zero.
            clipped = {id(weight) for group in self.clip_groups for weight in group.weights}
            plain = [
                buffered.get(id(weight), weight.grad)
                for weight in (*self.dense.weights(), *self.muon.weights())
                if id(weight) not in clipped
            ]
            plain += [weight.grad for weight in self.frozen]
            norm = global_norm([gradient for gradient in plain + rows if gradient is not None])
            scale = (norm / self.clip_norm).clamp_(min=1)
        for group in self.clip_groups:
            group.clip(scale)
        self.dense.update(lr, self.steps, scale)
        self.muon.update(lr, scale)
        for table in self.buffered:
            table.clear()
        for table, gradient in zip(self.rowwise.values(), rows, strict=False):
            table.update(lr, gradient, scale)
        if self.lazy:
            self.schedule.advance(lr, decay)
            for table, gradient in zip(self.lazy.values(), rows, strict=True):
                table.update(lr, self.steps, gradient, scale, decay)
        if self.average:
            self.average.update(1 - decay)

    def close(self) -> None:
        """Leave the model's tables as they were before; their rows must be up to date."""
        for table in [*self.sharded.values(), *self.lazy.values(), *self.rowwise.values(), *self.buffered]:
            table.close()

    @contextmanager
    def averaged(self) -> Generator[None]:
        """Inside, the model holds the averaged weights of all rows up to now; outside, the raw ones again."""
        for table in self.lazy.values():
            table.flush()
        with self.whole():
            self._swap()
            try:
                yield
            finally:
                self._swap()

    @contextmanager
    def whole(self) -> Generator[None]:
        """Inside, tables are whole that lie in shards outside; all ranks go in together."""
        for table in self.sharded.values():
            table.gather()
        try:
            yield
        finally:
            for table in self.sharded.values():
                table.split()

    def _swap(self) -> None:
        if self.average:
            self.average.swap()
            for table in self.lazy.values():
                table.swap()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a later `load` needs, by name; of shards, while they are whole."""
        tensors = {"steps": torch.tensor(self.steps)} | _prefixed("dense", self.dense.tensors())
        tensors |= _prefixed("muon", self.muon.tensors())
        if self.average:
            tensors |= _prefixed("average", self.average.mean)
        if self.lazy:
            tensors |= _prefixed("schedule", self.schedule.tensors())
        for name, table in self.lazy.items():
            tensors |= _prefixed(f"lazy/{name}", table.tensors())
        for name, table in (self.rowwise | self.sharded).items():
            tensors |= _prefixed(f"rowwise/{name}", table.tensors())
        for i, weight in enumerate(self.frozen):
            assert weight.grad is not None
            tensors[f"frozen/{i}"] = weight.grad
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` of an equal model gave."""
        self.steps = int(tensors["steps"])
        if self.lazy:
            self.schedule.load(tensors["schedule/known"], self.steps)
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        for table in self.sharded.values():
            table.scatter()


class ClipGroup(NamedTuple):
    """Weights with a clip of their own, so that their large gradients do not shrink all others'."""

    weights: list[nn.Parameter]
    clip_norm: float

    def clip(self, scale: Tensor | None) -> None:
        """Clip the gradients in place, in advance of the division by `scale` that Adam does for all weights."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        if gradients:
            excess = (global_norm(gradients) / self.clip_norm).clamp_(min=1)
            torch._foreach_mul_(gradients, 1 / excess if scale is None else scale / excess)


def frozen(model: nn.Module) -> list[nn.Parameter]:
    """The weights of modules that say they never move."""
    return [weight for module in model.modules() if hook(module, "frozen") for weight in module.parameters()]


def clip_groups(model: nn.Module) -> list[ClipGroup]:
    """A group for each module that sets `clip_norm`."""
    limits = [(module, hook(module, "clip_norm")) for module in model.modules()]
    return [ClipGroup(list(module.parameters()), float(limit)) for module, limit in limits if limit is not None]


def lr_scales(model: nn.Module, base_width: int) -> dict[int, float]:
    """Factors of the learning rate by id of a weight, where its module sets `lr_scale` or `lr_width`."""
    scales = {}
    for module in model.modules():
        scale, width = hook(module, "lr_scale"), hook(module, "lr_width")
        if scale is not None or width is not None:
            factor = (1.0 if scale is None else scale) * (1.0 if width is None else min(1.0, base_width / width))
            scales |= {id(weight): factor for weight in module.parameters()}
    return scales


def scales_of(model: nn.Module, config: OptimizerConfig) -> dict[int, float]:
    """What `lr_scales` gives, and the factor of the tables' rate."""
    scales = lr_scales(model, config.base_width)
    if config.embedding_lr_scale != 1:
        tables = [module.weight for module in model.modules() if isinstance(module, EmbeddingTable)]
        scales |= {id(weight): config.embedding_lr_scale * scales.get(id(weight), 1.0) for weight in tables}
    return scales


def wide_matrices(
    weights: Mapping[str, nn.Parameter], tables: set[int], config: OptimizerConfig
) -> dict[str, nn.Parameter]:
    """The weights that Muon moves, by name; UserError where there is none."""
    width = config.matrix_width
    wide = {name: weight for name, weight in weights.items() if is_wide(weight, width) and id(weight) not in tables}
    if not wide:
        raise UserError(
            f"optimizer.matrix_rule=muon moves matrices of {width} x {width} and larger, and this model has none. Take "
            "a wider model, a smaller optimizer.matrix_width, or optimizer=adam"
        )
    return wide


def learning_rates(model: nn.Module, config: OptimizerConfig) -> dict[str, float]:
    """The rates at which a fit begins, by name of a part of the model; 0 where nothing moves.

    A part whose weights all learn at one rate stands as one.
    """
    scales, unmoved = scales_of(model, config), {id(weight) for weight in frozen(model)}
    rates = {}
    for name, weight in model.named_parameters():
        moves = weight.requires_grad and id(weight) not in unmoved
        rates[name] = config.lr * scales.get(id(weight), 1.0) if moves else 0.0
    return _by_part(rates)


def _by_part(rates: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    parts: dict[str, dict[str, float]] = {}
    for name, rate in rates.items():
        part = prefix + name.removeprefix(prefix).partition(".")[0]
        parts.setdefault(part, {})[name] = rate
    joined: dict[str, float] = {}
    for part, own in parts.items():
        alike = len(set(own.values())) == 1
        joined |= {part: next(iter(own.values()))} if alike else _by_part(own, f"{part}.")
    return joined


class Average:
    """The bias-corrected moving average of weights and floating buffers (running statistics must fit the weights)."""

    def __init__(self, model: nn.Module, *, without: set[int]) -> None:
        self.live: dict[str, Tensor] = {}
        seen = set(without)  # a shared tensor has two names
        for name, value in model.state_dict(keep_vars=True).items():
            if value.is_floating_point() and id(value) not in seen:
                self.live[name] = value
                seen.add(id(value))
        self.mean = {name: value.detach().clone() for name, value in self.live.items()}

    @torch.no_grad()
    def update(self, share: float) -> None:
        """Move by `share` of the way to the live values."""
        torch._foreach_lerp_(list(self.mean.values()), list(self.live.values()), share)

    def swap(self) -> None:
        """Exchange live and averaged values without a copy."""
        for name, value in self.live.items():
            value.data, self.mean[name].data = self.mean[name].data, value.data


def decay_at(decay: float, step: int) -> float:
    """d_t = d (1 - d^(t-1)) / (1 - d^t): with it e_t = d_t e_{t-1} + (1 - d_t) w_t is the bias-corrected average."""
    if decay == 1.0:
        return (step - 1) / step  # the limit: the plain mean
    return decay * (1 - decay ** (step - 1)) / (1 - decay**step)


def global_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients as one vector, () on their device."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def refuse_misfits(config: OptimizerConfig) -> None:
    """UserError for settings of which one makes another impossible."""
    if config.embedding_update != "lazy":
        return
    if config.embedding_rule != "adam" or config.embedding_lr_scale != 1:
        raise UserError(
            "optimizer.embedding_update=lazy is Adam at the rate itself, and cannot be had with "
            f"optimizer.embedding_rule={config.embedding_rule} at embedding_lr_scale={config.embedding_lr_scale:g}. "
            "Set optimizer.embedding_update=dense: row-wise Adagrad touches the batch's rows alone by itself"
        )
    if config.embedding_l2 > 0:
        raise UserError(
            f"optimizer.embedding_update=lazy cannot be had with optimizer.embedding_l2={config.embedding_l2:g}: "
            "L2 moves every row at every step. Set optimizer.embedding_l2=0, or optimizer.embedding_update=dense"
        )
    if config.beta1**2 >= config.beta2:
        raise UserError(
            f"optimizer.embedding_update=lazy needs beta1^2 < beta2, got {config.beta1:g} and {config.beta2:g}: "
            "else a row without gradient never comes to rest. Use optimizer.embedding_update=dense"
        )


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}

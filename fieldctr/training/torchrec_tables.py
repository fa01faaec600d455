"""Embedding tables in shards: TorchRec's planner says which rank holds which, FBGEMM's kernels read and move the rows.

Source: Ivchenko et al. 2022, "TorchRec: a PyTorch Domain Library for Recommendation Systems" (RecSys).
A shard exists while steps are taken, and no longer: for an evaluation and for a checkpoint all ranks gather the plain
table, so that nothing else knows of shards and a run is read without TorchRec. Its rows move by row-wise Adagrad within
the backward pass, as training/row_adagrad.py moves those of a plain table.
Differs: each field's rows are a table of their own, because the planner places tables, and one for all fields would lie
on one rank. Columns in shards have an Adagrad sum for each shard; a checkpoint has their mean, which is that of whole
rows, and all shards go on with it.
"""

import logging
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torch import Tensor, nn
from torchrec import EmbeddingCollection, KeyedJaggedTensor
from torchrec import EmbeddingConfig as Table
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.comm_ops import set_gradient_division
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError, Topology
from torchrec.distributed.types import ShardingEnv

from fieldctr.config import EmbeddingConfig, OptimizerConfig
from fieldctr.errors import UserError
from fieldctr.launched import launched
from fieldctr.nn.embedding import FeatureEmbedding
from fieldctr.training.ranks import Ranks, heard
from fieldctr.training.torchrec_pair import ENGINE, PAIR, installed

WIDTH = 4  # FBGEMM reads rows in vectors of four numbers
CHOICES = {"auto": ["table_wise", "row_wise"]}  # what the planner may choose of; else what was told


class Lookup(nn.Module):
    """Stands in for an EmbeddingTable whose rows lie in shards. It holds none, so that no state dict has any."""

    def __init__(self, sharded: "ShardedTable") -> None:
        super().__init__()
        self.sharded = sharded

    def forward(self, rows: Tensor) -> Tensor:
        """(B, S) row numbers -> (B, S, D)."""
        return self.sharded.look_up(rows)


class ShardedTable:
    """The shards of the table of `home`, and the plain table that stands there while it is whole."""

    def __init__(
        self, home: FeatureEmbedding, embedding: EmbeddingConfig, config: OptimizerConfig, ranks: Ranks, *, scale: float
    ) -> None:
        self.home, self.table, self.ranks, self.scale = home, home.table, ranks, scale
        weight = self.table.weight
        self.shape, self.lr = weight.shape, config.lr
        self.square_sum = torch.zeros(len(weight), device=weight.device)  # while whole
        offsets = home.row_offset.cpu()
        self.starts: list[int] = offsets.unique().tolist()  # of each field's rows
        block = torch.searchsorted(torch.tensor(self.starts), offsets.long())  # of each column
        order = block.argsort(stable=True)  # columns of one block side by side
        self.order, self.back = order.to(weight.device), order.argsort().to(weight.device)
        self.first = home.row_offset[self.order]
        self.widths: list[int] = block.bincount(minlength=len(self.starts)).tolist()
        with quiet():
            self.shards = shards_of(self.sizes(), self.shape[1], weight.device, embedding, config, lr=self.lr * scale)
        self.scatter()
        self.split()

    def sizes(self) -> list[int]:
        """Rows of each block."""
        ends = [*self.starts[1:], self.shape[0]]
        return [end - start for start, end in zip(self.starts, ends, strict=True)]

    def look_up(self, rows: Tensor) -> Tensor:
        """(B, S) row numbers of the whole table -> (B, S, D)."""
        ids = (rows.index_select(1, self.order) - self.first).split(self.widths, dim=1)
        names = [str(number) for number in range(len(self.starts))]
        widths = torch.tensor(self.widths, dtype=torch.int32, device=rows.device)
        features = KeyedJaggedTensor(
            names,
            torch.cat([part.flatten() for part in ids]).long(),
            lengths=widths.repeat_interleave(len(rows), output_size=len(rows) * len(names)),
        )
        with heard():
            found = self.shards(features)
            parts = [
                found[name].values().view(len(rows), width, self.shape[1])
                for name, width in zip(names, self.widths, strict=True)
            ]
        return torch.cat(parts, dim=1).index_select(1, self.back)

    def begin(self, lr: float) -> None:
        """The rate of the next step, whose backward pass moves the rows. The forward pass has it from here."""
        if lr != self.lr:
            self.lr = lr
            for group in self.shards.fused_optimizer.param_groups:
                group["lr"] = lr * self.scale
            self.shards.fused_optimizer.step()  # hands the rate to the kernels, and does no more

    def pieces(self) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Of each shard that is here: its rows and columns in the whole table, its weights, and its sums of squares."""
        weights, states = self.shards.state_dict(), self.shards.fused_optimizer.state_dict()["state"]
        for number, start in enumerate(self.starts):
            name = f"embeddings.{number}.weight"
            if name not in states:  # all of it lies elsewhere
                continue
            sums = states[name][f"{number}.momentum1"].local_shards()
            for shard, squares in zip(weights[name].local_shards(), sums, strict=True):
                (row, column), (rows, columns) = shard.metadata.shard_offsets, shard.metadata.shard_sizes
                here = slice(start + row, start + row + rows), slice(column, column + columns)
                yield *here, shard.tensor.detach(), squares.tensor.detach()

    @torch.no_grad()
    def gather(self) -> None:
        """Put the plain table back, with all rows of all ranks."""
        weight, width = torch.zeros(self.shape, device=self.square_sum.device), self.shape[1]
        self.square_sum.zero_()
        with quiet():
            for rows, columns, part, squares in self.pieces():
                weight[rows, columns] = part
                self.square_sum[rows] += squares * (part.shape[1] / width)
        self.table.weight.data = self.ranks.total(weight)
        self.ranks.total(self.square_sum)
        self.home.table = self.table

    @torch.no_grad()
    def scatter(self) -> None:
        """Take the shards from the whole table."""
        with quiet():
            for rows, columns, part, squares in self.pieces():
                part.copy_(self.table.weight[rows, columns])
                squares.copy_(self.square_sum[rows])

    def split(self) -> None:
        """Let the shards stand in for the plain table, and free its memory."""
        self.table.weight.data = self.table.weight.new_empty(0)
        self.home.table = Lookup(self)  # ty: ignore[invalid-assignment]

    def close(self) -> None:
        """Put the plain table back, with zeros, for weights to be loaded: other ranks may have ended."""
        if self.home.table is not self.table:
            self.table.weight.data = torch.zeros(self.shape, device=self.square_sum.device)
            self.home.table = self.table

    def tensors(self) -> dict[str, Tensor]:
        """By the names that row-wise Adagrad of a plain table has; of the moment when it was whole."""
        return {"square_sum": self.square_sum}


def sharded_tables(
    model: nn.Module,
    embedding: EmbeddingConfig,
    config: OptimizerConfig,
    ranks: Ranks,
    *,
    apart: set[int],
    scales: dict[int, float],
) -> dict[str, ShardedTable]:
    """Shards for each table whose width allows them, by its name in the model; the others stay whole in each rank.

    `apart` are ids of weights whose gradients are asked for. UserError where no table can be sharded.
    """
    found = {
        f"{name}.table": module
        for name, module in model.named_modules()
        if isinstance(module, FeatureEmbedding)
        and module.table.weight.requires_grad
        and module.table.weight.shape[1] % WIDTH == 0
        and id(module.table.weight) not in apart
    }
    if not found:
        raise UserError(
            f"{ENGINE} shards tables whose width is a multiple of {WIDTH}, and this model learns none. Set such an "
            "embedding_dim, or embedding.engine=torch"
        )
    return {
        name: ShardedTable(module, embedding, config, ranks, scale=scales.get(id(module.table.weight), 1.0))
        for name, module in found.items()
    }


def shards_of(
    sizes: list[int], dim: int, device: torch.device, embedding: EmbeddingConfig, config: OptimizerConfig, *, lr: float
) -> DistributedModelParallel:
    """This rank's shards of tables of so many rows, wherever the planner puts them. UserError where they do not fit."""
    if device.type == "cuda" and "fbgemm-gpu" not in installed():
        raise UserError(
            f"{ENGINE} on {device.type} takes the package fbgemm-gpu, and here is fbgemm-gpu-cpu. Install "
            f"fbgemm-gpu=={PAIR['FBGEMM'][0]}.*, or set runtime.device=cpu"
        )
    set_gradient_division(False)  # each rank's loss is its share already
    names = [str(number) for number in range(len(sizes))]
    tables = [
        Table(name=name, feature_names=[name], num_embeddings=size, embedding_dim=dim)
        for name, size in zip(names, sizes, strict=True)
    ]
    module = EmbeddingCollection(tables=tables, device=torch.device("meta"))
    update = {"optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "learning_rate": lr, "eps": config.eps}
    update |= {"weight_decay": config.embedding_l2, "weight_decay_mode": WeightDecayMode.L2}
    sharder = EmbeddingCollectionSharder(fused_params=update)
    try:
        plan = planner(names, dim, device, embedding).collective_plan(module, [sharder], dist.group.WORLD)
    except PlannerError as error:
        first = str(error).strip().partition("\n")[0]
        raise UserError(
            f"embedding.sharding={embedding.sharding}: TorchRec's planner found no place ({first})"
        ) from error
    env = ShardingEnv.from_process_group(dist.group.WORLD)
    return DistributedModelParallel(module, env=env, device=device, plan=plan, sharders=[sharder])


def planner(names: list[str], dim: int, device: torch.device, embedding: EmbeddingConfig) -> EmbeddingShardingPlanner:
    """TorchRec's planner for this machine, with the ways to shard that are allowed."""
    here = launched()
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    constraint = ParameterConstraints(
        sharding_types=CHOICES.get(embedding.sharding, [embedding.sharding]),
        compute_kernels=["fused"],
        min_partition=WIDTH * -(-dim // (WIDTH * here.world)),  # columns of a shard: about one shard for each rank
    )
    return EmbeddingShardingPlanner(
        topology=Topology(
            world_size=here.world, local_world_size=here.local_world, compute_device=device.type, hbm_cap=memory
        ),
        constraints=dict.fromkeys(names, constraint),
        storage_reservation=FixedPercentageStorageReservation(percentage=0.0),
    )


@contextmanager
def quiet() -> Generator[None]:
    """What TorchRec says to its own developers is not said."""
    for name in ("torchrec", "torch.fx._symbolic_trace"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

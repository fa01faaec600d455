"""Row-wise Adagrad and Muon against naive twins in float64, and rows that no device is waited for."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fieldctr.errors import UserError
from fieldctr.nn.embedding import EmbeddingTable
from fieldctr.training import muon, sparse_gradients
from fieldctr.training.optim import Optimizer, learning_rates
from fieldctr.training.sparse_gradients import RepeatedRows, RowSums

V, D, STEPS = 30, 4, 40
RULES = {"embedding_rule": "rowwise_adagrad", "embedding_lr_scale": 20.0, "matrix_rule": "muon", "matrix_width": 6}


class Net(nn.Module):
    """A table, a wide and a tall matrix, a stack of matrices, and a narrow one."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.table = EmbeddingTable(V, D, init_std=0.0)
        self.first, self.second = nn.Linear(2 * D, 12), nn.Linear(12, 6)
        self.stack = nn.Parameter(torch.zeros(3, 6, 7))
        self.last = nn.Linear(7, 1)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.second(self.first(self.table(rows).flatten(1)).tanh()).tanh()
        return (self.last((hidden @ self.stack).sum(0)).squeeze(1) - 1).square().mean()


def batches(steps: int = STEPS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [(V * torch.rand(10, 2, generator=generator) ** 3).long() for _ in range(steps)]


def optimizer(planted: ModuleType, model: nn.Module, **changes: Any) -> Optimizer:
    config = planted.optimizer_config(**{"embedding_l2": 1e-3, "dense_l2": 1e-3} | RULES | changes)
    return Optimizer(model, config, clip_norm=0.5, ema_decay=0.9)


def stepped(model: Net, own: Optimizer, given: list[Tensor]) -> None:
    for rows in given:
        model(rows).backward()
        own.step(0.01)


def by_singular_values(matrix: Tensor) -> Tensor:
    """What the iteration does to a matrix: a polynomial of each singular value, five times."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vt


def twin(steps: list[Tensor]) -> Net:
    """Each rule as its formula, in float64, row by row and matrix by matrix."""
    model, state = Net().double(), {"squares": torch.zeros(V, dtype=torch.float64)}
    for step, rows in enumerate(steps, start=1):
        model.zero_grad()
        model(rows).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                gradient = weight.grad + 1e-3 * weight
                if name == "table.weight":
                    adagrad(weight, gradient, state["squares"], set(rows.flatten().tolist()))
                elif weight.dim() > 1 and name != "last.weight":
                    momentum = state[name] = 0.95 * state.get(name, 0) + 0.05 * gradient
                    orthogonal(weight, 0.05 * gradient + 0.95 * momentum)
                else:
                    m = state[f"{name} m"] = 0.9 * state.get(f"{name} m", 0) + 0.1 * gradient
                    v = state[f"{name} v"] = 0.999 * state.get(f"{name} v", 0) + 0.001 * gradient**2
                    weight.sub_(0.01 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
    return model


def adagrad(weight: Tensor, gradient: Tensor, squares: Tensor, rows: set[int]) -> None:
    for row in rows:
        squares[row] += (gradient[row] ** 2).mean()
        weight[row] -= 0.01 * 20 * gradient[row] / (squares[row].sqrt() + 1e-8)


def orthogonal(weight: Tensor, direction: Tensor) -> None:
    matrices, directions = weight.view(-1, *weight.shape[-2:]), direction.view(-1, *weight.shape[-2:])
    for k, matrix in enumerate(directions):
        matrices[k] -= 0.01 * 0.2 * max(matrix.shape) ** 0.5 * by_singular_values(matrix)


@pytest.mark.parametrize("rows", [RowSums, RepeatedRows])
def test_the_rules_are_their_formulas(planted: ModuleType, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldctr.training.optim.step_rows", lambda device: rows())
    model, expected = Net(), twin(batches())
    stepped(model, optimizer(planted, model), batches())
    for (name, weight), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight.double(), other, rtol=1e-3, atol=1e-4, msg=name)
        assert (other - dict(Net().named_parameters())[name]).abs().max() > 0.01, "the test moves too little"


@pytest.mark.parametrize("decay", [None, 0.9])
def test_lazy_adam_with_repeated_rows_is_that_with_distinct_ones(
    planted: ModuleType, decay: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for rows in (RowSums, RepeatedRows):
        monkeypatch.setattr("fieldctr.training.optim.step_rows", lambda device, rows=rows: rows())
        model = Net()
        config = planted.optimizer_config(embedding_l2=0.0, embedding_update="lazy")
        own = Optimizer(model, config, clip_norm=0.1, ema_decay=decay)
        stepped(model, own, batches())
        with own.averaged():
            found.append([weight.detach().clone() for weight in model.parameters()])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_repeated_rows_hold_each_sum_once_and_give_it_to_every_place() -> None:
    rows = torch.tensor([7, 2, 7, 7, 0, 2])
    gradient = torch.sparse_coo_tensor(rows[None], torch.arange(6.0)[:, None], (9, 1), check_invariants=True)
    repeated = RepeatedRows()
    index = repeated.index(rows)
    sums = repeated.at(gradient, index)
    assert index.tolist() == [0, 2, 2, 7, 7, 7]
    assert sums.flatten().tolist() == [4, 6, 0, 5, 0, 0]
    assert repeated.each(sums, index).flatten().tolist() == [4, 6, 6, 5, 5, 5]
    assert isinstance(sparse_gradients.step_rows(torch.device("cuda")), RepeatedRows)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 96), (96, 64)])
def test_muon_is_torchs(shape: tuple[int, int]) -> None:
    """Which computes in bf16."""
    theirs = nn.Parameter(torch.randn(shape))
    matrix, mine = theirs.detach().clone(), theirs.detach().clone()
    torch_s = torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    momentum = torch.zeros(shape)
    for _ in range(3):
        theirs.grad = torch.randn(shape)
        momentum.lerp_(theirs.grad, 0.05)
        mine -= muon.adam_length(mine) * muon.orthogonal(theirs.grad.lerp(momentum, 0.95))
        torch_s.step()
    assert float((theirs.detach() - mine).norm() / (mine - matrix).norm()) < 0.02


def test_a_resumed_optimizer_goes_on_bit_for_bit(planted: ModuleType) -> None:
    whole, first, second = Net(), Net(), Net()
    stepped(whole, optimizer(planted, whole), batches())
    half = optimizer(planted, first)
    stepped(first, half, batches()[: STEPS // 2])
    kept = {name: tensor.clone() for name, tensor in half.tensors().items()}
    assert {"rowwise/table/square_sum", "muon/momentum/stack", "dense/first/last.weight"} <= set(kept)
    second.load_state_dict(first.state_dict())
    again = optimizer(planted, second)
    again.load(kept)
    stepped(second, again, batches()[STEPS // 2 :])
    for mine, theirs in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_penalty_on_a_whole_table_moves_all_of_it(planted: ModuleType) -> None:
    model = Net()
    own, before = optimizer(planted, model), model.table.weight.detach().clone()
    (model(batches()[0]) + model.table.weight.square().sum()).backward()
    own.step(0.01)
    assert (model.table.weight != before).all()
    own.close()
    assert not model.table.sparse


def test_tables_learn_at_a_rate_of_their_own(planted: ModuleType) -> None:
    rates = learning_rates(Net(), planted.optimizer_config(lr=0.01, embedding_lr_scale=20.0))
    assert rates["table"] == pytest.approx(0.2)
    assert rates["first"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matrix_width": 64}, "64 x 64 and larger, and this model has none"),
        ({"embedding_update": "lazy", "embedding_l2": 0.0}, "embedding_rule=rowwise_adagrad"),
        ({"embedding_update": "lazy", "embedding_l2": 0.0, "embedding_rule": "adam"}, "embedding_lr_scale=20"),
    ],
)
def test_rules_that_cannot_be_had_are_refused(planted: ModuleType, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        optimizer(planted, Net(), **changes)

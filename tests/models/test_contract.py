"""A class that breaks a promise is told which one, and how; one that breaks none is left alone."""

import re

import pytest
import torch
from torch import Tensor, nn

from fieldctr.commands import check as command
from fieldctr.errors import UserError
from fieldctr.inputs import Inputs
from fieldctr.models.contract import CONTRACTS, check
from fieldctr.models.ctr_model import CTRModel, build_model
from fieldctr.nn.embedding import LinearTerm
from fieldctr.schema import Schema

pytestmark = pytest.mark.usefixtures("trust_tests")


class Sound(nn.Module):
    """A backbone that keeps all promises; those below break one each."""

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.linear = LinearTerm(schema)
        self.first = nn.Linear(schema.num_fields * dim, 16)
        self.last = nn.Linear(16, 1)

    def net(self, emb: Tensor) -> Tensor:
        return self.last(self.first(emb.flatten(1)).relu()).squeeze(1)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.linear(inputs) + self.net(emb).float()


class Column(Sound):
    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.net(emb).unsqueeze(1)


class OneForAll(Sound):
    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.net(emb).sum()


class Pair(Sound):
    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.net(emb), self.net(emb)  # ty: ignore[invalid-return-type]


class Infinite(Sound):
    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.net(emb) / 0


class Mismatch(Sound):
    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.last(emb.flatten(1)).squeeze(1)


class Squeezed(Sound):
    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return super().forward(emb, inputs).unsqueeze(1).squeeze()


class Unseeded(Sound):
    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__(schema, dim)
        self.scale = nn.Parameter(torch.rand(4, generator=torch.Generator().manual_seed(torch.seed() % 1000)))


class Detached(Sound):
    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return self.linear(inputs) + self.net(emb.detach())


class Unused(Sound):
    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__(schema, dim)
        self.spare = nn.Linear(3, 3)


class Forgetful(Sound):
    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__(schema, dim)
        self.scale = torch.rand(1)

    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return super().forward(emb, inputs) + self.scale


class Folding(Sound):
    def fold(self) -> None:
        self.last.bias.add_(1)


class Mixing(Sound):
    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return super().forward(emb - emb.mean(0), inputs)


class Coarse(Sound):
    def forward(self, emb: Tensor, inputs: Inputs) -> Tensor:
        return super().forward(emb, inputs).to(self.net(emb).dtype)


class Alone(Sound):
    def net(self, emb: Tensor) -> Tensor:
        return self.last(self.first(emb.flatten(1))).squeeze(1)


class Modest(Sound):
    finds_pairs = False


BROKEN = {
    Column: ("one logit per sample", "gives shape (24, 1) for 24 samples: expected (24,). Add .squeeze(1)"),
    OneForAll: ("one logit per sample", "gives shape () for 24 samples: expected (24,)"),
    Pair: ("one logit per sample", "Pair.forward gives 2 values: expected one tensor"),
    Infinite: ("one logit per sample", "is no finite number"),
    Mismatch: ("one logit per sample", "mat1 and mat2 shapes cannot be multiplied (24x28 and 16x1) (line "),
    Squeezed: ("one logit per sample", "Squeezed.forward gives shape () for 1 samples: expected (1,)"),
    Unseeded: ("builds", "torch's random numbers"),
    Detached: ("gradients everywhere", "gets no gradient: it never learns"),
    Unused: ("gradients everywhere", "parameter backbone.spare.weight gets no gradient"),
    Forgetful: ("saves and loads", "neither a parameter nor a buffer"),
    Folding: ("folds", "after fold() the logits are others"),
    Mixing: ("samples apart", "a sample's logit depends on its batch"),
    Coarse: ("autocast", "under autocast (trainer.precision=bf16) the logit is torch.bfloat16"),
    Alone: ("finds a planted pair", "two fields decide the click together"),
    Modest: ("finds a planted pair", "its class says finds_pairs = False, and it found a planted pair"),
}  # fmt: skip


def make(kind: type[nn.Module]) -> command.Make:
    def made(schema: Schema, seed: int) -> CTRModel:
        node = {"_target_": f"{kind.__module__}.{kind.__name__}"}
        if issubclass(kind, Sound):
            return build_model(schema, dim=4, model=node | {"embedding_std": 0.1}, enhancer=None, seed=seed)
        fm = {"_target_": "fieldctr.models.fm.FM", "embedding_std": 0.1}
        return build_model(schema, dim=4, model=fm, enhancer=node, seed=seed)

    return made


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_what_breaks_a_promise_is_told_in_words(kind: type[nn.Module]) -> None:
    name, words = BROKEN[kind]
    first, told = next((contract.name, told) for contract, told in check(make(kind)) if told)
    assert (first, words in told) == (name, True), told


def test_a_sound_class_keeps_all_promises() -> None:
    found = {contract.name: told for contract, told in check(make(Sound))}
    assert found == dict.fromkeys((contract.name for contract in CONTRACTS), "")


class Bare(nn.Module):
    """An enhancer that gives its logit alone."""

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim))

    def forward(self, emb: Tensor) -> Tensor:
        return (emb @ self.weight).sum(1)


class PerSample(Bare):
    def forward(self, emb: Tensor) -> tuple[Tensor, Tensor]:  # ty: ignore[invalid-method-override]
        return super().forward(emb), (emb @ self.weight).sum(1)


class Wide(Bare):
    def forward(self, emb: Tensor) -> tuple[Tensor, Tensor]:  # ty: ignore[invalid-method-override]
        return emb @ self.weight, self.weight.sum()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Bare, "Bare.forward gives a Tensor: expected two, the extra logit (B,) and the penalty ()"),
        (PerSample, "PerSample.forward's penalty is shape (24,): expected a tensor ()"),
        (Wide, "Wide.forward gives shape (24, 7) for 24 samples: expected (24,)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_shape_of_an_enhancer_is_told_in_words(kind: type[nn.Module], words: str) -> None:
    found = [(contract.name, told) for contract, told in check(make(kind))]
    assert found[-1][0] == "one logit per sample"  # nothing behind it can be looked at
    assert words in found[-1][1]


def test_the_command_says_what_is_kept_and_ends_with_the_number(capsys: pytest.CaptureFixture[str]) -> None:
    command.main("model=lr")
    said = capsys.readouterr().out
    assert said.count("\nkept ") == len(CONTRACTS)
    assert re.search(rf"\n0 of {len(CONTRACTS)} broken \(\d+ s\)\n$", said)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("model=fta", "no model 'fta'. Nearest: fat"),
        ("seed=3 model=fm", "check takes no 'seed'"),
        ("embedding_dim=8", "check needs model=NAME or enhancer=NAME"),
        ("fm", "'fm' stands alone: write model=fm"),
        ("--model fm", "write model=fm"),
    ],
)
def test_a_mistake_in_the_call_of_check_is_named(words: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        command.main(*words.split())

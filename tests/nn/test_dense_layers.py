"""The network and the readout."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fieldctr.nn.mlp import MLP, BatchNorm
from fieldctr.nn.readout import Pooling, Readout


def test_a_network_is_its_layers() -> None:
    mlp, x = MLP(6, hidden_dims=[5, 3], dropout=0.0, batch_norm=False), torch.randn(4, 6)
    first, second = (layer for layer in mlp.hidden if isinstance(layer, nn.Linear))
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    hidden = (hidden @ second.weight.T + second.bias).clamp(min=0)
    assert_close(mlp(x), (hidden @ mlp.last.weight.T + mlp.last.bias)[:, 0])


def test_a_network_starts_xavier_with_zero_bias_and_adds_what_is_asked() -> None:
    mlp = MLP(300, hidden_dims=[200], dropout=0.5, batch_norm=True)
    linear, kinds = mlp.hidden[0], [type(layer) for layer in mlp.hidden]
    assert isinstance(linear, nn.Linear)
    assert kinds == [nn.Linear, BatchNorm, nn.ReLU, nn.Dropout]
    assert linear.bias.eq(0).all()
    assert_close(float(linear.weight.detach().std()), (2 / 500) ** 0.5, rtol=0.02, atol=0)
    assert MLP(3, hidden_dims=[], dropout=0.0, batch_norm=False)(torch.randn(2, 3)).shape == (2,)


@pytest.mark.parametrize("pooling", ["sum", "mean", "flat"])
def test_a_readout_pools_and_weighs(pooling: Pooling) -> None:
    readout, tokens = Readout(3, 4, pooling=pooling), torch.randn(5, 3, 4)
    nn.init.constant_(readout.bias, 0.25)
    share = 1 / 3 if pooling == "mean" else 1.0
    rows = [readout.weight[f if pooling == "flat" else 0] for f in range(3)]
    expected = [0.25 + share * sum(float((rows[f] @ sample[f]).detach()) for f in range(3)) for sample in tokens]
    assert_close(readout(tokens), torch.tensor(expected))


def test_under_autocast_logits_keep_single_precision() -> None:
    x, tokens = torch.randn(500, 8), torch.randn(500, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = MLP(8, hidden_dims=[8], dropout=0.0, batch_norm=False)(x), Readout(3, 4, pooling="flat")(tokens)
    for logit in logits:
        assert logit.dtype == torch.float32
        assert len(logit.unique()) > 490

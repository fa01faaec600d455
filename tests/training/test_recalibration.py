"""A model of down-sampled non-clicks says the pCTR of all rows, once its logits are taken back."""

from types import ModuleType

import numpy as np
import pytest

from fieldctr.data.dataset import Split
from fieldctr.models.ctr_model import build_model
from fieldctr.schema import Field, Schema
from fieldctr.training.evaluate import predict
from fieldctr.training.metrics import auc, recalibrated, sigmoid
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Trainer

SIZES = (12, 7, 5)
LR = {"_target_": "fieldctr.models.lr.LR"}


def rows(count: int, seed: int) -> Split:
    """Clicks of a planted logistic regression, about 4 %; `pctr` is the truth."""
    effects, generator = np.random.default_rng(0), np.random.default_rng(seed)
    ids = np.stack([generator.integers(1, size, count) for size in SIZES], axis=1).astype(np.int32)
    logit = -3.6 + sum(effects.normal(size=size)[ids[:, i]] * 0.7 for i, size in enumerate(SIZES))
    pctr = sigmoid(logit)
    return Split(ids, (generator.random(count) < pctr).astype(np.float32), pctr=pctr.astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.3, 0.05])
def test_a_planted_rate_is_taken_back(rate: float, planted: ModuleType, runtime: Runtime) -> None:
    generator = np.random.default_rng(9)
    train, valid, test = (rows(count, seed) for seed, count in enumerate((200_000, 50_000, 20_000), 1))
    kept = [split.take((split.label > 0) | (generator.random(len(split)) < rate)) for split in (train, valid)]
    schema = Schema(tuple(Field(f"f{i}", size) for i, size in enumerate(SIZES)))
    model = build_model(schema, dim=1, model=LR, enhancer=None, seed=1)
    settings = planted.trainer_config(max_epochs=6, batch_size=512, monitor="logloss", patience=99, ema_decay=0.99)
    Trainer(settings, planted.optimizer_config(lr=0.02, embedding_l2=0.0), runtime, seed=1).fit(model, *kept)
    logit = predict(model, test, batch_size=4096, runtime=runtime)
    said, true = sigmoid(recalibrated(logit, rate)), test.pctr.astype(np.float64)
    assert said.mean() == pytest.approx(true.mean(), rel=0.05)
    assert auc(test.label, said) == pytest.approx(auc(test.label, logit))
    order = np.argsort(said)
    for part in np.array_split(order, 5):  # calibrated at each height, not only on average
        assert said[part].mean() == pytest.approx(true[part].mean(), rel=0.12)
    if rate < 1:
        assert sigmoid(logit).mean() > 1.5 * true.mean()

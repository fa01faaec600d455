"""Tables that say little: fields that know no value, numbers that are all missing, batches of one row."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_keys import enhancers

from fieldctr.catalog import conf_dir
from fieldctr.commands.entity_vectors import drawn_texts
from fieldctr.commands.value_vectors import drawn_values
from fieldctr.config import OptimizerConfig, RuntimeConfig, TrainerConfig
from fieldctr.data.dataset import Split
from fieldctr.errors import UserError
from fieldctr.models.ctr_model import CTRModel, build_model, flops_per_sample
from fieldctr.schema import Field, Schema
from fieldctr.training.costs import step_costs
from fieldctr.training.evaluate import evaluate
from fieldctr.training.optim import frozen
from fieldctr.training.runtime import Runtime
from fieldctr.training.trainer import Trainer
from fieldctr.training.warm_start import match_tables, take_over

FILES = sorted((conf_dir() / "model").glob("*.yaml"))
NAMES = [path.stem for path in FILES if "embedding_dim:" not in path.read_text(encoding="utf-8")]
WITH_BATCH_NORM = [path.stem for path in FILES if "\nbatch_norm:" in path.read_text(encoding="utf-8")]
ENHANCERS = [name for name in enhancers() if name != "ctrl"]  # a stage before a model's training
USER, ITEM = Field("user", 9), Field("item", 7)
SEEN, PRICE = Field("seen", 7, width=3, shares="item"), Field("price", 2, numeric=True)
SCHEMAS = {  # a number has its row 1 even if no sample has one
    "some fields know nothing": Schema((Field("empty", 1), USER, PRICE, ITEM, SEEN, Field("tags", 1, width=4))),
    "a history knows nothing": Schema((USER, Field("item", 1), replace(SEEN, vocab_size=1))),
    "one field knows something": Schema((Field("a", 1), ITEM, Field("b", 1), Field("tags", 1, width=2), SEEN, PRICE)),
}
SETTINGS = TrainerConfig(
    max_epochs=1, batch_size=8, eval_batch_size=4096, evals_per_epoch=1, monitor="auc", patience=9, min_delta=0.0,
    lr_decay=0.5, min_lr=1e-5, clip_norm=1.0, ema_decay=0.9, precision="fp32", activation_checkpointing=False,
    compile=False, dry_run=False, deterministic=True, checkpoint_every_s=600.0, extra_metrics=[],
)  # fmt: skip
OPTIMIZER = OptimizerConfig(0.05, 0.9, 0.999, 1e-8, 0.0, 0.0, "lazy")
Node = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.filterwarnings("ignore:model.num_bases")  # small tables have as many bases as fields


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    matmul, deterministic = torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode()
    config = RuntimeConfig(device="cpu", threads=1, matmul="mkl")
    yield Runtime.start(config, precision="fp32", deterministic=True, cache=tmp_path)
    torch.set_float32_matmul_precision(matmul)
    torch.set_deterministic_debug_mode(deterministic)


def rows(schema: Schema, count: int, seed: int) -> Split:
    """Ids that the fields know; lists of any length, and no number anywhere."""
    generator, columns = np.random.default_rng(seed), []
    for field in schema.fields:
        ids = generator.integers(0, 1 if field.numeric else field.vocab_size, (count, field.width))
        columns.append(np.sort(ids)[:, ::-1])
    ids = np.concatenate(columns, axis=1).astype(np.int32)
    values = np.zeros((count, schema.num_numeric), np.float32) if schema.num_numeric else None
    return Split(ids, (np.arange(count) % 3 == 0).astype(np.float32), values)


def maker(node: dict[str, Any], enhancer: dict[str, Any] | None = None) -> Callable[[Schema], CTRModel]:
    def build(schema: Schema) -> CTRModel:
        vectors = torch.randn(schema.num_fields, 12, generator=torch.Generator().manual_seed(9))
        every = {"model": vectors, "enhancer": vectors}
        return build_model(
            schema,
            dim=8,
            model=node,
            enhancer=enhancer,
            seed=1,
            field_embeddings=every,
            text_vectors=drawn_texts(schema),
            value_vectors=drawn_values(schema),
        )

    return build


def trained(model: CTRModel, schema: Schema, runtime: Runtime, *, folded: bool = True, **settings: Any) -> CTRModel:
    """A fit whose last batch is one row; folded, it says the same of rows alone and together."""
    train, valid = rows(schema, 17, 1), rows(schema, 21, 2)
    Trainer(replace(SETTINGS, **settings), OPTIMIZER, runtime, seed=1).fit(model, train, valid)
    alone = evaluate(model, valid, batch_size=1, runtime=runtime).logit
    together = evaluate(model.fold() if folded else model, valid, batch_size=99, runtime=runtime).logit
    np.testing.assert_allclose(alone, together, atol=1e-5, rtol=1e-4)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("title", SCHEMAS)
@pytest.mark.parametrize("name", NAMES)
def test_every_model_trains_on_fields_that_know_nothing(name: str, title: str, node: Node, runtime: Runtime) -> None:
    schema, build = SCHEMAS[title], maker(node(name))
    model = build(schema)
    assert flops_per_sample(model, schema) == step_flops(build, schema, runtime)
    trained(model, schema, runtime)


def step_flops(build: Callable[[Schema], CTRModel], schema: Schema, runtime: Runtime) -> float:
    """Of one more row, as a dry run counts them."""
    costs = [
        step_costs(lambda: build(schema), schema, SETTINGS, runtime, optimizer=OPTIMIZER, batch_size=size).forward_flops
        for size in (1, 2)
    ]
    return costs[1] - costs[0]


@pytest.mark.slow
@pytest.mark.parametrize("title", SCHEMAS)
@pytest.mark.parametrize("name", ENHANCERS)
def test_every_enhancer_trains_on_them(name: str, title: str, node: Node, runtime: Runtime) -> None:
    build, schema = maker(node("fm"), node(name, "enhancer")), SCHEMAS[title]
    drawn, model = build(schema), trained(build(schema), schema, runtime, folded=False)
    still = set(map(id, frozen(model)))
    learning = {name for name, weight in model.enhancer.named_parameters() if id(weight) not in still}
    moved = {
        name
        for name, weight in model.enhancer.named_parameters()
        if not torch.equal(weight, drawn.enhancer.get_parameter(name))
    }
    assert moved <= learning
    assert bool(moved) == bool(learning)


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_batch_norm_takes_a_batch_of_one_row(name: str, node: Node, runtime: Runtime) -> None:
    """Of one row there is no variance: it is passed on as it is, and counts in no running mean."""
    schema = SCHEMAS["some fields know nothing"]
    for batch_size in (8, 1):
        model = trained(maker(node(name) | {"batch_norm": True})(schema), schema, runtime, batch_size=batch_size)
        means = [value for buffer, value in model.named_buffers() if buffer.endswith("running_mean")]
        assert means
        assert all(mean.any() == (batch_size > 1) for mean in means)


def test_a_warm_start_keeps_the_row_of_a_field_that_has_forgotten_its_values(node: Node) -> None:
    before, now = Schema((USER, ITEM)), Schema((replace(USER, vocab_size=1), ITEM))
    build, words = maker(node("fm")), [["a", *"bcdefgh"], list("pqrstu")]
    finished, model = build(before), build(now)
    with torch.no_grad():
        finished.embedding.table.weight.copy_(torch.arange(16 * 8).view(16, 8))
    take_over(
        model, finished.state_dict(), match_tables(now, before, values=[[], words[1]], values_before=words), now, build
    )
    assert model.embedding.table.weight[:, 0].tolist() == [0.0, *range(9 * 8, 16 * 8, 8)]


def test_rows_that_are_all_alike_are_refused_in_words(node: Node, runtime: Runtime) -> None:
    schema = Schema((Field("a", 1), Field("tags", 1, width=3), Field("b", 1)))
    with pytest.raises(UserError, match="all 21 rows of valid are alike: no field knows a value"):
        trained(maker(node("deepfm"))(schema), schema, runtime)

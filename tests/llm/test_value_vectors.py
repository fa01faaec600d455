"""The stage that reads values: which ones, with whose encoder, what a second call and a stopped one cost."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fieldctr.commands.value_vectors import value_text
from fieldctr.config import EncoderConfig
from fieldctr.data.values import FieldValues
from fieldctr.errors import UserError
from fieldctr.llm import field_embeddings as tuning
from fieldctr.llm import text_vectors
from fieldctr.llm import value_vectors as module
from fieldctr.llm.cost import Alternatives, Units
from fieldctr.llm.placebo import of_other_fields
from fieldctr.llm.prompts import field_prompts
from fieldctr.llm.value_vectors import ValueTexts, frequent, load, value_vectors

CPU = torch.device("cpu")
Config = Callable[..., EncoderConfig]


def test_the_most_frequent_values_are_read_that_enough_rows_have() -> None:
    values = [
        FieldValues(["a", "b", "{field}", "d"], np.array([9, 3, 20, 5])),
        FieldValues([], np.array([], np.int64)),
        FieldValues(["x" * 500, "y"], np.array([5, 4])),
    ]
    found = frequent(values, ["one", "two", "three"], "{field} is {value}.", min_rows=5, most_values=2)
    assert found.features.tolist() == [[0, 3], [0, 1], [2, 1]]
    assert found.texts == ["one is {field}.", "one is a.", f"three is {'x' * 200}."]
    none = frequent(values, ["one", "two", "three"], "{value}", min_rows=99, most_values=2)
    assert none.features.shape == (0, 2)


@pytest.mark.parametrize("text", ["{field}", "{value} {value}", "{value} of {name}", 3])
def test_a_template_that_does_not_say_the_value_is_refused(text: Any) -> None:
    with pytest.raises(UserError, match=r"enhancer\.value_text="):
        value_text({"value_text": text})


@pytest.fixture
def tuned(tmp_path: Path, values: list[FieldValues], names: list[str]) -> Callable[[EncoderConfig], Path]:
    """tuned(config): the folder of the field embeddings of these names."""

    def make(config: EncoderConfig) -> Path:
        watch: Any = SimpleNamespace(tick=lambda *given: None, say=lambda line: None)
        prompts = field_prompts(values, names, config)
        asked = dict.fromkeys(("short", "long"), prompts.train[:2])
        return tuning.field_embeddings(
            config,
            prompts,
            root=tmp_path / "field_embeddings",
            device=CPU,
            others=lambda: Alternatives(asked, Units(["x"], 1), {}),
            watch=lambda steps: nullcontext(watch),
        ).folder

    return make


def made(root: Path, config: EncoderConfig, names: list[str], folder: Path, epoch: int = 1) -> Path:
    watch: Any = SimpleNamespace(show=lambda step, status: None)
    texts = [f"{'colour' if i % 2 else 'size'} is {i}" for i in range(40)]
    features = np.array([(i % 2, i // 2 + 1) for i in range(40)], np.int32)
    return value_vectors(
        config,
        names,
        ValueTexts(features, texts),
        tuned=folder,
        epoch=epoch,
        root=root / "value_vectors",
        device=CPU,
        watch=lambda *size: nullcontext(watch),
    )


def test_the_encoder_reads_them_as_it_was_after_each_epoch(
    tmp_path: Path, config: Config, names: list[str], tuned: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(epochs=2, lr=0.1)
    folder = tuned(chosen)
    fields = tuning.load(folder).vectors
    for epoch in range(3):
        found = load(made(tmp_path, chosen, names, folder, epoch))
        assert_close(torch.tensor(found.vectors[found.rows[:3]]), fields[epoch], atol=1e-4, rtol=1e-4)
        assert len(found.rows) == 3 + len(found.features) == 43
    assert (fields[2] - fields[1]).abs().max() > 0.01
    monkeypatch.setattr(module, "tuned_encoder", None)
    assert load(made(tmp_path, chosen, names, folder, 2)).account == found.account


def test_a_call_that_was_stopped_goes_on_behind_its_last_part(
    tmp_path: Path, config: Config, names: list[str], tuned: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, real, calls = config(epochs=1, micro_batch=4), text_vectors._embedded, [0]
    folder = tuned(chosen)
    whole = load(made(tmp_path / "whole", chosen, names, folder))

    def stopped(encoder: Any, tokens: list[list[int]]) -> np.ndarray:
        calls[0] += 1
        if calls[0] == 8:
            raise KeyboardInterrupt
        return real(encoder, tokens)

    monkeypatch.setattr(text_vectors, "PART_BATCHES", 3)
    monkeypatch.setattr(text_vectors, "_embedded", stopped)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "stopped", chosen, names, folder)
    found = load(made(tmp_path / "stopped", chosen, names, folder))
    assert np.array_equal(found.vectors, whole.vectors)
    assert np.array_equal(found.rows, whole.rows)
    assert calls[0] == whole.account["cost"]["calls"] + 2  # of the part that was lost


def test_weights_that_were_not_kept_are_missed_in_words(
    tmp_path: Path, config: Config, names: list[str], tuned: Callable[..., Path]
) -> None:
    chosen = config(epochs=1)
    folder = tuned(chosen)
    (folder / tuning.ADAPTERS).unlink()
    with pytest.raises(UserError, match="is of an earlier version, which kept no tuned weights"):
        made(tmp_path, chosen, names, folder)
    assert made(tmp_path, chosen, names, folder, epoch=0).is_dir()
    vectors = load(made(tmp_path, config("random", width=6), names, folder, 0)).vectors
    assert vectors.shape == (43, 6)


@pytest.mark.parametrize("seed", range(5))
def test_permuted_values_keep_their_company_and_get_another_field_s_vectors(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    values_of = [3, 1, 0, 5, 2]  # of each field
    fields = torch.tensor([field for field, count in enumerate(values_of) for _ in range(count)])
    fields = fields[torch.randperm(len(fields), generator=draw)]
    rows = torch.randperm(40, generator=draw)[: 5 + len(fields)]
    moved = of_other_fields(fields, rows, 5, seed=seed)
    lender = [rows[:5].tolist().index(row) for row in moved[:5].tolist()]
    assert sorted(lender) == [*range(5)]
    assert all(field != other for field, other in enumerate(lender))
    for field, other in enumerate(lender):
        lent = [rows[5 + i].item() for i, one in enumerate(fields.tolist()) if one == other] or [rows[other].item()]
        own = [moved[5 + i].item() for i, one in enumerate(fields.tolist()) if one == field]
        assert own == [lent[i % len(lent)] for i in range(len(own))]
    assert torch.equal(moved, of_other_fields(fields, rows, 5, seed=seed))

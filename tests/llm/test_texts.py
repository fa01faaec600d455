"""Sentences about entities, and the stage that reads them: once, in parts, and what a second call costs."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fieldctr.config import EncoderConfig
from fieldctr.errors import UserError
from fieldctr.llm import text_vectors as module
from fieldctr.llm.encoder import Encoder
from fieldctr.llm.placebo import reader_of_texts
from fieldctr.llm.text_vectors import Texts, load, text_vectors
from fieldctr.llm.texts import Sentence, sentences, written
from fieldctr.schema import Field, Schema

CPU = torch.device("cpu")
Config = Callable[..., EncoderConfig]
SCHEMA = Schema(
    (
        Field("age", 5, text="age"),
        Field("sex", 3, text="gender"),
        Field("code", 9),  # without a text
        Field("title", 9, text="title"),
        Field("image", 9, text="image", vector=4),
        Field("hour", 4, text="hour of the day"),
    )
)
ENTITIES = {"user": ["age", "sex", "code"], "item": ["title", "image"]}


def test_an_entity_is_told_with_what_is_known_of_it() -> None:
    (user,) = sentences("user", ENTITIES, None, SCHEMA)
    assert user.fields == [0, 1]
    texts = written(user, [["18", "", ""], ["female", "male", ""]])
    assert texts == [
        "This is a user, age is 18, gender is female.",
        "This is a user, gender is male.",
        "This is a user.",
    ]
    (item,) = sentences("item", ENTITIES, None, SCHEMA)
    assert written(item, [["Alien"]]) == ["This is an item, title is Alien."]


def test_a_row_is_told_entity_by_entity_and_then_what_is_left() -> None:
    parts = sentences("row", ENTITIES, {"item": 'The film "{title}".'}, SCHEMA)
    assert [part.fields for part in parts] == [[0, 1], [3], [5]]
    told = [written(part, [["x"]] * len(part.fields))[0] for part in parts]
    assert told == [
        "This is a user, age is x, gender is x.",
        'The film "x".',
        "In this situation, hour of the day is x.",
    ]


def test_a_template_of_ones_own() -> None:
    (user,) = sentences("user", ENTITIES, {"user": "A {sex} of {age}{age}. {features}"}, SCHEMA)
    assert written(user, [["18", ""], ["{age}", "man"]]) == ["A {age} of 1818. ", "A man of unknownunknown. "]
    (user,) = sentences("user", ENTITIES, {"user": "{age}: {features}"}, SCHEMA)
    assert written(user, [["18"], ["man"]]) == ["18: gender is man"]


@pytest.mark.parametrize(
    ("kind", "templates", "said"),
    [
        ("usr", None, r"entity=usr: .*Nearest: user.*All: user, item, row"),
        ("user", {"usr": "x"}, r"dataset\.text_template\.usr: no such entity"),
        ("user", {"user": "{title}"}, r"dataset\.text_template\.user: no field 'title' of this entity"),
        ("user", {"user": 3}, r"dataset\.text_template\.user=3 is not allowed"),
    ],
)
def test_what_there_is_not_is_named(kind: str, templates: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        sentences(kind, ENTITIES, templates, SCHEMA)


TEXTS = [f"{'long ' * (i % 5)}text {i % 40}" for i in range(90)]  # 90 entities, fewer texts


@pytest.fixture(autouse=True)
def _given(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.arange(len(TEXTS), dtype=np.int32)[:, None]
    monkeypatch.setattr(module, "entity_texts", lambda dataset, told: Texts([3], keys, TEXTS))
    monkeypatch.setattr(module, "PART_BATCHES", 2)


def made(root: Path, config: EncoderConfig, table: str = "a") -> Path:
    dataset: Any = SimpleNamespace(digest=table)
    watch: Any = SimpleNamespace(show=lambda step, status: None)
    return text_vectors(
        config,
        dataset,
        [Sentence("x", [0], ["age"], ["age"])],
        root=root,
        device=CPU,
        watch=lambda *size: nullcontext(watch),
    )


def test_an_entity_has_the_vector_of_its_text(
    tmp_path: Path, config: Config, loaded: Callable[[EncoderConfig], Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(micro_batch=4)
    folder = made(tmp_path, chosen)
    found, encoder = load(folder), loaded(config(epochs=0))
    assert len(found.vectors) == len(set(TEXTS)) < len(TEXTS) == found.account["entities"]
    alone = np.concatenate([encoder.embed_all([ids], micro_batch=1).numpy() for ids in encoder.tokenize(TEXTS)])
    np.testing.assert_allclose(found.vectors[found.rows], alone, atol=1e-5)
    assert found.account["cost"]["tokens"] == sum(map(len, encoder.tokenize(sorted(set(TEXTS)))))
    assert isinstance(found.vectors, np.memmap)
    monkeypatch.setattr(module, "load_encoder", None)
    monkeypatch.setattr(module, "entity_texts", None)
    assert made(tmp_path, config(micro_batch=4, epochs=3)) == folder  # tuning is not of the texts' encoder
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_a_call_that_was_stopped_goes_on_behind_its_last_part(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, real = config(micro_batch=4), module._embedded
    whole, calls = load(made(tmp_path / "whole", chosen)), [0]

    def stopped(encoder: Encoder, tokens: list[list[int]], at: int) -> np.ndarray:
        calls[0] += 1
        if calls[0] == at:
            raise KeyboardInterrupt
        return real(encoder, tokens)

    for at in (1, 2, 4, 5):
        calls[0] = 0
        monkeypatch.setattr(module, "_embedded", lambda encoder, tokens, at=at: stopped(encoder, tokens, at))
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "stopped", chosen)
    monkeypatch.setattr(module, "_embedded", lambda encoder, tokens: stopped(encoder, tokens, -1))
    calls[0] = 0
    found = load(made(tmp_path / "stopped", chosen))
    assert np.array_equal(found.vectors, whole.vectors)
    assert np.array_equal(found.rows, whole.rows)
    same = ("calls", "tokens", "cut")
    assert [found.account["cost"][key] for key in same] == [whole.account["cost"][key] for key in same]
    assert calls[0] < whole.account["cost"]["calls"] - 4


def test_a_text_that_is_too_long_is_cut_and_counted(tmp_path: Path, config: Config) -> None:
    found = load(made(tmp_path, config(max_tokens=12)))
    assert found.account["cost"]["cut"] == len({text for text in TEXTS if len(text) > 11})
    assert len(np.unique(found.vectors, axis=0)) < len(found.vectors)


def test_the_key_holds_what_changes_the_vectors(tmp_path: Path, config: Config) -> None:
    changes: list[dict[str, Any]] = [{}, {"seed": 7}, {"pooling": "mean"}, {"max_tokens": 99}, {"micro_batch": 3}]
    folders = [made(tmp_path, config(**change)) for change in changes]
    folders += [made(tmp_path, config(), table="b"), made(tmp_path, config("random"))]
    assert len(set(folders)) == len(folders)
    assert made(tmp_path, config(lr=0.5, values_per_field=2, template="long")) == folders[0]


def test_an_encoder_that_has_learned_nothing_is_another_draw_of_its_architecture(
    tmp_path: Path, config: Config
) -> None:
    plain, untrained = config(), reader_of_texts(config(), "untrained")
    assert reader_of_texts(plain, "permuted") == plain
    folders = [made(tmp_path / where, chosen) for where in "ab" for chosen in (plain, untrained)]
    assert [path.name for path in folders[:2]] == [path.name for path in folders[2:]]
    known, drawn, _, again = map(load, folders)
    assert np.array_equal(drawn.vectors, again.vectors)
    assert np.array_equal(drawn.rows, known.rows)
    assert drawn.vectors.shape == known.vectors.shape
    assert np.abs(drawn.vectors - known.vectors).max() > 0.1
    with pytest.raises(UserError, match="source=untrained takes the encoder's architecture with random weights"):
        reader_of_texts(config("random"), "untrained")


def test_vectors_without_a_model_are_equal_for_equal_texts(tmp_path: Path, config: Config) -> None:
    found = load(made(tmp_path, config("random", width=6)))
    assert found.vectors.shape == (len(set(TEXTS)), 6)
    assert [found.rows[TEXTS.index(text)] for text in TEXTS] == found.rows.tolist()
    assert found.account["cost"] == {}

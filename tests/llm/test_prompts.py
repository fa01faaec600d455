"""Which values are asked, and how."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from fieldctr.config import EncoderConfig
from fieldctr.data.values import FieldValues
from fieldctr.llm.prompts import LONGEST_VALUE, field_prompts, opaque

Config = Callable[..., EncoderConfig]


def asked(text: str) -> str:
    return text.removeprefix("The feature is: ").removesuffix(".")


def test_train_and_heldout_are_disjoint_values_of_their_field(
    values: list[FieldValues], names: list[str], config: Config
) -> None:
    prompts = field_prompts(values, names, config(values_per_field=5))
    for field, known in enumerate(values):
        train, heldout = (
            {asked(p.text) for p in part if p.field == field} for part in (prompts.train, prompts.heldout)
        )
        assert len(train) == 5
        assert len(heldout) == int(0.2 * len(known.texts))
        assert not train & heldout
        assert train | heldout <= set(known.texts)


def test_the_seed_decides_which_values(values: list[FieldValues], names: list[str], config: Config) -> None:
    first, again = (field_prompts(values, names, config(values_per_field=3)) for _ in range(2))
    assert first == again
    assert first != field_prompts(values, names, config(values_per_field=3, seed=2))


def test_a_shared_value_keeps_all_its_fields_or_the_last(
    values: list[FieldValues], names: list[str], config: Config
) -> None:
    """Sixteen seeds: 'x' is held out of a field in a fifth of them."""
    fields: Counter[tuple[int, ...]] = Counter()
    for seed in range(16):
        both, last = (
            {
                p.field
                for p in field_prompts(values, names, config(seed=seed, shared_values=kind)).train
                if asked(p.text) == "x"
            }
            for kind in ("all", "last")
        )
        fields[tuple(sorted(both))] += 1
        assert last == ({max(both)} if both else set())
    assert fields[(0, 2)] > 2


def test_weighted_sampling_prefers_frequent_values(names: list[str], config: Config) -> None:
    known = [FieldValues([f"v{i}" for i in range(200)], np.array([1000] * 10 + [1] * 190))]
    frequent = {f"v{i}" for i in range(10)}
    shares = []
    for sampling in ("weighted", "uniform"):
        chosen = {
            asked(p.text) for p in field_prompts(known, names[:1], config(values_per_field=10, sampling=sampling)).train
        }
        shares.append(len(chosen & frequent))
    assert shares[0] >= 8
    assert shares[1] <= 4


def test_the_long_template_lists_all_fields_and_ends_with_the_question(
    values: list[FieldValues], names: list[str], config: Config
) -> None:
    prompt = field_prompts(values, names, config(template="long")).train[0]
    assert all(name in prompt.text for name in names)
    assert prompt.text.endswith("### Response:\n")


def test_a_field_without_values_and_a_value_without_end(names: list[str], config: Config) -> None:
    known = [FieldValues([], np.zeros(0)), FieldValues(["y" * 5000], np.ones(1))]
    prompts = field_prompts(known, names[:2], config())
    assert [prompt.field for prompt in prompts.train] == [1]
    assert len(asked(prompts.train[0].text)) == LONGEST_VALUE
    with pytest.raises(IndexError):
        prompts.heldout[0]


def test_opaque_names_differ() -> None:
    assert opaque(3) == ["f1", "f2", "f3"]

"""enhancer=llactr_values from a table to a run that is loaded, folded and exported: values are read once."""

from pathlib import Path

import pytest
from small_runs import CPU, Train, trainer_in

from fieldctr import FinishedRun
from fieldctr.commands.clean import unused
from fieldctr.commands.trained import evaluated_split, load_trained
from fieldctr.errors import UserError
from fieldctr.llm import field_embeddings, value_vectors

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("values")


@pytest.fixture(scope="module")
def fitted(home: Path) -> Train:
    return trainer_in(home, "llactr_values")


@pytest.fixture(scope="module")
def first(fitted: Train) -> FinishedRun:
    return fitted("first")


def test_a_second_run_reads_nothing_and_a_placebo_differs(
    first: FinishedRun, fitted: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(value_vectors, "tuned_encoder", None)
    monkeypatch.setattr(field_embeddings, "load_encoder", None)
    assert fitted("again").result["valid"] == first.result["valid"]
    placebo = fitted("placebo", "enhancer=llactr_values_permuted").result
    assert placebo["value_vectors"] == first.result["value_vectors"]
    assert placebo["num_parameters"] == first.result["num_parameters"]
    assert placebo["valid"]["logloss"] != first.result["valid"]["logloss"]


def test_a_finished_run_is_loaded_with_its_values_and_says_the_same(first: FinishedRun, home: Path) -> None:
    trained = load_trained(home / "first", outputs=home / "o", runtime=CPU)
    assert evaluated_split(home / "first", trained, "valid").metrics["auc"] == pytest.approx(
        first.result["valid"]["auc"], abs=1e-9
    )
    assert not [folder for folder, _ in unused(home / "o", [f"{home}/*"])]
    (home / "o/value_vectors").rename(home / "away")
    with pytest.raises(UserError, match=r"the value vectors .*/value_vectors/\w+ are gone"):
        load_trained(home / "first", outputs=home / "o", runtime=CPU)
    (home / "away").rename(home / "o/value_vectors")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encoder=none"], "reads field embeddings but there is no encoder: add encoder=minilm"),
        (["enhancer.source=text"], r"enhancer\.source=text is not allowed: expected ssft"),
        (["schema=merge"], "reads their names and entities as the dataset's YAML gives them. Use schema=none"),
        (["warm_start=somewhere"], "warm_start and enhancer=llactr_values do not go together"),
        (["enhancer.value_text=x"], r"enhancer\.value_text=x is not allowed"),
    ],
)
def test_a_mistake_is_named(words: list[str], said: str, fitted: Train) -> None:
    with pytest.raises(UserError, match=said):
        fitted(f"mistake {words[0]}", *words)

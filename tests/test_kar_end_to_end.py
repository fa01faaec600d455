"""enhancer=kar from a table to a run that is loaded again: texts are read once, before test is sealed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import CPU, Train, trainer_in

from fieldctr import FinishedRun, load_run
from fieldctr.commands.clean import unused
from fieldctr.commands.trained import evaluated_split, load_trained
from fieldctr.errors import UserError
from fieldctr.llm import knowledge, text_vectors
from fieldctr.runs import MODEL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kar")


@pytest.fixture(scope="module")
def fitted(home: Path) -> Train:
    return trainer_in(home, "kar")


@pytest.fixture(scope="module")
def first(fitted: Train) -> FinishedRun:
    """A trial of a search, from which test is sealed."""
    return fitted("trial", "evaluate_test=false")


def test_a_trial_reads_the_texts_and_no_other_run_does(
    first: FinishedRun, fitted: Train, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_vectors, "load_encoder", None)
    monkeypatch.setattr(text_vectors, "entity_texts", None)
    run = fitted("final")
    assert set(run.result["text_vectors"]) == {"user", "ad"}
    assert run.result["text_vectors"] == first.result["text_vectors"]
    folders = {path.name for path in (home / "o/text_vectors").iterdir() if path.is_dir()}
    assert folders == set(run.result["text_vectors"].values())
    costs = [text_vectors.load(home / "o/text_vectors" / name).account["cost"] for name in folders]
    assert run.result["offline"] == {
        "tokens": sum(cost["tokens"] for cost in costs),
        "seconds": pytest.approx(sum(cost["seconds"] for cost in costs), abs=0.006),
    }
    assert run.result["num_fields"] == 21
    dense = first.result["num_parameters"]["dense"]
    experts, gates = 12 * (33 * 128 + 129 * 32), 2 * 33 * 7
    assert dense >= experts + gates
    assert not any("lookups" in name for name in load_weights(home / "final"))


def load_weights(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / MODEL, "pt") as file:
        return list(file.keys())


def test_a_finished_run_is_loaded_with_its_texts_and_says_the_same(fitted: Train, home: Path) -> None:
    run = fitted("final", "resume=true")
    trained = load_trained(home / "final", outputs=home / "o", runtime=CPU)
    assert not [name for name, _ in trained.model.named_parameters() if name.startswith("enhancer")]
    assert evaluated_split(home / "final", trained, "valid").metrics["auc"] == pytest.approx(
        run.result["valid"]["auc"], abs=1e-9
    )
    assert load_run(home / "final").result == run.result
    shutil.move(home / "o/text_vectors", home / "away")
    with pytest.raises(UserError, match=r"text_vectors/\w+ are gone"):
        load_trained(home / "final", outputs=home / "o", runtime=CPU)
    shutil.move(home / "away", home / "o/text_vectors")


@pytest.mark.parametrize("source", ["random", "permuted", "constant"])
def test_a_placebo_trains_on_the_same_texts_and_differs(fitted: Train, source: str) -> None:
    plain, placebo = fitted("final", "resume=true"), fitted(source, f"enhancer=kar_{source}", "trainer.dry_run=false")
    assert placebo.result["text_vectors"] == plain.result["text_vectors"]
    assert placebo.result["num_parameters"] == plain.result["num_parameters"]
    assert placebo.result["valid"]["logloss"] != plain.result["valid"]["logloss"]


def test_the_placebo_untrained_reads_the_same_texts_with_another_encoder(fitted: Train) -> None:
    plain, placebo = fitted("final", "resume=true"), fitted("untrained", "enhancer=kar_untrained")
    assert not set(placebo.result["text_vectors"].values()) & set(plain.result["text_vectors"].values())
    assert placebo.result["num_parameters"] == plain.result["num_parameters"]
    assert placebo.result["valid"]["logloss"] != plain.result["valid"]["logloss"]


def test_knowledge_is_written_once_and_read_behind_the_texts(
    fitted: Train, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["knowledge=generate", "encoder@knowledge.writer=tiny_llama", "knowledge.new_tokens=3"]
    plain, told = fitted("final", "resume=true"), fitted("told", *words)
    assert not set(told.result["text_vectors"].values()) & set(plain.result["text_vectors"].values())
    account = text_vectors.load(home / "o/text_vectors" / told.result["text_vectors"]["user"]).account
    assert account["knowledge"]["cost"]["written"] > 0
    assert all(sample.startswith("This is a user, ") for sample in account["samples"])
    assert any(not sample.endswith(".") for sample in account["samples"])
    monkeypatch.setattr(text_vectors, "load_encoder", None)
    monkeypatch.setattr(knowledge, "load_decoder", None)
    again = fitted("told again", *words)
    assert again.result["valid"] == told.result["valid"]
    trained = load_trained(home / "told", outputs=home / "o", runtime=CPU)
    assert evaluated_split(home / "told", trained, "valid").metrics["auc"] == pytest.approx(
        told.result["valid"]["auc"], abs=1e-9
    )


def test_what_a_run_reads_is_not_cleaned(fitted: Train, home: Path) -> None:
    fitted("final", "resume=true")
    (home / "o/text_vectors/.0123456789abcdef.parts").mkdir()
    gone = [folder.name for folder, _ in unused(home / "o", [f"{home}/*"]) if folder.parent.name == "text_vectors"]
    assert gone == [".0123456789abcdef.parts"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset.entities=null"], "does not say what they are. Give its YAML the fields that describe them"),
        (["encoder=none"], "reads texts but there is no encoder: add encoder=untuned"),
        (["enhancer.source=ssft"], r"enhancer\.source=ssft is not allowed: expected text \| untrained \| random"),
        (["schema=merge"], "reads the entities as the dataset's YAML gives them. Use schema=none"),
        (["knowledge=generate", "enhancer=none"], "enhancer=none reads no texts of them. Take enhancer=kar"),
        (["knowledge=generate", "encoder@knowledge.writer=none"], r"key 'knowledge\.writer\.kind' is missing"),
        (["warm_start=somewhere"], "warm_start and enhancer=kar do not go together"),
    ],
)
def test_a_mistake_is_named(words: list[str], said: str, fitted: Train) -> None:
    with pytest.raises(UserError, match=said):
        fitted(f"mistake {words[0]}", *words)


@pytest.mark.parametrize("name", ["lr", "ffm"])
def test_a_model_without_feature_embeddings_gets_the_fields_too(name: str, fitted: Train) -> None:
    result: Any = fitted(name, f"model={name}").result
    assert torch.tensor(result["test"]["logloss"]).isfinite()

"""LLaCTR through the console script: SSFT once, cached ever after, trained on, evaluated without an encoder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = ["dataset=synthetic", "dataset.source.rows=4000", "trainer.max_epochs=1", "tracker=none", "model=fm"]
LLACTR = ["train", *SMALL, "enhancer=llactr", "encoder=tiny_llama"]

Call = Callable[..., subprocess.CompletedProcess[str]]
Result = Callable[[Path], dict[str, Any]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    """A folder with field vectors of the random decoder and one run on them."""
    folder = tmp_path_factory.mktemp("llactr")
    done = call(folder, "ssft", "dataset=synthetic", "dataset.source.rows=4000", "encoder=tiny_llama")
    assert done.returncode == 0, done.stderr
    assert "epoch 1" in done.stdout
    assert "epoch 1" in done.stderr
    done = call(folder, *LLACTR, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "epoch 1, loss" not in done.stderr  # nothing was tuned again
    return folder


def test_a_run_says_where_its_vectors_come_from(home: Path, result: Result) -> None:
    found = result(home / "run")["field_embeddings"]
    assert (found["encoder"], found["source"]) == ("tiny_llama", "ssft")
    assert (home / "outputs/field_embeddings" / found["digest"] / "similarity_after.png").exists()
    assert found["cost"]["calls"] > 0
    assert found["cost"]["rows"]["count"] > 1000
    assert set(found["cost"]["entities"]) == {"user", "ad"}
    assert found["cost"]["entities"]["user"]["count"] <= 2000


def test_the_cache_is_listed_shown_and_verified(home: Path, call: Call, result: Result) -> None:
    digest = result(home / "run")["field_embeddings"]["digest"]
    for action in (["show", digest[:6]], ["verify"]):
        done = call(home, "ssft", *action)
        assert done.returncode == 0, done.stderr
        assert digest in done.stdout
    for words in ("template long", "rows", "map_after.png"):
        assert words in call(home, "ssft", "show", digest).stdout


def test_verify_finds_a_flipped_byte(home: Path, call: Call, tmp_path: Path) -> None:
    shutil.copytree(home / "outputs/field_embeddings", tmp_path / "field_embeddings")
    path = next((tmp_path / "field_embeddings").glob("*/vectors.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    done = call(home, "ssft", "verify", f"outputs={tmp_path}")
    assert done.returncode == 2
    assert f"{path} is damaged" in done.stderr


def test_synonyms_are_tuned_on_and_must_be_there(home: Path, call: Call, result: Result) -> None:
    done = call(home, *LLACTR, "enhancer.source=synonyms", "hydra.run.dir=other_words")
    assert done.returncode == 0, done.stderr
    assert "epoch 1, loss" in done.stderr
    found = result(home / "other_words")["field_embeddings"]
    account = json.loads((home / "outputs/field_embeddings" / found["digest"] / "account.json").read_text())
    assert account["fields"][:2] == ["account number", "sex"]
    assert result(home / "other_words")["data_digest"] == result(home / "run")["data_digest"]


def test_evaluate_needs_no_encoder(home: Path, call: Call, result: Result) -> None:
    done = call(home, "evaluate", "run=run", "split=valid")
    assert done.returncode == 0, done.stderr
    found = json.loads((home / "run/evaluate-valid.json").read_text())
    assert found == result(home / "run")["valid"]


def test_weights_of_zero_give_the_backbone_bit_for_bit(home: Path, call: Call) -> None:
    assert call(home, "train", *SMALL, "hydra.run.dir=plain").returncode == 0
    done = call(home, *LLACTR, "enhancer.fre_weight=0", "enhancer.fie_weight=0", "hydra.run.dir=zero")
    assert done.returncode == 0, done.stderr
    assert (home / "zero/test.scores.npy").read_bytes() == (home / "plain/test.scores.npy").read_bytes()
    assert (home / "run/test.scores.npy").read_bytes() != (home / "plain/test.scores.npy").read_bytes()


def test_no_language_model_is_imported_without_need(home: Path) -> None:
    """Neither without an enhancer, nor where its vectors are there: it takes ten seconds."""
    code = (
        "import sys; from fieldctr.cli import run;"
        f"run('train', *{SMALL!r}, 'hydra.run.dir=bare'); run(*{LLACTR!r}, 'hydra.run.dir=again');"
        "print(sorted({'transformers', 'peft', 'tokenizers', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["enhancer.epoch=9"], ["enhancer.epoch=9", "0 to 1"]),
        (["encoder=tiny_lama"], ["tiny_lama", "tiny_llama"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_named(arguments: list[str], words: list[str], home: Path, call: Call) -> None:
    done = call(home, *LLACTR, *arguments, "hydra.run.dir=wrong")
    assert done.returncode == 2, done.stderr
    assert all(word in done.stderr for word in words), done.stderr

"""Large models: their code path on shrunk ones of the same classes, and what they would take, by their shape alone."""

import json
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fieldctr.catalog import conf_dir
from fieldctr.config import EncoderConfig
from fieldctr.data.values import FieldValues
from fieldctr.errors import UserError
from fieldctr.llm import field_embeddings as tuning
from fieldctr.llm import knowledge, text_vectors
from fieldctr.llm.cost import Alternatives, Units
from fieldctr.llm.demand import Demand, Shape, Work, demand, mean_tokens, settings_of, shape_of, tokenizer_of
from fieldctr.llm.encoder import load_encoder, tiny_llama
from fieldctr.llm.prompts import field_prompts
from fieldctr.llm.text_vectors import Texts
from fieldctr.llm.texts import Sentence

CPU = torch.device("cpu")
NAMES = {"llama3_8b": "LlamaModel", "qwen3_0_6b": "Qwen3Model"}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "head_dim": 16, "bos_token_id": 1, "eos_token_id": 2}
Config = Callable[..., EncoderConfig]


def published(name: str) -> Path:
    return conf_dir() / "encoder" / f"{name}.json"


def shrunk(name: str) -> Any:
    from transformers import AutoConfig

    node = json.loads(published(name).read_text(encoding="utf-8"))
    return AutoConfig.for_model(**node | SMALL | {"vocab_size": 259})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name a folder with random weights of a shrunk model, and a tokenizer made on the spot."""
    from transformers import AutoModelForCausalLM

    made = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for name in NAMES:
            made[name] = tmp_path_factory.mktemp(name)
            AutoModelForCausalLM.from_config(shrunk(name)).save_pretrained(made[name])
            tiny_llama()[1].save_pretrained(made[name])
    return made


@pytest.mark.parametrize("name", NAMES)
def test_ssft_texts_and_knowledge_run_end_to_end_once(
    name: str,
    folders: dict[str, Path],
    config: Config,
    values: list[FieldValues],
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = config(name, model=str(folders[name]), epochs=2, lr=0.03)
    encoder = load_encoder(chosen, CPU, converted=tmp_path)
    assert type(encoder.model.base_model.model).__name__ == NAMES[name]  # ty: ignore
    assert all("q_proj" in n or "v_proj" in n for n, p in encoder.model.named_parameters() if p.requires_grad)
    keys = np.arange(3, dtype=np.int32)[:, None]
    monkeypatch.setattr(text_vectors, "entity_texts", lambda *given: Texts([0], keys, ["a", "b and more", "a"]))
    watch: Any = SimpleNamespace(show=lambda *given: None, tick=lambda *given: None, say=lambda line: None)
    watched: Any = lambda *size: nullcontext(watch)  # noqa: E731
    author = knowledge.Author(chosen, "user", "{text}?", 3)

    def call() -> tuple[Any, Any, Any]:
        prompts = field_prompts(values, names, chosen)
        asked = dict.fromkeys(("short", "long"), prompts.train[:2])
        fields = tuning.field_embeddings(
            chosen, prompts, root=tmp_path / "fields", device=CPU,
            others=lambda: Alternatives(asked, Units(["x"], 1), {}), watch=watched,
        )  # fmt: skip
        dataset: Any = SimpleNamespace(digest="t")
        told = [Sentence("x", [0], ["age"], ["age"])]
        read = text_vectors.text_vectors(chosen, dataset, told, root=tmp_path / "texts", device=CPU, watch=watched)
        answers = knowledge.knowledge(author, ["a", "b"], root=tmp_path / "known", device=CPU, watch=watched)
        return fields, text_vectors.load(read), knowledge.load(answers)

    fields, read, (answers, _) = call()
    assert fields.vectors.shape == (3, 3, 32)
    assert fields.vectors.isfinite().all()
    assert (fields.vectors[2] - fields.vectors[0]).abs().max() > 1e-3
    assert np.isfinite(read.vectors).all()
    assert read.rows.tolist() == [0, 1, 0]
    assert set(answers) == {"a", "b"}
    for module, loader in ((tuning, "load_encoder"), (text_vectors, "load_encoder"), (knowledge, "load_decoder")):
        monkeypatch.setattr(module, loader, None)
    again = call()
    assert torch.equal(again[0].vectors, fields.vectors)
    assert np.array_equal(again[1].vectors, read.vectors)
    assert again[2][0] == answers


def test_random_weights_are_another_draw_of_the_same_class(folders: dict[str, Path], config: Config) -> None:
    chosen = config("qwen3_0_6b", model=str(folders["qwen3_0_6b"]), epochs=0)
    encoders = [
        load_encoder(one, CPU, converted=Path("nowhere"))
        for one in (chosen, *[config("qwen3_0_6b", model=chosen.model, epochs=0, weights="random")] * 2)
    ]
    assert len({type(one.model) for one in encoders}) == 1
    own, drawn, again = (one.embed_all([[1, 9, 8, 7]], micro_batch=1) for one in encoders)
    assert torch.equal(drawn, again)
    assert (own - drawn).abs().max() > 0.1
    with pytest.raises(UserError, match=r"encoder\.weights=random has no 4 bits"):
        load_encoder(config("qwen3_0_6b", weights="random", dtype="4bit"), CPU, converted=Path("nowhere"))


@pytest.mark.parametrize("name", NAMES)
def test_four_bits_are_refused_before_anything_is_fetched(name: str, config: Config) -> None:
    with pytest.raises(UserError, match=r"encoder\.dtype=4bit needs a CUDA device and the package bitsandbytes"):
        load_encoder(config(name, dtype="4bit"), CPU, converted=Path("nowhere"))


@pytest.mark.parametrize(("name", "weights"), [("llama3_8b", 7_504_924_672), ("qwen3_0_6b", 596_049_920)])
def test_a_published_model_has_its_published_size_and_is_not_loaded(
    name: str, weights: int, config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    chosen = config(name, model="nobody/here")
    shape = shape_of(settings_of(chosen, published(name)))
    assert shape.layer_weights + shape.token_weights == weights
    assert tokenizer_of(chosen) is None
    with pytest.raises(UserError, match=r"encoder\.model=nobody/here is not here, nor a description of it"):
        settings_of(chosen, tmp_path / "none.json")


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_here_tells_its_own_shape_and_tokens(
    name: str, folders: dict[str, Path], config: Config
) -> None:
    chosen = config(name, model=str(folders[name]), epochs=0)
    shape, encoder = shape_of(settings_of(chosen, Path("none.json"))), load_encoder(chosen, CPU, converted=Path("no"))
    assert shape.layer_weights + shape.token_weights == sum(p.numel() for p in encoder.model.parameters())
    assert shape[1:] == (259 * 32, 2, 32, 4, 4 * 16, 2 * 2 * 16)
    assert mean_tokens(tokenizer_of(chosen), ["abc", "abcde"], 99) == 5.0  # a byte each, and the first
    assert mean_tokens(tokenizer_of(chosen), ["abc", "abcde"], 5) == 4.5
    assert mean_tokens(None, ["abcd", "abcdefgh"], 99) == 1.5
    assert mean_tokens(None, [], 99) == 0


def test_the_operations_are_those_that_torch_counts(config: Config, folders: dict[str, Path]) -> None:
    settings = shrunk("llama3_8b")
    shape, length = shape_of(settings), 24
    for epochs, passes, tolerance in ((0, 1, 0.02), (1, 2, 0.2)):  # LoRA's own products are not in the formula
        chosen = config("llama3_8b", model=str(folders["llama3_8b"]), epochs=epochs, lora_rank=1, attention="eager")
        encoder = load_encoder(chosen, CPU, converted=Path("nowhere"))
        with warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
            warnings.simplefilter("ignore")
            found = encoder.embed([[5] * length] * 3)
            if passes == 2:
                found.sum().backward()
        expected = demand(shape, Work(3, length, passes=passes), dtype="fp32", micro_batch=1).flops
        assert counter.get_total_flops() == pytest.approx(expected, rel=tolerance)


def test_the_demand_is_its_formula() -> None:
    shape = Shape(layer_weights=1000, token_weights=300, layers=2, width=10, heads=4, attended=12, kept=6)
    read = demand(shape, Work(7, 5.0), dtype="bf16", micro_batch=3)
    assert read == Demand(35, 7 * 5 * (2000 + 4 * 12 * 2 * 5), 2600 / 1e9, 3 * 5 * (340 + 20 * 5) / 1e9)
    trained = demand(shape, Work(7, 5.0, passes=2), dtype="fp32", micro_batch=3)
    assert trained == Demand(35, 2 * read.flops, 5200 / 1e9, 2 * 2 * read.batch_gb)
    written = demand(shape, Work(7, 5.0, written_each=5), dtype="4bit", micro_batch=3)
    assert written.tokens == 70
    assert written.flops == 7 * (10 * (2000 + 96 * 10) + 2 * 300 * 5)
    assert written.weights_gb == pytest.approx((562.5 + 2 * 600) / 1e9)
    assert written.batch_gb == pytest.approx((3 * 10 * (340 + 20 * 10) + 3 * 10 * 6 * 2 * 2) / 1e9)

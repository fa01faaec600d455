"""`fieldctr list models dataset=NAME`: its figures follow the models' formulas, and no model is left out in silence."""

from pathlib import Path

import pytest

from fieldctr.commands import list as listing
from fieldctr.commands import model_sizes
from fieldctr.errors import UserError

TABLE = ("dataset=synthetic", "dataset.source.rows=3000", "tuned=none")


@pytest.fixture
def few_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_sizes, "options", lambda *_: ["dnn", "ffm", "transformer"])


@pytest.mark.usefixtures("few_models")
def test_sizes_on_a_table_and_a_model_that_cannot_be_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing.main("models", *TABLE, "embedding_dim=5", f"outputs={tmp_path}")
    head, *_, dnn, ffm, transformer, reason = capsys.readouterr().out.splitlines()
    rows = int(head.split()[3].replace(",", ""))
    assert head.startswith("synthetic: 21 fields, ")
    assert (tmp_path / "data").is_dir()
    weights = 105 * 300 + 300 * 300 + 300 * 128 + 128
    dense = weights + 300 + 300 + 128 + 1
    state = f"{(dense + 5 * rows) * 16 / 2**20:,.0f}"
    assert dnn.split() == ["dnn", "5", f"{dense:,}", f"{5 * rows:,}", f"{2 * weights:,}", state]
    assert ffm.split()[:4] == ["ffm", "5", "1", f"{(20 * 5 + 1) * rows:,}"]
    assert transformer.split() == ["transformer", *"-----"]
    assert reason == "transformer: model.num_heads=2 does not divide the tokens' width, 5"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models", "dataset=synthetik"], "no dataset 'synthetik'.*synthetic"),
        (["models", "dataset=synthetic", "dataset.min_cuont=1"], "dataset.min_cuont.*dataset.min_count"),
        (["models", "dataset="], "dataset=: a group is chosen by name"),
        (["models", "dataset=synthetic", "seed=1"], "takes no 'seed'"),
        (["models", "embedding_dim=8"], "needs dataset=NAME"),
        (["models", "dataset=synthetic", "embedding_dim=0"], "embedding_dim=0 is not allowed"),
        (["models", "dataset=coupon", "data_root=nowhere"], "coupon.*nowhere"),
        (["datasets", "dataset=synthetic"], "fieldctr list models dataset=NAME"),
        (["models", "datasets", "dataset=synthetic"], "fieldctr list models dataset=NAME"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_a_mistake_is_named(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        listing.main(*words, *([f"outputs={tmp_path}"] if words[0] == "models" else []))
    assert not any(tmp_path.iterdir())

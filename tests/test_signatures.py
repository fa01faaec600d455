"""Types that are read from a source are those of the class or function once it is imported."""

import importlib
import inspect
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from fieldctr.catalog import conf_dir, options
from fieldctr.commands.help import allowed
from fieldctr.commands.keys import Key, defaults_of, option_keys, root_keys, targets
from fieldctr.commands.launch import compose
from fieldctr.commands.types import RECORDS, refuse_values, root_type
from fieldctr.config import parse
from fieldctr.errors import UserError
from fieldctr.signatures import keywords, record
from fieldctr.trust import trusted

COMMANDS = sorted(path.stem for path in conf_dir().glob("*.yaml") if path.stem != "base")
GROUPS = ("dataset", "model", "enhancer", "encoder", "schema", "trainer", "optimizer", "runtime", "tracker")
TOLD_BY_THEIR_PARENT = ("dataset.fields.", "dataset.published.", "dataset.entities.", "dataset.text_template.")


def target_paths() -> list[str]:
    """What the options of all groups name."""
    pairs = {(group, option) for group in GROUPS for option in options(group)}
    return sorted({path for pair in pairs for path in targets(dict([pair])).values()})


def told_by_themselves(keys: list[Key]) -> list[Key]:
    return [key for key in keys if not key.name.startswith(TOLD_BY_THEIR_PARENT) and key.name[-8:] != "_target_"]


def imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("path", target_paths())
def test_keywords_read_are_those_imported(path: str) -> None:
    target = imported(path)
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    own = [one.name for one in inspect.signature(target).parameters.values() if one.kind is one.KEYWORD_ONLY]
    read = keywords(path)
    assert list(read) == own
    for name, kind in read.items():
        assert kind == hints[name] or name == "new_rows", name  # of the program, not of a configuration


@pytest.mark.parametrize("command", COMMANDS)
def test_the_types_of_a_command_are_those_of_its_dataclass(command: str) -> None:
    """By what its keys' types are called: a dataclass read is another than the one imported."""
    read = root_type(command)
    assert read
    module = importlib.import_module(f"fieldctr.commands.{command}")
    hints = get_type_hints(getattr(module, read.__name__), include_extras=True)
    found = get_type_hints(read, include_extras=True)
    assert found.keys() == hints.keys()
    for name, kind in hints.items():
        assert getattr(found[name], "__name__", found[name]) == getattr(kind, "__name__", kind), name


@pytest.mark.parametrize("path", RECORDS.values())
def test_the_types_of_a_node_are_those_of_its_dataclass(path: str) -> None:
    read = record(path)
    assert read
    assert get_type_hints(read, include_extras=True) == get_type_hints(imported(path), include_extras=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_of_each_key_what_it_is(command: str) -> None:
    taken = defaults_of(command)
    keys = [*root_keys(command), *(key for pair in taken.items() for key in option_keys(*pair))]
    paths = targets(taken)
    for key in told_by_themselves(keys):
        assert key.comment or allowed(key, command, paths), key.name


@pytest.mark.parametrize("group", GROUPS)
def test_help_says_of_each_key_of_every_option_what_it_is(group: str) -> None:
    for option in options(group):
        paths = targets({group: option})
        for key in told_by_themselves(option_keys(group, option)):
            assert key.comment or allowed(key, "train", paths), key.name


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("train", ["model.dropout=9"], "model.dropout=9 is not allowed: expected float from 0 to 1"),
        ("train", ["model.embedding_std=x"], "model.embedding_std=x is not allowed: expected float >= 0"),
        ("train", ["model.pooling=avg"], "model.pooling=avg is not allowed: expected "),
        ("train", ["dataset.source.rows=0"], "dataset.source.rows=0 is not allowed: expected int >= 1"),
        ("train", ["dataset.min_count=x"], "dataset.min_count=x is not allowed: expected int >= 1"),
        ("prepare", ["schema=merge", "schema.seed=x"], "schema.seed=x is not allowed"),
        ("compare", ["runs=x", "level=2"], "level=2 is not allowed: expected float from 0.5 to 0.9999"),
        ("baseline", ["boosting.num_leaves=1"], "boosting.num_leaves=1 is not allowed: expected int >= 2"),
        ("study", ["engine.workers=0"], "engine.workers=0 is not allowed: expected int >= 1 | auto"),
    ],
)
def test_a_wrong_value_is_refused_by_what_was_read(command: str, words: list[str], told: str) -> None:
    with pytest.raises(UserError) as raised:
        refuse_values(compose(command, words), command)
    assert told in str(raised.value)


def test_a_name_that_yaml_read_as_a_number_is_no_wrong_value() -> None:
    refuse_values(compose("train", ["dataset.group=2024", "dataset.fields.user_id={}"]), "train")


def test_of_a_module_that_is_not_trusted_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text("def read(raw_dir, *, rows: open('ran', 'w')): ...\nopen('imported', 'w')\n")
    monkeypatch.chdir(tmp_path)
    assert keywords("stranger.read") == {}
    assert record("stranger.read") is None
    assert [path.name for path in tmp_path.iterdir()] == ["stranger.py"]


def test_a_module_in_the_working_directory_is_read_once_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ownparts").mkdir()
    (tmp_path / "ownparts/mine.py").write_text(
        "import nothing_of_this_name\nfrom dataclasses import dataclass\nfrom typing import Annotated\n"
        "from fieldctr.config import Share\nfrom ownparts.more import Kind\n\n@dataclass\nclass Part:\n"
        "    size: int\n    name: str = ''\n\nclass Mine:\n"
        "    def __init__(self, schema, dim, *, rate: Share, kind: Kind, part: Part, odd: nothing.Of, some=3): ...\n"
    )
    (tmp_path / "ownparts/more.py").write_text("from typing import Literal\nKind = Literal['a', 'b']\n")
    monkeypatch.chdir(tmp_path)
    trusted().add("ownparts")
    try:
        read = keywords("ownparts.mine.Mine")
    finally:
        trusted().discard("ownparts")
    share: Any = keywords("fieldctr.models.fat.FAT")["dropout"]
    assert read["rate"] == share
    assert read["odd"] is read["some"] is Any
    assert set(read["kind"].__args__) == {"a", "b"}
    assert parse(read["part"], {"size": 3}, "part").size == 3
    with pytest.raises(UserError, match="expected int"):
        parse(read["part"], {"size": "x"}, "part")

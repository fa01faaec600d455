"""What YAML files of a stranger may do to Hydra and OmegaConf: each hostile one is refused before anything runs."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fieldctr.catalog import conf_dir
from fieldctr.commands.hydra_guard import BUDGET, install
from fieldctr.commands.launch import resolved
from fieldctr.commands.mistakes import translate
from fieldctr.commands.yaml_files import MAX_VALUES, read_yaml
from fieldctr.errors import UserError

GLOBAL = "# @package _global_\n"
PAYLOAD = "{_target_: os.system, command: touch ran}"
STRANGER = "from pathlib import Path\nPath('ran').touch()\nclass Evil: ...\n"
Compose = Callable[..., DictConfig]


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """composed(text, override, ...): `train` with an experiment of this text, which lies in a folder of its own."""
    install()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stranger.py").write_text(STRANGER)
    (tmp_path / "conf/experiment").mkdir(parents=True)

    def make(text: str | bytes, *overrides: str) -> DictConfig:
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "conf/experiment/x.yaml").write_bytes(content)
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            words = [f"hydra.searchpath=['{tmp_path}/conf']", "experiment=x", *overrides]
            return compose("train", words, return_hydra_config=True)

    return make


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"hydra: {{callbacks: {{x: {PAYLOAD}}}}}", r"hydra\.callbacks\.x\._target_=os\.system is refused: os is"),
        ("hydra: {callbacks: {x: {_target_: stranger.Evil}}}", "package stranger is not trusted.* add trust=stranger"),
        ("hydra: {callbacks: {x: {_target_: fieldctr.models.fm.FM}}}", "expected a callback of Hydra"),
        (f"p: {PAYLOAD}\nhydra: {{callbacks: {{x: '${{p}}'}}}}", r"hydra\.callbacks\.x\._target_=os\.system"),
        (f"p: {{x: {PAYLOAD}}}\nhydra: {{callbacks: '${{p}}'}}", r"hydra\.callbacks\.x\._target_=os\.system"),
        ("p: os.system\nhydra: {callbacks: {x: {_target_: '${p}'}}}", r"hydra\.callbacks\.x\._target_=os\.system"),
        ("hydra: {callbacks: {x: '${oc.create:{_target_: os.system}}'}}", r"hydra\.callbacks\.x\._target_=os\.system"),
        ("hydra: {callbacks: {x: '${oc.decode:\"{_target_: os.system}\"}'}}", r"x\._target_=os\.system is refused"),
        (
            f"hydra: {{callbacks: {{x: {{_target_: fieldctr.commands.sweeps.Sweep, command: {PAYLOAD}}}}}}}",
            "one _target_ within another",
        ),
        ("hydra: {callbacks: {x: y}}", r"'hydra\.callbacks\.x' has no _target_"),
        (f"hydra: {{launcher: {PAYLOAD}}}", r"launcher"),
        ("hydra: {launcher: {_target_: stranger.Evil}}", r"hydra\.launcher\._target_=stranger\.Evil is refused"),
        ("hydra: {launcher: {_target_: hydra_plugins.evil.Evil}}", "cannot be imported"),
        ("hydra: {sweeper: {_target_: os.system}}", r"hydra\.sweeper\._target_=os\.system is refused"),
        ("hydra: {job_logging: {handlers: {h: {(): os.system, command: touch ran}}}}", r"\(\)=os\.system is refused"),
        ("hydra: {job_logging: {handlers: {h: {class: stranger.Evil}}}}", r"h\.class=stranger\.Evil is refused"),
        ("hydra: {job_logging: {x: 'ext://stranger.Evil'}}", r"ext://stranger\.Evil is refused"),
        ("hydra: {job_logging: {handlers: {h: {class: logging.FileHandler, filename: ran}}}}", "=ran is refused"),
        ("hydra: {hydra_logging: {handlers: {h: {class: '${seed}'}}}}", r"h\.class=\$\{seed\} is refused"),
        ("hydra: {job: {name: ../ran}}", r"hydra\.job\.name=\.\./ran is not allowed"),
        ("hydra: {job: {env_set: {FIELDCTR_TRUST: stranger}}}", r"env_set\.FIELDCTR_TRUST is refused"),
        ("hydra: {job: {env_copy: [NOT_THERE]}}", "the environment has no 'NOT_THERE'"),
        ("hydra: {searchpath: ['pkg://stranger']}", r"hydra\.searchpath belongs to the call"),
        ("hydra: {verbose: {a: b}}", r"hydra\.verbose=.* expected true, false or names"),
    ],
)  # fmt: skip
def test_the_node_of_hydra_runs_nothing(text: str, words: str, composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=words) as caught:
        composed(GLOBAL + text + "\n")
    assert isinstance(caught.value, UserError) or "launcher" in words
    assert not (tmp_path / "ran").exists()
    assert "stranger" not in sys.modules


def test_what_belongs_there_passes(composed: Compose) -> None:
    config = composed(
        GLOBAL + "defaults: [{override /hydra/launcher: joblib}]\nhydra: {sweep: {dir: there}, launcher: {n_jobs: 2}, "
        "callbacks: {again: {_target_: fieldctr.commands.sweeps.Sweep}}}\n",
    )
    assert (config.hydra.sweep.dir, config.hydra.launcher.n_jobs) == ("there", 2)
    for logging in ("stdout", "default", "none"):
        assert composed("seed: 1\n", f"hydra/job_logging={logging}").hydra.job_logging is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [x\nfields: {\n", r"x\.yaml line 2: no valid YAML: did not find expected"),
        ("name: a\n\tb: c\n", r"x\.yaml line 2: no valid YAML: .*tab"),
        ("a: 1\na: 2\n", "line 2: no valid YAML: found duplicate key a"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("- a\n- b\n", "holds a list: expected a mapping"),
        ("hello\n", "holds one text, 'hello': expected a mapping"),
        (b"\x00\x01\xff", "is no UTF-8 text"),
        ("name: café\n".encode("latin-1"), "is no UTF-8 text"),
        ("a: !!python/object/apply:os.system [touch ran]\n", "could not determine a constructor"),
        ("a: !!set {b}\n", "not a supported primitive type"),
        ("a: *b\n", r"\*b stands inside itself, or for nothing"),
        ("a: &a [*a]\n", r"\*a stands inside itself"),
        ("null: 1\n", "Incompatible key type"),
        ("? [a]\n: 1\n", "unhashable key"),
        ("a: " + "1" * 5000 + "\n", "limit"),
        ("a: ${\n", "no viable alternative"),
        ("defaults: x\n", "defaults: x is not allowed: expected a list of entries GROUP: OPTION"),
        ("defaults: [3]\n", "defaults: 3 is not allowed"),
        ("defaults: [[a]]\n", r"defaults: .*'a'.* is not allowed"),
        ("defaults: [{a: b, c: d}]\n", "is not allowed: expected a list of entries"),
        ("defaults: [{a: [1]}]\n", "is not allowed: expected a list of entries"),
        ("defaults: [nope]\n", "no experiment 'nope'"),
        ("defaults: [{/model: nope}]\n", "no model 'nope'"),
        ("defaults: [{override model: nope}]\n", "Could not override 'experiment.model'"),
        ("defaults: [{override /modle: fm}]\n", "Could not override 'modle"),
        ("defaults: [x]\n", "nested too deeply, or a part of it holds itself"),
        ("# @package\na: 1\n", "Expected header format"),
        (GLOBAL + "hydra: 3\n", "Merge error: int is not"),
        (GLOBAL + "hydra: [a]\n", "hydra"),
        (GLOBAL + "model: [a]\n", "Cannot merge DictConfig with ListConfig"),
        (GLOBAL + "a: ${foo:bar}\n", "a: Unsupported interpolation type foo"),
        (GLOBAL + "a: ${nope.x}\n", "a: Interpolation key 'nope.x' not found"),
        (GLOBAL + "a: ${b}\nb: ${a}\n", "Recursive interpolation"),
        (GLOBAL + "a: ???\n", "train needs a value for 'a'"),
        (GLOBAL + "".join(f"a{i}: ${{a{i + 1}}}\n" for i in range(2000)) + "a2000: 1\n", "nested too deeply"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_a_sentence(text: str | bytes, words: str, composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011, PT012  whatever Hydra raises is translated
        config = composed(text)
        resolved(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), "train")
    assert re.search(words, translate(caught.value, "train")), translate(caught.value, "train")
    assert len(translate(caught.value, "train").splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def chain(form: str, length: int = 40, leaf: str = "x") -> str:
    """Each key made of the next, twice or more."""
    return "".join(f"a{i}: {form.replace('@', f'a{i + 1}')}\n" for i in range(length)) + f"a{length}: {leaf}\n"


def tower(form: str) -> str:
    """Each anchor holds the one below it eight times."""
    below = "".join(
        f"b{i}: &b{i} {form.replace('@', ', '.join([f'*b{i - 1}'] * 8)).replace('#', str(i))}\n" for i in range(1, 12)
    )
    return "b0: &b0 {k: 1}\n" + below


BOMBS = {
    "aliases": tower("[@]"),
    "merges": tower("{<<: [@], k#: 1}"),
    "texts": GLOBAL + chain("'${@}${@}'"),
    "long texts": GLOBAL + chain("'${@}${@}'", leaf="x" * 10_000),
    "mappings": GLOBAL + chain("{p: '${@}', q: '${@}'}", leaf="{x: 1}"),
    "one large text": GLOBAL + f"b: {'x' * 1_000_000}\na: '{'${b}' * 5000}'\n",
    "one large list": GLOBAL + f"b: [{'1,' * 2000}]\na: [" + "'${b}'," * 2000 + "]\n",
    "deep lists": "a: " + "[" * 100_000,
    "deep keys": "? " * 10_000 + "a",
    "deep interpolations": f"a: {'${' * 5000}b{'}' * 5000}\n",
    "a long interpolation": f"a: '${{oc.create:[{','.join(['1'] * 100_000)}]}}'\n",
    "decoded": GLOBAL + chain("'${@},${@},${@},${@}'", 7, "'1,1,1,1'") + "z: '${oc.decode:\"[${a0}]\"}'\n",
    "many values": f"a: [{'1,' * 1_000_000}]\n",
    "a huge file": "#" * 5_000_000,
}
WORDS = "more than 100,000 values|deeper than 50 levels|bytes: a YAML file of at most"
SCRIPT = """
import pathlib, resource, sys
from hydra import compose, initialize_config_dir
from fieldctr.catalog import conf_dir
from fieldctr.commands.hydra_guard import install
from fieldctr.commands.launch import resolved
from fieldctr.commands.mistakes import translate
resource.setrlimit(resource.RLIMIT_AS, (500 << 20, 500 << 20))
install()
for name in sys.argv[1:]:
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            words = [f"hydra.searchpath=['{pathlib.Path.cwd()}/conf']", f"experiment={name}"]
            resolved(compose("train", words), "train")
        print(name, "passed")
    except Exception as error:
        print(name, translate(error, "train"))
"""


@pytest.mark.slow
def test_bombs_are_refused_within_500_mb(tmp_path: Path) -> None:
    """In a process of its own: one that bursts takes nothing with it."""
    (tmp_path / "conf/experiment").mkdir(parents=True)
    for name, text in BOMBS.items():
        (tmp_path / f"conf/experiment/{name.replace(' ', '_')}.yaml").write_text(text)
    for i in range(30):
        defaults = f"defaults: [include{i + 1}@p, include{i + 1}@q]\n" if i < 29 else ""
        (tmp_path / f"conf/experiment/include{i}.yaml").write_text(f"{defaults}k{i}: 1\n")
    (tmp_path / "conf/experiment/z.yaml").write_text(GLOBAL + "seed: 1\n")
    names = [*(name.replace(" ", "_") for name in BOMBS), "include0", "z"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *names], cwd=tmp_path, capture_output=True, text=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert done.returncode == 0, done.stderr[-2000:]
    for answer in [said[name] for name in names[:-1]]:
        assert re.search(r"more than 100,000 values|deeper than 50 levels|bytes: a YAML file of at most", answer), (
            answer
        )
    assert said["z"] == "passed"


@pytest.mark.slow
def test_an_honest_table_of_3_000_fields_is_read(tmp_path: Path) -> None:
    keys = ", ".join(f"k{i}: {i}" for i in range(4))
    path = tmp_path / "wide.yaml"
    path.write_text("a: &a {x: 1}\nfields:\n" + "".join(f"  f{i}: {{{keys}}}\n" for i in range(3000)) + "b: *a\n")
    config, _, values = read_yaml(path)
    assert (len(config.fields), config.b.x) == (3000, 1)
    assert values == 1 + 3000 * (1 + 1 + 8) + 7 + 3 < MAX_VALUES / 3


def test_each_composition_has_a_budget_of_its_own(composed: Compose) -> None:
    composed("seed: 1\n")
    spent = BUDGET.spent
    composed("seed: 1\n")
    assert BUDGET.spent == spent
    assert 0 < spent < MAX_VALUES / 10


def test_what_an_interpolation_gives_is_counted(composed: Compose) -> None:
    config: Any = composed(GLOBAL + f"b: [{', '.join('1' * 500)}]\na: ${{b}}\nt: {'x' * 5000}\nu: ${{t}}\n")
    for key, least in (("a", 500), ("u", 50)):
        before = BUDGET.spent
        assert config[key] is not None
        assert least <= BUDGET.spent - before < 2 * least

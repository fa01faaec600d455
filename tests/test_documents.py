"""What the READMEs say holds: links lead somewhere, blocks marked as runnable run, the front page stays short."""

import random
import re
import shlex
import subprocess
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from by_path import loaded

from fieldctr.catalog import options
from fieldctr.cli import COMMANDS

ROOT = Path(__file__).parents[1]


def hidden(name: str) -> bool:
    """Whether a folder is no part of the repository, such as an environment or a cache."""
    return name in ("outputs", "node_modules") or (name.startswith(".") and name != ".github")


PAGES = sorted(path for path in ROOT.rglob("*.md") if not any(map(hidden, path.relative_to(ROOT).parts)))
BLOCK = re.compile(r"^```bash runnable\n(.*?)^```$", re.M | re.S)
RUNNABLE = [path for path in PAGES if BLOCK.search(path.read_text(encoding="utf-8"))]
GROUPS = ("model", "dataset", "encoder", "enhancer", "experiment", "tracker", "schema", "study", "ablation")
MINE = {"shop", "mine", "pull"}  # what a page tells its reader to make
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its blocks of code, in which brackets are no links."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def calls(page: Path) -> Iterator[str]:
    """The calls of fieldctr in blocks of code and between backquotes."""
    text = page.read_text(encoding="utf-8")
    blocks = [*re.findall(r"^```.*?^```$", text, re.M | re.S), *re.findall(r"^ {4}.*$", text, re.M)]
    yield from re.findall(r"^ *(?:\$ )?(fieldctr [a-z].*)", "\n".join(blocks), re.M)
    yield from re.findall(r"`(fieldctr [a-z][^`\n]*)`", text)


def links(page: Path) -> Iterator[str]:
    """Where its links and pictures lead, but not to other sites."""
    text = prose(page)
    for found in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|srcset)="([^"]+)"', text)]:
        if not re.match(r"\w+:", found):
            yield found


def anchors(page: Path) -> set[str]:
    """GitHub's names of the headings: small letters, without signs, blanks as dashes."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_folders_have_pages() -> None:
    """What left the front page has a home."""
    homes = {
        "conf",
        "conf/experiment",
        "conf/study",
        "fieldctr/data",
        "fieldctr/llm",
        "fieldctr/models",
        "fieldctr/analysis",
        "scripts",
    }
    assert {f"{home}/README.md" for home in homes} <= {str(page.relative_to(ROOT)) for page in PAGES}


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no {target}"
        if anchor:
            assert anchor in anchors(target), f"{link}: {sorted(anchors(target))}"


def test_every_page_can_be_reached_from_the_front_page() -> None:
    seen, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            for link in links(page):
                target = (page.parent / link.partition("#")[0]).resolve()
                target = target / "README.md" if target.is_dir() else target  # what GitHub shows of a folder
                waiting += [target] if target.suffix == ".md" and target.exists() else []
    assert set(PAGES) <= seen


def test_the_front_page_takes_five_minutes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 160
    assert len(text.split()) <= 1400


def test_every_letter_of_a_shape_is_in_the_legend() -> None:
    legend = (ROOT / "fieldctr/models/README.md").read_text(encoding="utf-8").partition("\n## Shapes\n")[2]
    told = set(re.findall(r"[A-Z]", "".join(re.findall(r"\| ([A-Z](?:, [A-Z])*) (?=\|)", legend))))
    assert len(told) > 15
    size = r"(?:\d+|[a-z]|[A-Z]/[A-Z]|\d?[A-Z]{1,3})"
    shape = re.compile(rf"\((?:(?:{size}, ?)+{size}|{size},)\)|\b(?:{size},)+{size}\b")
    for path in (ROOT / "fieldctr").rglob("*.py"):
        with path.open(encoding="utf-8") as file:
            for token in tokenize.generate_tokens(file.readline):
                if token.type in (tokenize.COMMENT, tokenize.STRING):
                    letters = set(re.findall(r"[A-Z]", " ".join(shape.findall(token.string))))
                    assert letters <= told, f"{path}: {token.string}"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda path: str(path.relative_to(ROOT)))
def test_runnable_blocks_run_one_after_the_other(
    page: Path, tmp_path: Path, call: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """In a folder that holds what the page says is there, a table of clicks; trained for one epoch."""
    (tmp_path / "shop").mkdir()
    draw = random.Random(1)
    rows = [
        f"u{draw.randrange(40)},a{draw.randrange(9)},{draw.random():.2f},{1_700_000_000 + 900 * i}" for i in range(900)
    ]
    lines = [f"{row},{int(draw.random() < (0.6 if 'a1' in row else 0.2))}" for row in rows]
    (tmp_path / "shop/clicks.csv").write_text("\n".join(["user,ad,price,time,clicked", *lines]) + "\n")
    text = "".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    for part in re.split(r"^(fieldctr .*\n)", text, flags=re.M):
        if part.startswith("fieldctr "):
            words = shlex.split(part, comments=True)[1:]
            done = call(tmp_path, *words, *(["trainer.max_epochs=1"] if words[0] == "train" else []))
        else:
            shell = ["bash", "-euo", "pipefail", "-c", part]
            done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, f"{part}{done.stdout}{done.stderr}"
    runs = list(tmp_path.glob("outputs/**/result.json"))
    assert len(runs) == text.count("fieldctr train") > 0


@pytest.mark.slow
def test_the_table_with_every_kind_of_field_can_be_prepared(
    tmp_path: Path, call: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The YAML of fieldctr/data/README.md, and a file as it says."""
    page = (ROOT / "fieldctr/data/README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(# Clicks.*?)^```$", page, re.M | re.S)
    (tmp_path / "my/dataset").mkdir(parents=True)
    (tmp_path / "my/dataset/shop.yaml").write_text(text)
    (tmp_path / "data/shop").mkdir(parents=True)
    (tmp_path / "data/shop/items.csv").write_text("item_id,maker\n" + "".join(f"{i},m{i % 3}\n" for i in range(9)))
    draw = random.Random(0)
    lines = ["ts,user,ad,item_id,tags,price,w,session,past_ads,genre_a,genre_b,last_ad,clicked"]
    for i in range(3000):
        ad, other = draw.randrange(9), draw.randrange(9)
        row = [1_700_000_000 + 600 * i, draw.randrange(60), ad, ad, "x|y", draw.random(), draw.choice([1, 2]), i // 7]
        row += [f"{other}^{ad}", draw.randrange(3), draw.randrange(3), other, int(draw.random() < 0.1 + 0.05 * ad)]
        lines.append(",".join(map(str, row)))
    (tmp_path / "data/shop/clicks-1.csv").write_text("\n".join(lines) + "\n")
    done = call(tmp_path, "prepare", "--config-dir", "my", "dataset=shop", "data_root=data")
    assert done.returncode == 0, done.stderr
    fields = yaml.safe_load(text)["fields"]
    for name, node in fields.items():
        assert (f"\n{name} " in done.stdout) == (node is not False), f"{name}: {done.stdout}"
    kinds = {node.get("kind", "categorical") for node in fields.values() if node}
    told = set(
        re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", page.partition("## Kinds of fields")[2], re.M)))
    )
    assert kinds <= told


def test_every_command_that_a_page_shows_exists() -> None:
    """Each line of code that begins with fieldctr, and the options of the groups that it chooses.

    Those of a call with --config-dir may lie in that folder.
    """
    shown = 0
    for page in PAGES:
        for call in calls(page):
            shown += 1
            name = call.split()[1]
            assert name in {*COMMANDS, "COMMAND"}, f"{page}: {call}"
            for group, chosen in re.findall(rf" ({'|'.join(GROUPS)})=([a-z][\w,]*)(?![\w(])", call):
                missing = set(chosen.split(",")) - set(options(group)) - MINE
                assert not missing or "--config-dir" in call, f"{page}: {call}: no {missing}"
    assert shown > 40


def test_the_picture_is_that_of_the_table(draw_walk: ModuleType) -> None:
    steps = draw_walk.walk((ROOT / "README.md").read_text(encoding="utf-8"))
    for name, ink in draw_walk.INKS.items():
        drawn = (ROOT / f".github/walk-{name}.svg").read_text(encoding="utf-8")
        assert drawn == draw_walk.picture(steps, ink), "python scripts/draw_walk.py draws it again"


def test_the_walk_names_functions_that_are_there() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## The walk\n")[2].partition("\n## ")[0]
    places = re.findall(r"\| `([\w/*]+\.py): ([\w.]+)` \|", table)
    assert len(places) == 8
    for pattern, name in places:
        files = list((ROOT / "fieldctr").glob(pattern))
        sources = [path.read_text(encoding="utf-8") for path in files if path.name != "__init__.py"]
        defined = rf"^\s*def {name.rpartition('.')[2]}\("
        assert sources, pattern
        assert all(re.search(defined, source, re.M) for source in sources), f"{pattern}: {name}"


def test_issues_ask_for_what_the_doctor_says() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8"))
    asked = [field for field in form["body"] if "fieldctr doctor" in field["attributes"]["label"]]
    assert [field["validations"]["required"] for field in asked] == [True]


def test_the_public_workflow_does_what_ci_does_and_says_what_it_does_not() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["check"]
    steps = [step["run"] for step in job["steps"] if "run" in step]
    assert ".ci/run" in steps
    assert any("FIELDCTR_DATA" in step and "::warning::" in step for step in steps)
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


@pytest.fixture(scope="module")
def draw_walk() -> ModuleType:
    return loaded(ROOT / "scripts/draw_walk.py")


def test_the_demo_names_the_commands_that_come_next_with_their_path() -> None:
    target = (ROOT / "Makefile").read_text().partition("\ndemo: setup\n")[2].partition("\n\n")[0]
    said = [line for line in target.splitlines() if "@echo" in line]
    assert "made-up table" in said[0]
    next_ones = [re.sub(r"\s{2,}.*", "", line.split('"  ')[1]) for line in said if '"  fieldctr' in line]
    assert [call.split()[1] for call in next_ones] == ["show", "train", "baseline"]
    assert all("$(DEMO)" in call or "outputs" not in call for call in next_ones)
    assert any("$(BIN)/activate" in line for line in said)
    assert "learning.png" in target
    assert "hydra.run.dir=$(DEMO)" in target

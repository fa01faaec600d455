"""What makes a comparison less fair than its numbers look."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fieldctr.analysis.comparison.arms import RECIPE, Bench, Run, varied
from fieldctr.config import yaml
from fieldctr.disk import read_object
from fieldctr.provenance import short
from fieldctr.runs import lasting

NO_SPACE = "as its YAML has them: nothing to search"  # what a study says of an arm without a space
MOST_KEYS = 8
ASKED = "settings"  # where arms are compared by it, that they differ in it is the question


def notes_of(bench: Bench, by: Sequence[str], budgets: Mapping[str, dict[str, Any] | None]) -> list[str]:
    """Sentences, the gravest first."""
    return [
        *_settings(bench, by),
        *([] if ASKED in by else _budgets(budgets)),
        *_seeds(bench),
        *_other_keys(bench, by),
        *_several(bench, "data_digest", "prepared tables, whose rows of this split are the same"),
        *_several(bench, "commit", "states of fieldctr (+: a commit with local changes)", short),
        *_several(bench, "runtime", "machines or runtimes"),
        *bench.notes,
    ]


def settings(seeds: Mapping[int, Run]) -> str:
    """Where an arm's settings are from: defaults, tuned/coupon_fm, ..."""
    return ", ".join(dict.fromkeys(str(run.result.get("settings", "unknown")) for run in seeds.values()))


def _settings(bench: Bench, by: Sequence[str]) -> Iterator[str]:
    if any(unequal_settings(bench, by).values()):
        yield unequal({name: settings(seeds) for name, seeds in bench.arms.items()})


def unequal(kinds: Mapping[str, str]) -> str:
    """The sentence on arms whose settings are of several kinds, each by its name."""
    each: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        each.setdefault(kind, []).append(name)
    return (
        f"UNEQUAL SETTINGS: {'; '.join(f'{_and(names)} on {kind}' for kind, names in each.items())}. The "
        "differences are those of the settings as well: search for all arms, or for none (tuned=none)"
    )


def unequal_settings(bench: Bench, by: Sequence[str]) -> dict[str, str]:
    """By arm what a sentence about it must say: that its settings are of another kind than the reference's, or ''."""
    if ASKED in by:
        return dict.fromkeys(bench.arms, "")
    kinds = {name: settings(seeds) for name, seeds in bench.arms.items()}
    base = kinds[bench.against]
    return {
        name: "" if comparable(kind, base) else f"UNEQUAL SETTINGS: {name} ran on {kind}, {bench.against} on {base}"
        for name, kind in kinds.items()
    }


def comparable(one: str, other: str) -> bool:
    """Whether two settings are of one kind, such as tuned/coupon_fm and tuned/coupon_lr."""
    return _kind(one) == _kind(other) or NO_SPACE in (one, other)


def _kind(settings: str) -> str:
    """tuned of tuned/coupon_fm; 'searched, 8 trials' also where the settings are those of another arm."""
    return settings.partition(", those of ")[0].partition("/")[0]


def _budgets(budgets: Mapping[str, dict[str, Any] | None]) -> Iterator[str]:
    trials = {name: budget and budget.get("finished", budget.get("trials")) for name, budget in budgets.items()}
    if len(set(trials.values())) > 1:
        each = ", ".join(f"{name} {'none' if count is None else count}" for name, count in trials.items())
        yield f"UNEQUAL BUDGETS: finished trials of the search were {each}"


def _seeds(bench: Bench) -> Iterator[str]:
    every = sorted({seed for seeds in bench.arms.values() for seed in seeds})
    for name, seeds in bench.arms.items():
        missing = [seed for seed in every if seed not in seeds]
        if missing:
            shared = [seed for seed in seeds if seed in bench.arms[bench.against]]
            rest = f"the {len(shared)} shared ones count" if shared else "it shares none, and all count, unpaired"
            yield f"{name} has no run of seed {_listed(missing)}: of its difference to {bench.against} {rest}"
    if max(map(len, bench.arms.values())) == 1:
        yield "one seed each: what other seeds would give is in no interval here"


def _other_keys(bench: Bench, by: Sequence[str]) -> Iterator[str]:
    """What the arms differ in besides what was asked for."""
    first = {name: lasting(next(iter(seeds.values())).config) for name, seeds in bench.arms.items()}
    found = []
    first = {name: config for name, config in first.items() if "embedding_dim" in config}  # others are no models
    for key in varied([next(iter(bench.arms[name].values())) for name in first]):
        asked = any(key == one or key.startswith(f"{one}.") for one in by)
        if key.startswith(RECIPE) and not asked and not key.startswith("dataset.fraction_seed"):
            values: dict[str, list[str]] = {}
            for name, own in first.items():
                values.setdefault(yaml(own.get(key)), []).append(name)
            found.append(f"{key} ({'; '.join(f'{value}: {_listed(names)}' for value, names in values.items())})")
    if found:
        more = f" and {len(found) - MOST_KEYS} more keys" if len(found) > MOST_KEYS else ""
        yield f"besides {_listed(by)} the arms differ in {', '.join(found[:MOST_KEYS])}{more}"


def _several(bench: Bench, key: str, what: str, spelled: Callable[[str], str] = str) -> Iterator[str]:
    each: dict[str, list[str]] = {}
    for name, seeds in bench.arms.items():
        for run in seeds.values():
            names = each.setdefault(str(run.result.get(key) or "none"), [])
            names.extend([name] if name not in names else [])
    if len(each) > 1:
        texts = (f"{spelled(value)} ({_listed(names)})" for value, names in each.items())
        yield f"{len(each)} {what}: {'; '.join(texts)}"


def budget_of(seeds: Mapping[int, Run], name: str) -> dict[str, Any] | None:
    """What a study spent on the search of an arm's settings, by the record in the study's folder; None without one."""
    run = next(iter(seeds.values()))
    for folder in list(run.folder.resolve().parents)[:4]:
        record = read_object(folder / "record.json") if (folder / "record.json").is_file() else None
        searches = (record or {}).get("searches", [])
        for search in searches:
            if search.get("dataset") == run.ground and search.get("arm") in (name, run.folder.parent.name):
                return search.get("budget")
        if searches:
            return None
    return None


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

"""`fieldctr show RUN [--config-dir DIR]`: what a run is, what it reached, how it went and where its files are."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldctr.catalog import groups, options
from fieldctr.config import yaml
from fieldctr.disk import read_object
from fieldctr.errors import UserError
from fieldctr.runs import ERROR, METRICS, RECORD, RESULT, lasting, load_config, load_result

USAGE = "usage: fieldctr show RUN [--config-dir DIR]    RUN is a run's folder, such as one below outputs/train"
SCORES = {
    "auc": "AUC",
    "logloss": "LogLoss",
    "gauc": "gAUC",
    "ne": "NE",
    "ece": "ECE",
    "attainable_share": "of attainable",
}
CURVES = {"train_loss": "train loss", "valid/auc": "valid AUC", "valid/logloss": "valid LogLoss"}
MOST_ROWS = 12  # of the history: evenly, with the first, the best and the last
MOST_KEYS = 40


def main(*arguments: str) -> None:
    """Print the page of one run, finished or not."""
    words, own = list(arguments), None
    if "--config-dir" in words[:-1]:
        at = words.index("--config-dir")
        own = words[at + 1]
        del words[at : at + 2]
    words = [word.removeprefix("run=") for word in words]
    if words[:1] in (["--help"], ["-h"]):
        print(USAGE)
        return
    if len(words) != 1 or words[0].startswith("-") or "=" in words[0]:
        raise UserError(USAGE)
    print("\n".join(page(Path(words[0]), own)))


def page(folder: Path, own: str | None = None) -> Iterator[str]:
    """The lines; `own` is the folder of the user's own YAML. UserError where no run is, or where it is damaged."""
    config = load_config(folder)
    result = load_result(folder) if (folder / RESULT).exists() else None
    yield summary(result, folder) if result else f"{folder} has not finished: {_why(folder)}"
    yield ""
    yield from _settings(config, own)
    if result:
        yield from _metrics(result)
    yield from _history(folder, (result or {}).get("best_step"))
    yield from _files(folder)


def called(model: str, enhancer: str) -> str:
    """'fm', or 'fm with kar'."""
    return model if enhancer == "none" else f"{model} with {enhancer}"


def summary(result: Mapping[str, Any], folder: Path) -> str:
    """What a person wants to know first."""
    split = "test" if "test" in result else "valid"
    own, valid = result[split], result["valid"]
    share = f", {own['attainable_share']:.1%} of what is attainable" if "attainable_share" in own else ""
    other = f"valid AUC {valid['auc']:.4f}" if split == "test" else "the test split was not read"
    return (
        f"{called(result['model'], result['enhancer'])} on {result['dataset']}, seed {result['seed']}: "
        f"{split} AUC {own['auc']:.4f}{share}, LogLoss {own['logloss']:.4f}; {other}\n"
        f"best step {result['best_step']}, {result['stopped']}; {result['samples_per_s']:,} samples/s, "
        f"{sum(result['seconds'].values()):.0f} s in all; {folder}/result.json"
    )


def _why(folder: Path) -> str:
    path = folder / ERROR
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return f"{lines[-1] if lines else 'killed, or still running'}. Go on: resume=true hydra.run.dir={folder}"


def _settings(config: Mapping[str, Any], own: str | None) -> Iterator[str]:
    """What was chosen, and the keys that differ from what these choices give by themselves."""
    chosen = {group: str(option) for group, option in (config.get("choices") or {}).items() if group in groups()}
    yield "chosen  " + " ".join(f"{group}={option}" for group, option in chosen.items() if option != "none")
    unknown = [f"{group}={option}" for group, option in chosen.items() if option not in options(group, own)]
    if unknown:
        yield f"  no defaults to compare with: {', '.join(unknown)} is in YAML of your own. Give --config-dir DIR"
        yield ""
        return
    from fieldctr.commands.launch import compose  # 0.5 s

    defaults = lasting(compose("train", [f"{group}={option}" for group, option in chosen.items()], config_dir=own))
    here = lasting(config)
    keys = [key for key in sorted(here | defaults) if here.get(key, ...) != defaults.get(key, ...)]
    yield "keys that differ from the defaults" if keys else "all keys at their defaults"
    rows = [(key, _spelled(here, key), f"(default {_spelled(defaults, key)})") for key in keys[:MOST_KEYS]]
    yield from table(rows)
    if len(keys) > MOST_KEYS:
        yield f"  and {len(keys) - MOST_KEYS} more"
    yield ""


def _spelled(settings: Mapping[str, Any], key: str) -> str:
    return yaml(settings[key]) if key in settings else "absent"


def _metrics(result: Mapping[str, Any]) -> Iterator[str]:
    splits = [split for split in ("valid", "test") if split in result]
    names = [name for name in SCORES if any(name in result[split] for split in splits)]
    yield "metrics"
    cells = [
        (split, *(f"{result[split][name]:.4f}" if name in result[split] else "" for name in names)) for split in splits
    ]
    yield from table([("", *(SCORES[name] for name in names)), *cells])
    rows = ", ".join(f"{count:,} {split}" for split, count in result["num_rows"].items())
    size = result["num_parameters"]
    yield f"  {rows} rows; {size['embedding']:,} embedding + {size['dense']:,} dense parameters; {result['runtime']}"
    yield ""


def _history(folder: Path, best: int | None) -> Iterator[str]:
    path = folder / METRICS
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    if not records:
        return
    last = len(records) - 1
    at = {round(i * last / (MOST_ROWS - 1)) for i in range(MOST_ROWS)} if last >= MOST_ROWS else set(range(last + 1))
    at |= {i for i, record in enumerate(records) if record["step"] == best}
    yield f"history, {len(at)} of {len(records)} evaluations; * is the one whose weights were kept"
    rows = [
        (f"{records[i]['step']:,}{'*' if records[i]['step'] == best else ' '}", f"{records[i]['epoch']:.2f}",
         *(f"{records[i][key]:.4f}" for key in CURVES))
        for i in sorted(at)
    ]  # fmt: skip
    yield from table([("step ", "epoch", *CURVES.values()), *rows])
    yield ""


def _files(folder: Path) -> Iterator[str]:
    record = (read_object(folder / RECORD) if (folder / RECORD).exists() else None) or {}
    program, *arguments = record.get("command") or ["unknown"]
    yield f"made {record.get('started', 'at an unknown time')}: {' '.join([program, *map(shlex.quote, arguments)])}"
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    yield f"files in {folder}: {', '.join(names)}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of one width each, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([f"  {first:{widths[0]}}", *cells]).rstrip()

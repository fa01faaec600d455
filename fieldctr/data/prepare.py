"""From a dataset's YAML node to a prepared table: read, encode once, load ever after."""

import inspect
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from fieldctr.artifacts import cached, read_key, stage_folder
from fieldctr.config import Between, Positive, Share, as_name, build, checked, parse, with_names
from fieldctr.data.bad_lines import in_a_sentence
from fieldctr.data.budget import Limits
from fieldctr.data.dataset import Dataset, check_table
from fieldctr.data.encode import encode
from fieldctr.data.fields.kinds import LATER, Spec
from fieldctr.data.fields.regroup import Regrouping, regrouped
from fieldctr.data.fields.specs import field_specs
from fieldctr.data.formats import obstacle
from fieldctr.data.new_rows import NewRows
from fieldctr.data.published import Published, refuse_other_files, refuse_other_rows
from fieldctr.data.scan import say
from fieldctr.data.splits import THINNED, thinned
from fieldctr.data.table import Table, refused_if_changed
from fieldctr.data.unfinished import shards_folder, unfinished
from fieldctr.errors import UserError, nearest
from fieldctr.raw_files import digests, refuse_changed, settled, stamps
from fieldctr.targets import Kind, locate
from fieldctr.trust import OWN, root


def _gives_a_table(target: Any) -> bool:
    """Whether it is a function that says so; one of somebody else's need not say what it gives."""
    if not inspect.isfunction(target):
        return False
    positional = [p for p in inspect.signature(target).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    gives = inspect.signature(target).return_annotation if len(positional) == 1 else None
    return gives is Table or (root(target.__module__) != OWN and gives in (inspect.Signature.empty, "Table"))


SOURCE = Kind(
    "a source: a function read(raw_dir, *, ...) -> fieldctr.data.table.Table",
    "fieldctr.data.sources.tidy.read",
    _gives_a_table,
)
Engine = Literal["polars", "ray"]
VERSION = 3  # of what the sources and the encoder write; raise it when the same input gives other files
DEFAULTS_NOT_HASHED = {  # keys that came later: tables without stay found
    "missing": "",
    "null_words": True,
    "columns": (),
    "bucket": 0,
    "buckets": 1,
    "num_buckets": None,
    "shares": "",
    **LATER,
}
SOURCE_DEFAULTS_NOT_HASHED = {"names": "plain"}  # keywords of a source, likewise


@dataclass(frozen=True)
class DatasetConfig:
    """A table and how to read it. Node `dataset`."""

    name: str
    raw_dir: str  # folder with the publisher's files
    source: dict[str, Any]  # _target_ and keywords of a `read` function
    min_count: Positive  # of a value in train, for fields that do not set their own
    group: str | None  # column that groups samples for gAUC
    fields: dict[str, Any]  # name -> keys of FieldSpec, StatisticSpec or HistorySpec, null, or false to leave it out
    entities: dict[str, Any] | None = None  # user, item, ... -> the fields that describe one
    text_template: dict[str, Any] | None = None  # user, item, ... -> a sentence with {field} and {features}
    published: dict[str, Any] | None = None  # keys of Published, what the files must be; null takes any
    train_fraction: Share = 1.0  # of the train rows that are kept; vocabularies are learned from these alone
    fraction_seed: Annotated[int, Between(0, 2**32 - 1)] = 1
    null_words: bool = True  # nan, NULL, None and their like mean missing, for fields that do not set their own
    weight: str | None = None  # column of sample weights; null: each row counts once
    negative_rate: Annotated[float, Between(1e-9, 1)] | None = None  # share of the non-clicks that the table still has


def prepared(
    node: Mapping[str, Any],
    *,
    data_dir: Path,
    schema: Mapping[str, Any] | None = None,
    engine: Engine = "polars",
    max_memory_gb: float | None = None,
    limits: Limits | None = None,
) -> Dataset:
    """The dataset of a resolved `dataset` node, from the cache below `data_dir` or encoded now.

    `schema`, the resolved node of that name, groups the fields differently. What decides the table's folder: fields,
    source with its keywords, the fraction of train, and the bytes of the raw files; not where those lie.
    Files that are not those which the node says were published are refused.
    `engine`, `max_memory_gb` (None: half of what the machine has left) and `limits` of `encode` change no byte of it.
    """
    config = parse(DatasetConfig, with_names(node), "dataset")
    with in_a_sentence(f"dataset '{config.name}'", "cannot be prepared"):
        specs = field_specs(config.fields, config.min_count, null_words=config.null_words)
        entities(config.entities, config.fields)
        published = parse(Published, config.published, "dataset.published") if config.published else Published({}, {})
        table, before = _table_as_it_is(config)
        specs = tuple(replace(spec, text=table.texts.get(spec.name, spec.text)) for spec in specs)
        if schema:
            specs = regrouped(specs, parse(Regrouping, schema, "schema"))
        of_fields = _files_of_fields(specs, Path(config.raw_dir))
        files, before = (*table.files, *of_fields), before | stamps(of_fields)
        refuse_other_files(published, table.files, data_dir / ".md5.json")
        key: dict[str, object] = {
            "version": VERSION,
            "source": dict(pair for pair in config.source.items() if pair not in SOURCE_DEFAULTS_NOT_HASHED.items()),
            "fields": [_encoded(spec) for spec in specs],
            "group": config.group,
            "files": digests(files, data_dir / ".digests.json"),
        }
        if config.train_fraction < 1:
            key |= {"train_fraction": config.train_fraction, "fraction_seed": config.fraction_seed}
        if config.weight:
            key["weight"] = config.weight
        folder = stage_folder(data_dir, key)
        if not folder.exists() or shards_folder(folder).exists():  # a kill can leave shards of a finished table
            placed = replace(config, raw_dir=str(Path(config.raw_dir).resolve()))  # workers have their own folder
            again = partial(_table, placed) if engine == "ray" else None
            fill = partial(
                encode,
                table,
                specs,
                group=config.group,
                weight=config.weight,
                max_memory_gb=max_memory_gb,
                limits=limits,
                source=again,
                raw_dir=Path(config.raw_dir),
            )
            with unfinished(data_dir, key, before) as work:

                def build(folder: Path) -> None:
                    with refused_if_changed(before):
                        fill(folder, work=work)

                cached(data_dir, key, build)
        check_table(folder)
        dataset = Dataset.load(folder, name=config.name, negative_rate=config.negative_rate)
        rows = dataset.facts["rows"]
        refuse_other_rows(published, rows | {"train": rows["train"] + rows["dropped"].get(THINNED, 0)})
    return dataset


def _table_as_it_is(config: DatasetConfig) -> tuple[Table, dict[str, str]]:
    """The source's table, and stamps of its files as they were before the source looked into them."""
    began, table = time.time_ns(), _table(config)
    before = stamps(table.files)
    if not settled(table.files, began):  # it may have looked into what is no more
        table = _table(config)
        refuse_changed(stamps(table.files) | before)
    return table, before


def _files_of_fields(specs: tuple[Spec, ...], raw_dir: Path) -> list[Path]:
    """UserError for one that is not there."""
    for spec in specs:
        for name in spec.files:
            if why := obstacle(raw_dir / name):
                where = f"dataset.fields.{spec.name}"
                raise UserError(f"{where}: {raw_dir / name} {why}. Its place is below dataset.raw_dir")
    return list(dict.fromkeys(raw_dir / name for spec in specs for name in spec.files))


def _table(config: DatasetConfig) -> Table:
    table: Table = build(config.source, "dataset.source", Path(config.raw_dir), kind=SOURCE)
    if config.train_fraction == 1:
        return table
    return table._replace(frame=thinned(table.frame, config.train_fraction, config.fraction_seed))


def new_table(node: Mapping[str, Any], dataset: Dataset, rows: NewRows, *, raw_dir: str | None = None) -> Table:
    """Rows to score as the source of a run's resolved `dataset` node reads them: without label and split.

    How that was, the prepared `dataset` says; `raw_dir` is where its side tables lie, if not where the node says. A
    source of somebody else's that takes no new rows is passed by: the file is a table with the columns of the fields.
    """
    key = read_key(dataset.folder)
    if key["version"] != VERSION:
        say("the run's table is of an earlier version, which spelled some values (True, nan) otherwise: train anew")
    source = key["source"]
    told = dataset.facts.get("reading", {})
    rows.keys = {**told, **rows.keys}
    if "new_rows" not in inspect.signature(locate(source, "dataset.source", SOURCE)).parameters:
        return Table(rows.scan(), (rows.path,))
    return build({**source, "new_rows": rows}, "dataset.source", Path(raw_dir or node["raw_dir"]), kind=SOURCE)


def entities(node: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """The node `dataset.entities`, without fields that are left out; a UserError names one that is not there at all."""
    where = "dataset.entities"
    given = {kind: checked(names, list, f"{where}.{kind}") for kind, names in (node or {}).items()}
    found = {kind: [as_name(name, f"{where}.{kind}") for name in names] for kind, names in given.items()}
    for kind, names in found.items():
        for name in names:
            if name not in fields:
                raise UserError(
                    f"dataset.entities.{kind}: no field '{name}'. {nearest(name, fields)}See dataset.fields"
                )
    return {kind: [name for name in names if fields[name] is not False] for kind, names in found.items()}


def _encoded(spec: Spec) -> dict[str, Any]:
    """What decides the prepared table: not the synonym, which is in no file of it, and no key that says nothing."""
    silent = {("synonym", spec.synonym), *DEFAULTS_NOT_HASHED.items()}
    return {key: value for key, value in asdict(spec).items() if (key, value) not in silent}

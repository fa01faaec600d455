"""What a user did before: one log of events, and per row a window into it.

An event is a row with label 1 (any row, where `clicked` is false) that has a user and an item with an id. A row sees
the latest `max_length` events of its user that are strictly earlier: not its own, and no other one of the same instant,
because nobody knew how that would end when the row was shown. So two items of one page are in no history of each other.
A click counts as known from the next instant on. A source may add rows that are no samples, only events (EVENTS in
the place of their split), such as a log of what users did elsewhere: rows of all splits see these.

A row sees events of its own split and of those before it: a row of train only those of train, a row of test all. Where
splits follow each other in time, that is what a server would know. Where they do not, the labels of test would else be
part of what the weights are fitted to: not in the test rows, but as the past of later train rows.

On disk: events.npy, the ids by user and time, once for all rows; per row where its window starts and ends (8 bytes);
for new rows event_times.npy and users.parquet. Where an event of a later split is earlier than a row of an earlier one,
its user has a second log, for the rows of that split: few under a split by time, all under a random one.
Memory while preparing: about 100 bytes per event and 60 per user.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import polars as pl

from fieldctr.data.budget import Budget
from fieldctr.data.coverage import Coverage
from fieldctr.data.encoders.encoder import Columns, FittedTexts, Learned, Loading, Training
from fieldctr.data.encoders.texts import numbered
from fieldctr.data.fields.kinds import HistorySpec, Spec, history_specs
from fieldctr.data.lookups import EVENTS_FILE
from fieldctr.data.npy import save_alone
from fieldctr.data.shards import Block
from fieldctr.data.shards.dictionary import ids_of_texts
from fieldctr.data.shards.ragged import values_of
from fieldctr.data.table import EVENTS, SPLITS
from fieldctr.errors import UserError
from fieldctr.schema import Field

TIMES_FILE = "event_times.npy"
USERS_FILE = "users.parquet"
EVENT_BYTES, USER_BYTES = 100, 60  # while preparing, as measured
NOBODY = 0  # the number of a row without a user; users are numbered from 1


class Log(NamedTuple):
    """Events of one history in the order of user and time."""

    users: np.ndarray  # (events,) int64
    times: np.ndarray  # (events,) float64
    ids: np.ndarray  # (events,) int32
    instants: np.ndarray  # distinct times, ascending
    keys: np.ndarray  # (events,) int64, ascending: one number for user and time
    starts: np.ndarray  # (users,) the first event of each

    @classmethod
    def of(cls, users: np.ndarray, times: np.ndarray, ids: np.ndarray, num_users: int) -> Self:
        """Events in any order; those of one instant stay in theirs."""
        instants, ranks = np.unique(times, return_inverse=True)
        keys = users * (len(instants) + 1) + ranks
        order = np.argsort(keys, kind="stable")
        count = np.bincount(users, minlength=num_users)
        return cls(users[order], times[order], ids[order], instants, keys[order], np.cumsum(count) - count)

    def windows(self, users: np.ndarray, times: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the latest `length` events of users (n,) before times (n,) start and end: twice (n,)."""
        end = _search(self.keys, users * (len(self.instants) + 1) + _search(self.instants, times))
        return np.maximum(self.starts[users], end - length), end


def _search(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(n,) how many of the ascending `values` are less than each of those wanted (n,)."""
    order, smaller = np.argsort(wanted), np.empty(len(wanted), np.int64)
    smaller[order] = np.searchsorted(values, wanted[order])  # in order, 3x faster in a table that no cache holds
    return smaller


class Users(NamedTuple):
    """Whose history a row has, and from when."""

    spec: HistorySpec
    column: str  # of the codes
    numbers: list[np.ndarray]  # per shard (codes,) the user of each code
    names: pl.DataFrame  # value, and id from 1

    def rows(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """User numbers (n,) and times (n,); UserError for a row without a time."""
        time = block.times[self.spec.time, self.spec.unit]
        if np.isnan(time).any():
            raise UserError(
                f"field '{self.spec.name}': column '{self.spec.time}' is blank in a row, which is then neither earlier "
                "nor later than another. Leave such rows out."
            )
        return self.numbers[block.shard][values_of(block.codes[self.column])], time


class EventCollector:
    """Events while rows stream by."""

    def __init__(self, users: int) -> None:
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.last = np.full((len(SPLITS), users), -np.inf)  # when each user was last shown a row
        self.num_events, self.num_unseen = np.zeros((2, len(SPLITS)), np.int64)  # events, and those without an id

    def show(self, split: int, users: np.ndarray, times: np.ndarray) -> None:
        """Rows (n,) of a split, which will ask for their history."""
        np.maximum.at(self.last[split], users, times)

    def add(self, split: int, users: np.ndarray, times: np.ndarray, ids: np.ndarray, happened: np.ndarray) -> None:
        """Rows (n,), seen from a split on; those that `happened` are events."""
        event = happened & (users != NOBODY)
        self.num_events[split] += event.sum()
        self.num_unseen[split] += (event & (ids == 0)).sum()
        rows = np.flatnonzero(event & (ids > 0))
        splits = np.full(len(rows), split, np.int8)
        self.parts.append((users[rows].astype(np.int64), times[rows], ids[rows].astype(np.int32), splits))

    def log(self) -> tuple[Log, np.ndarray]:
        """All events, and (3, users) under which number the rows of a split find those that they may see.

        That is another number where an event of a later split is earlier than one of their rows.
        """
        users, times, ids, splits = map(np.concatenate, zip(*self.parts, strict=True))
        num_users, logs = self.last.shape[1], [(users, times, ids)]
        numbers = np.tile(np.arange(num_users), (len(SPLITS), 1))
        for split, last in enumerate(self.last[:-1]):
            hidden = splits > split
            second_log = np.zeros(num_users, bool)
            second_log[users[hidden & (times < last[users])]] = True
            numbers[split, second_log] += num_users * (1 + split)
            visible = second_log[users] & ~hidden
            logs.append((numbers[split][users[visible]], times[visible], ids[visible]))
        users, times, ids = map(np.concatenate, zip(*logs, strict=True))
        return Log.of(users, times, ids, num_users=numbers.max() + 1), numbers


class History(NamedTuple):
    """One history of a table, and how the rows of each split look it up."""

    users: Users
    log: Log
    numbers: np.ndarray  # (splits, users) of the log; the last split sees all events
    first: int  # position of its log among the events of all histories

    def windows(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends (n,) of the rows of a block."""
        users, time = self.users.rows(block)
        split = SPLITS.index(block.split) if block.split else -1  # new rows are behind all others
        start, end = self.log.windows(self.numbers[split][users], time, self.users.spec.max_length)
        return self.first + start, self.first + end


@dataclass(frozen=True)
class Histories:
    """The fields of kind history."""

    histories: list[History]
    fields: dict[str, Learned]
    coverages: dict[str, dict[str, Coverage]]  # by field and split; of rows, what `apply` was given

    @classmethod
    def fit(cls, specs: tuple[Spec, ...], training: Training) -> "Histories":
        """Events and users, from the codes, times and labels of pass one."""
        users = [_users(spec, specs, training) for spec in history_specs(specs)]
        histories: list[History] = []
        coverages = {}
        for users_of_field, events in zip(users, _collect(users, training), strict=True):
            histories.append(_history(users_of_field, events, training.budget, _end(histories)))
            counts = zip(SPLITS, events.num_events.tolist(), events.num_unseen.tolist(), strict=True)
            by_split = {split: Coverage(0, 0, values, unseen) for split, values, unseen in counts}
            coverages[users_of_field.spec.name] = by_split
        return cls(histories, {own.spec.name: _learned(own.spec, training.texts) for own in users}, coverages)

    @classmethod
    def load(cls, specs: tuple[Spec, ...], loading: Loading) -> "Histories":
        """The events of all prepared rows, which new rows see."""
        own, histories = history_specs(specs), []
        if not own:
            return cls([], {}, {})
        for spec in own:
            log, table = _load_log(loading.folder, spec)
            column, start = spec.user(specs).name, int(table["start"][0])
            users = Users(spec, column, [ids_of_texts(loading.rows.texts[column], table)], table.select("value", "id"))
            histories.append(History(users, log, np.arange(len(log.starts))[None], start))
        fields = {spec.name: _learned(spec, loading.texts) for spec in own}
        return cls(histories, fields, {spec.name: {"": Coverage(0, 0, 0, 0)} for spec in own})

    def apply(self, block: Block) -> dict[str, Columns]:
        columns = {}
        longest = max((history.users.spec.max_length for history in self.histories), default=0)
        kind = np.int32 if _end(self.histories) + longest < 2**31 else np.int64  # as far as `event_positions` looks
        for history in self.histories:
            start, end = history.windows(block)
            self._note(history.users.spec.name, block.split, start == end)
            columns[history.users.spec.name] = Columns(windows=(start.astype(kind), end.astype(kind)))
        return columns

    def _note(self, name: str, split: str, empty: np.ndarray) -> None:
        before = self.coverages[name][split]
        rows, missing = before.rows + len(empty), before.missing + int(empty.sum())
        values = before.values if split else rows - missing  # how many events new rows see is not counted
        self.coverages[name][split] = Coverage(rows, missing, values, before.unseen)

    def learned(self) -> dict[str, Learned]:
        return self.fields

    def coverage(self) -> dict[str, list[Coverage]]:
        return {name: list(by_split.values()) for name, by_split in self.coverages.items()}

    def save(self, folder: Path) -> None:
        """Events, times, and per history the users that have events: where these start and how many they are."""
        if not self.histories:
            return
        logs = [history.log for history in self.histories]
        save_alone(folder / EVENTS_FILE, np.concatenate([np.zeros(1, np.int32), *(log.ids for log in logs)]))
        save_alone(folder / TIMES_FILE, np.concatenate([np.zeros(1), *(log.times for log in logs)]))
        tables = []
        for history in self.histories:
            numbers, start, count = np.unique(history.log.users, return_index=True, return_counts=True)
            positions = pl.DataFrame({"id": numbers, "start": history.first + start, "count": count})
            # The second logs drop out: their numbers are nobody's.
            named = history.users.names.join(positions, on="id").sort("id")
            tables.append(named.select(pl.lit(history.users.spec.name).alias("field"), pl.all()))
        pl.concat(tables).write_parquet(folder / USERS_FILE)


def _load_log(folder: Path, spec: HistorySpec) -> tuple[Log, pl.DataFrame]:
    """The events of all prepared rows, and the users that have some: value, id, start among all events, count."""
    events, times = (np.load(folder / name, mmap_mode="c") for name in (EVENTS_FILE, TIMES_FILE))
    table = pl.read_parquet(folder / USERS_FILE).partition_by("field", as_dict=True)[spec.name,]
    numbers, start, count = (table[name].to_numpy() for name in ("id", "start", "count"))  # in this order
    stored = slice(start[0], start[-1] + count[-1])
    return Log.of(np.repeat(numbers, count), times[stored], events[stored], numbers[-1] + 1), table


class Past(NamedTuple):
    """The events of one history for who looks them up by a user's text."""

    users: list[str]  # who has events, by the number from 1 that their keys are made of
    ids: np.ndarray  # (events,)
    keys: np.ndarray  # (events,) float64, ascending: (instants + 1) * user + the place of its time among the instants
    instants: np.ndarray  # distinct times, ascending


def load_events(folder: Path, specs: Sequence[HistorySpec]) -> dict[str, Past]:
    """By history the events of all prepared rows, which new rows see."""
    found = {}
    for spec in specs:
        log, table = _load_log(folder, spec)
        _, users = np.unique(log.users, return_inverse=True)
        ranks = np.searchsorted(log.instants, log.times)
        keys = (users + 1.0) * (len(log.instants) + 1) + ranks
        found[spec.name] = Past(table["value"].to_list(), log.ids, keys, log.instants)
    return found


def _users(spec: HistorySpec, specs: Sequence[Spec], training: Training) -> Users:
    column = spec.user(specs).name
    texts, numbers = numbered(training.shards, column, training.budget)
    return Users(spec, column, numbers, pl.DataFrame({"value": texts, "id": np.arange(1, len(texts) + 1)}))


def _collect(users: Sequence[Users], training: Training) -> list[EventCollector]:
    """The events of each history. What is no sample is an event for the rows of all splits."""
    collectors = [EventCollector(len(own.names) + 1) for own in users]
    for split in (EVENTS, *SPLITS) if users else ():
        for block in training.shards.blocks(split):
            for own, collector in zip(users, collectors, strict=True):
                (numbers, times), item = own.rows(block), own.spec.of
                ids = training.texts[item].ids[block.shard][values_of(block.codes[item])]
                everything = np.ones(len(ids), bool)
                if split == EVENTS:
                    collector.add(0, numbers, times, ids, everything)
                else:
                    s = SPLITS.index(split)
                    collector.show(s, numbers, times)
                    collector.add(s, numbers, times, ids, block.label > 0 if own.spec.clicked else everything)
    return collectors


def _history(users: Users, events: EventCollector, budget: Budget, first: int) -> History:
    """UserError where it takes more memory than there is, or nothing happened."""
    name, count, people = users.spec.name, int(events.num_events.sum()), events.last.shape[1]
    what = f"field '{name}': {count:,} events of {people - 1:,} users"
    budget.refuse(what, "Leave the field out", EVENT_BYTES * count + USER_BYTES * people)
    log, numbers = events.log()
    if not len(log.ids):
        raise UserError(f"field '{name}': no event: no such row has both '{users.spec.by}' and an item")
    return History(users, log, numbers, first)


def _end(histories: Sequence[History]) -> int:
    """The position behind the events of some histories; 0 is padding."""
    return histories[-1].first + len(histories[-1].log.ids) if histories else 1


def _learned(spec: HistorySpec, texts: dict[str, FittedTexts]) -> Learned:
    """A history has the vocabulary of the field that it is of."""
    vocabulary = texts[spec.of].vocabulary
    size = len(vocabulary) if vocabulary is not None else spec.num_buckets or 0
    return Learned(Field(spec.name, size + 1, spec.width, text=spec.text, shares=spec.shares), vocabulary)

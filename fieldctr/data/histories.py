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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import polars as pl

from fieldctr.data.blocks import blocks
from fieldctr.data.budget import Budget
from fieldctr.data.lexicon import lookup
from fieldctr.data.npy import NpyWriter, save_alone
from fieldctr.data.past import EVENTS_FILE, Past
from fieldctr.data.ragged import Codes, values_of
from fieldctr.data.reader import Reader
from fieldctr.data.shards import Shards
from fieldctr.data.specs import HistorySpec, Spec
from fieldctr.data.statistics import Seen
from fieldctr.data.table import EVENTS, SPLITS
from fieldctr.data.vocabularies import numbered
from fieldctr.errors import UserError

TIMES_FILE = "event_times.npy"
USERS_FILE = "users.parquet"
EVENT, USER = 100, 60  # bytes while preparing, as measured
NOBODY = 0  # the number of a row without a user; users are numbered from 1


class Log(NamedTuple):
    """Events of one history in the order of user and time."""

    users: np.ndarray  # (E,) int64
    times: np.ndarray  # (E,) float64
    ids: np.ndarray  # (E,) int32
    instants: np.ndarray  # distinct times, ascending
    keys: np.ndarray  # (E,) int64, ascending: one number for user and time
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
    order, found = np.argsort(wanted), np.empty(len(wanted), np.int64)
    found[order] = np.searchsorted(values, wanted[order])  # in order, 3x faster in a table that no cache holds
    return found


class Users(NamedTuple):
    """Whose history a row has, and from when."""

    spec: HistorySpec
    line: int  # of the codes
    numbers: list[np.ndarray]  # per shard (codes,) the user of each code
    time: int  # line of the times

    @classmethod
    def of(cls, spec: HistorySpec, numbers: list[np.ndarray], specs: Sequence[Spec], reader: Reader) -> Self:
        """For the codes of `reader`."""
        line = reader.specs.index(spec.user(specs))
        return cls(spec, line, numbers, reader.times.index((spec.time, spec.unit)))

    def rows(self, codes: Sequence[Codes], times: np.ndarray, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """User numbers (n,) and times (n,); UserError for a row without a time."""
        time = times[self.time]
        if np.isnan(time).any():
            raise UserError(
                f"field '{self.spec.name}': column '{self.spec.time}' is blank in a row, which is then neither earlier "
                "nor later than another. Leave such rows out."
            )
        return self.numbers[shard][values_of(codes[self.line])], time


class Gathering:
    """Events while rows stream by."""

    def __init__(self, users: int) -> None:
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.last = np.full((len(SPLITS), users), -np.inf)  # when each user was last shown a row
        self.seen, self.unknown = np.zeros((2, len(SPLITS)), np.int64)  # events, and those without an id

    def show(self, split: int, users: np.ndarray, times: np.ndarray) -> None:
        """Rows (n,) of a split, which will ask for their history."""
        np.maximum.at(self.last[split], users, times)

    def add(self, split: int, users: np.ndarray, times: np.ndarray, ids: np.ndarray, happened: np.ndarray) -> None:
        """Rows (n,), seen from a split on; those that `happened` are events."""
        event = happened & (users != NOBODY)
        self.seen[split] += event.sum()
        self.unknown[split] += (event & (ids == 0)).sum()
        event &= ids > 0
        parts = (users[event].astype(np.int64), times[event], ids[event].astype(np.int32))
        self.parts.append((*parts, np.full(len(parts[0]), split, np.int8)))

    def log(self) -> tuple[Log, np.ndarray]:
        """All events, and (3, users) under which number the rows of a split find those that they may see.

        That is another number where an event of a later split is earlier than one of their rows.
        """
        users, times, ids, splits = map(np.concatenate, zip(*self.parts, strict=True))
        everyone, parts = np.arange(self.last.shape[1]), [(users, times, ids)]
        numbers = np.tile(everyone, (len(SPLITS), 1))
        for split, last in enumerate(self.last[:-1]):
            hidden = splits > split
            again = np.zeros(len(everyone), bool)
            again[users[hidden & (times < last[users])]] = True
            numbers[split] += again * len(everyone) * (1 + split)
            own = again[users] & ~hidden
            parts.append((numbers[split][users[own]], times[own], ids[own]))
        return Log.of(*map(np.concatenate, zip(*parts, strict=True)), num_users=numbers.max() + 1), numbers


class History(NamedTuple):
    """One history of a table, and how the rows of each split look it up."""

    users: Users
    log: Log
    numbers: np.ndarray  # (splits, users) of the log; the last split sees all events
    first: int  # position of its log among the events of all histories

    def windows(
        self, split: int, codes: Sequence[Codes], times: np.ndarray, shard: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends (n,) of rows of a split."""
        users, time = self.users.rows(codes, times, shard)
        start, end = self.log.windows(self.numbers[split][users], time, self.users.spec.max_length)
        return self.first + start, self.first + end


def times(specs: tuple[Spec, ...]) -> tuple[tuple[str, str], ...]:
    """The columns, with units, by which histories order the rows."""
    return tuple(dict.fromkeys((spec.time, spec.unit) for spec in _own(specs)))


def write(
    specs: Sequence[Spec], shards: Shards, items: Mapping[str, list[np.ndarray]], budget: Budget, folder: Path
) -> Seen:
    """Events, windows and users, from the codes, times and labels of pass one.

    `items` has by field and shard the id (codes,) of every code.
    """
    own, reader = _own(specs), shards.reader
    if not own:
        return Seen(*np.zeros((2, 0, len(SPLITS))))
    everyone, users = [], []
    for spec in own:
        texts, numbers = numbered(shards, spec.user(specs), budget)
        everyone.append(pl.DataFrame({"value": texts, "id": np.arange(1, len(texts) + 1)}))
        users.append(Users.of(spec, numbers, specs, reader))
    lines = [[field.name for field in reader.specs].index(spec.of) for spec in own]
    gathered = [Gathering(len(known) + 1) for known in everyone]
    for s, split in ((0, EVENTS), *enumerate(SPLITS)):
        for block in blocks(shards, split):
            for each, line, events in zip(users, lines, gathered, strict=True):
                rows = each.rows(block.codes, block.times, block.shard)
                ids = items[each.spec.of][block.shard][values_of(block.codes[line])]
                if split != EVENTS:
                    events.show(s, *rows)
                some = each.spec.clicked and split != EVENTS
                events.add(s, *rows, ids, block.label > 0 if some else np.ones(len(ids), bool))
    found, first = [], 1
    for each, events in zip(users, gathered, strict=True):
        count, people = int(events.seen.sum()), events.last.shape[1]
        what = f"field '{each.spec.name}': {count:,} events of {people - 1:,} users"
        budget.refuse(what, "Leave the field out", EVENT * count + USER * people)
        log, numbers = events.log()
        if not len(log.ids):
            raise UserError(f"field '{each.spec.name}': no event: no such row has both '{each.spec.by}' and an item")
        found.append(History(each, log, numbers, first))
        first += len(log.ids)
    _save(found, everyone, folder)
    empty = np.array([_write_windows(found, shards, folder, s) for s in range(len(SPLITS))])
    return Seen(empty.T, np.array([events.unknown / np.maximum(events.seen, 1) for events in gathered]))


def new_windows(
    specs: tuple[Spec, ...],
    reader: Reader,
    texts: Sequence[pl.Series],
    codes: Sequence[Codes],
    times: np.ndarray,
    *,
    folder: Path,
) -> tuple[np.ndarray | None, Past | None]:
    """Windows (n, 2H) of rows that are of no split, by their codes and times, into the events of all prepared rows.

    `texts` say what the codes of each spec with texts are.
    """
    own, found = _own(specs), []
    if not own:
        return None, None
    events, moments = (np.load(folder / name, mmap_mode="c") for name in (EVENTS_FILE, TIMES_FILE))
    known = pl.read_parquet(folder / USERS_FILE).partition_by("field", as_dict=True)
    for spec in own:
        table = known[spec.name,]
        numbers, start, count = (table[name].to_numpy() for name in ("id", "start", "count"))  # in this order
        told = slice(start[0], start[-1] + count[-1])
        log = Log.of(np.repeat(numbers, count), moments[told], events[told], numbers[-1] + 1)
        everyone = np.arange(numbers[-1] + 1)[None]
        said = texts[reader.places[spec.user(specs)]]
        found.append(History(Users.of(spec, [lookup(said, table)], specs, reader), log, everyone, start[0]))
    return _windows(found, -1, codes, times, 0), Past(events, tuple(spec.max_length for spec in own))


def _own(specs: Sequence[Spec]) -> list[HistorySpec]:
    return [spec for spec in specs if isinstance(spec, HistorySpec)]


def _save(histories: Sequence[History], everyone: Sequence[pl.DataFrame], folder: Path) -> None:
    """Events, times, and per history the users that have events: where these start and how many they are."""
    logs = [history.log for history in histories]
    save_alone(folder / EVENTS_FILE, np.concatenate([np.zeros(1, np.int32), *(log.ids for log in logs)]))
    save_alone(folder / TIMES_FILE, np.concatenate([np.zeros(1), *(log.times for log in logs)]))
    tables = []
    for history, known in zip(histories, everyone, strict=True):
        numbers, start, count = np.unique(history.log.users, return_index=True, return_counts=True)
        where = pl.DataFrame({"id": numbers, "start": history.first + start, "count": count})
        named = known.join(where, on="id").sort("id")  # not the second logs, whose numbers are nobody's
        tables.append(named.select(pl.lit(history.users.spec.name).alias("field"), pl.all()))
    pl.concat(tables).write_parquet(folder / USERS_FILE)


def _write_windows(histories: Sequence[History], shards: Shards, folder: Path, split: int) -> np.ndarray:
    """Windows of a split's rows; gives per history the share of rows that have no event."""
    rows, empty, count = 0, np.zeros(len(histories), np.int64), len(histories)
    longest = max(history.users.spec.max_length for history in histories)
    total = histories[-1].first + len(histories[-1].log.ids) + longest  # as far as `places` looks
    kind = np.int32 if total < 2**31 else np.int64
    with NpyWriter(folder / f"{SPLITS[split]}.windows.npy", dtype=kind, columns=2 * count) as file:
        for block in blocks(shards, SPLITS[split]):
            windows = _windows(histories, split, block.codes, block.times, block.shard)
            file.append(windows)
            rows, empty = rows + len(windows), empty + (windows[:, :count] == windows[:, count:]).sum(0)
    return empty / rows


def _windows(
    histories: Sequence[History], split: int, codes: Sequence[Codes], times: np.ndarray, shard: int
) -> np.ndarray:
    """(n, 2H): all starts, then all ends."""
    starts, ends = zip(*(history.windows(split, codes, times, shard) for history in histories), strict=True)
    return np.stack([*starts, *ends], axis=1)

"""The Parquet files of a table's version, as the stages read them.

A file of the lake never changes, so what was read of it is kept: the readings of the open minutes and the hour of
minutes that flags look at are read by every tick, and only what the last tick wrote is new.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import unquote

import numpy as np
import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from numpy.typing import NDArray

from contracts.schemas import Table
from contracts.times import MINUTE_US, from_us, to_us
from pipelines.blocks import block
from pipelines.kernels.frames import empty
from pipelines.sparse import needed, whole

KEPT_BYTES = 256 * 1024 * 1024
LAST_POST = "\U0010ffff"
VIEWED_FILES = 8  # of a block, from which on its rows are kept together
VIEW_CHUNKS = 16  # of a view, at most: a slice holds the memory of its whole file, and some files are a day long
KEPT_ROWS = 200_000  # of a file; larger ones are compacted hours, of which few rows are asked for

_lock = Lock()
_listed: dict[Path, "_Listing"] = {}

K = TypeVar("K")
V = TypeVar("V", "_Kept", "_View")


class File(NamedTuple):
    """A file's name in its table, its least and greatest time (microseconds since 1970), its number of rows and bytes,
    and its first and last post; LAST_POST where it tells none."""

    name: str
    low_us: int
    high_us: int
    rows: int
    size: int
    first_post: str = ""
    last_post: str = LAST_POST


def entry(log: Path, version: int) -> Path:
    """A version's entry in a table's log."""
    return log / f"{version:020d}.json"


class Pinned(NamedTuple):
    """A version of a table, and where its files lie."""

    folder: Path
    version: int


class _Listing(NamedTuple):
    """The files of a version, and the first and last block of each."""

    version: int
    files: list[File]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


class _Kept(NamedTuple):
    """Rows of a file in the order of their blocks; the blocks, and where each begins and the last ends. Rows of a block
    are a slice: to filter a file of a tick takes longer than all else that is done with it."""

    rows: pl.DataFrame
    blocks: NDArray[np.int64]
    edges: NDArray[np.int64]
    size: int

    def among(self, wanted: NDArray[np.int64]) -> list[pl.DataFrame]:
        """Rows of blocks, as slices; none is empty."""
        turns = np.flatnonzero(np.diff(np.isin(self.blocks, wanted), prepend=False, append=False))
        begins, ends = self.edges[turns[::2]].tolist(), self.edges[turns[1::2]].tolist()
        return [self.rows.slice(begin, end - begin) for begin, end in zip(begins, ends, strict=True)]

    def outside(self, wanted: NDArray[np.int64]) -> pl.DataFrame:
        """Rows of all blocks but these."""
        is_out = np.isin(self.blocks, wanted, invert=True)
        return self.rows.filter(np.repeat(is_out, np.diff(self.edges)))


class _View(NamedTuple):
    """Rows of a block that lies in many files, and these as far as their bounds tell. The next version mostly has one
    more; to put the same hundred slices together again in each tick took a fifth of it."""

    names: list[str]
    rows: pl.DataFrame
    size: int


class _Memory(Generic[K, V]):
    """What was used last, of at most a share of KEPT_BYTES."""

    def __init__(self, share: float):
        self._share, self._bytes = share, 0
        self._found: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        with _lock:
            return self._found.get(key)

    def keep(self, key: K, value: V) -> None:
        with _lock:
            before = self._found.pop(key, None)
            self._found[key] = value
            self._bytes += value.size - (before.size if before is not None else 0)
            while self._bytes > self._share * KEPT_BYTES:
                self._bytes -= self._found.popitem(last=False)[1].size

    def clear(self) -> None:
        with _lock:
            self._found.clear()
            self._bytes = 0


_kept: _Memory[str, _Kept] = _Memory(1.0)
_views: _Memory[tuple[Path, int], _View] = _Memory(0.5)  # mostly of the same bytes


def listed(pinned: Pinned, table: Table) -> list[File]:
    """The files of a version, from the table's log alone.

    What is known of an earlier version is brought forward by the log entries since: asking Delta for all files takes
    longer with each file, and a tick asks for most tables anew.
    """
    return _listing(pinned, table).files


def _listing(pinned: Pinned, table: Table) -> _Listing:
    known = _listed.get(pinned.folder)
    if known is not None and known.version == pinned.version:
        return known
    is_older = known is not None and known.version < pinned.version
    found = _forward(pinned, table, known.version, known.files) if known is not None and is_older else None
    if found is None:
        found = _asked(pinned, table)
    first, last = (
        np.fromiter((edge // MINUTE_US for edge in edges), dtype=np.int64, count=len(found))
        for edges in ((file.low_us for file in found), (file.high_us for file in found))
    )
    _listed[pinned.folder] = _Listing(pinned.version, found, first, last)
    return _listed[pinned.folder]


def _touched(pinned: Pinned, table: Table, blocks: Iterable[int]) -> list[tuple[File, NDArray[np.int64], bool]]:
    """Each file that by its bounds may have rows of some blocks, these in their order, and whether it can have none of
    others."""
    wanted = np.unique(np.fromiter(blocks, dtype=np.int64))
    listing = _listing(pinned, table)
    begins, ends = np.searchsorted(wanted, listing.first), np.searchsorted(wanted, listing.last, side="right")
    is_all = (ends - begins) == listing.last - listing.first + 1
    return [
        (listing.files[at], wanted[begins[at] : ends[at]], bool(is_all[at]))
        for at in np.flatnonzero(ends > begins).tolist()
    ]


def has_large(pinned: Pinned, table: Table, blocks: Iterable[int]) -> bool:
    """Whether any of the blocks may have rows in a large file."""
    return any(file.rows > KEPT_ROWS for file, _, _ in _touched(pinned, table, blocks))


def _asked(pinned: Pinned, table: Table) -> list[File]:
    handle = DeltaTable(str(pinned.folder), version=pinned.version)
    actions = pa.table(handle.get_add_actions(flatten=True))
    bounds = [f"min.{table.time}", f"max.{table.time}"]
    if not set(bounds) <= set(actions.column_names):
        return []
    times = [actions[name].cast(pa.timestamp("us")).cast(pa.int64()).to_pylist() for name in bounds]
    own = [*times, *(actions[name].to_pylist() for name in ("num_records", "size_bytes"))]
    posts = [
        actions[name].to_pylist() if "post_id" in table.key else [None] * actions.num_rows
        for name in ("min.post_id", "max.post_id")
    ]
    rows = zip(actions["path"].to_pylist(), *own, *posts, strict=True)
    return [
        File(name, low, high, count, size, first or "", last or LAST_POST)
        for name, low, high, count, size, first, last in rows
        if low is not None
    ]


def names_of(folder: Path, version: int) -> list[str]:
    """Names of the files of a table's version. (Delta's addresses of them have %20 for a space of the folder's.)"""
    return pa.table(DeltaTable(str(folder), version=version).get_add_actions())["path"].to_pylist()  # type: ignore[no-any-return]


def _forward(pinned: Pinned, table: Table, version: int, known: list[File]) -> list[File] | None:
    """The files after the log entries since a version; None when one of them is gone or says too little."""
    log = pinned.folder / "_delta_log"
    found = {file.name: file for file in known}
    try:
        for later in range(version + 1, pinned.version + 1):
            for line in entry(log, later).read_bytes().splitlines():
                action = json.loads(line)
                if "remove" in action:
                    found.pop(unquote(action["remove"]["path"]), None)
                elif "add" in action:
                    file = _added(action["add"], table)
                    found[file.name] = file
    except (FileNotFoundError, KeyError, ValueError, TypeError):
        return None
    return list(found.values())


def _added(add: dict[str, Any], table: Table) -> File:
    stats = json.loads(add["stats"])
    low, high = (to_us(datetime.fromisoformat(stats[name][table.time])) for name in ("minValues", "maxValues"))
    file = File(unquote(add["path"]), low, high, stats["numRecords"], add["size"])
    if "post_id" not in table.key:
        return file
    return file._replace(first_post=stats["minValues"]["post_id"], last_post=stats["maxValues"]["post_id"])


def without(pinned: Pinned, table: Table, blocks: Iterable[int]) -> tuple[list[pl.DataFrame], dict[str, int]]:
    """What stays of the files that hold rows of blocks when these go, a frame for each that is not empty, and the bytes
    of all these files by name."""
    left, names = [], {}
    for file, wanted, is_all in _touched(pinned, table, blocks):
        if not is_all:
            kept = _of_file(f"{pinned.folder}/{file.name}", table, table.schema.names)
            stays = kept.outside(wanted)
            if stays.height == kept.rows.height:
                continue
            left += [_columns(stays, table.schema.names)] if stays.height else []
        names[file.name] = file.size
    return left, names


def keep(pinned: Pinned, table: Table, name: str, rows: pl.DataFrame) -> None:
    """Keep the rows of a file that this process has just written, if it is not large."""
    if rows.height <= KEPT_ROWS:
        _kept.keep(f"{pinned.folder}/{name}", _kept_of(_columns(rows, table.schema.names), table))


def forget() -> None:
    """List anew: versions were taken back, and others will have their numbers."""
    _listed.clear()


def read(pinned: Pinned, table: Table, blocks: Iterable[int], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Rows of the given blocks (minutes since 1970) in a version; some columns only, when named."""
    names = list(columns or table.schema.names)
    parts = [_columns(empty(table), names)]
    small: list[tuple[File, NDArray[np.int64]]] = []
    for file, wanted, is_all in _touched(pinned, table, blocks):
        place = f"{pinned.folder}/{file.name}"
        if file.rows <= KEPT_ROWS:
            small.append((file, wanted))
        elif is_all:
            parts.append(_file(place, table, names))
        else:
            low, high = (from_us(int(at) * MINUTE_US) for at in (wanted[0], wanted[-1] + 1))
            # a span, so that statistics of row groups tell which to leave out
            scan = pl.scan_parquet(place, hive_partitioning=False).filter(
                pl.col(table.time).is_between(low, high, "left") & block(table).is_in(wanted.tolist())
            )
            parts.append(_columns(whole(scan.select(needed(names, table)).collect(), table), names))
    by_block: dict[int, list[str]] = {}
    for file, wanted in small:
        for number in wanted.tolist():
            by_block.setdefault(number, []).append(file.name)
    views = {
        number: _view(pinned.folder, table, names, number, held)
        for number, held in by_block.items()
        if len(held) >= VIEWED_FILES
    }
    missing = {number: set(by_block[number][len(view.names) :]) for number, view in views.items()}
    more: dict[int, list[pl.DataFrame]] = {number: [] for number in views}
    # file by file, not block by block: of hundreds of files across a day, all are more than is kept
    for file, wanted in small:
        numbers = [number for number in wanted.tolist() if number not in views or file.name in missing[number]]
        if not numbers:
            continue
        known = [views[number].rows.columns for number in numbers if number in views]
        kept = _of_file(f"{pinned.folder}/{file.name}", table, list(dict.fromkeys(chain(names, *known))))
        for number in numbers:
            if number in views:
                more[number] += kept.among(np.array([number]))
        others = np.array([number for number in numbers if number not in views], dtype=np.int64)
        parts += [_columns(part, names) for part in kept.among(others)]
    for number, view in views.items():
        grown = _grown(view, by_block[number], more[number]) if missing[number] else view
        _views.keep((pinned.folder, number), grown)
        parts.append(_columns(grown.rows, names))
    return pl.concat(parts)


def _view(folder: Path, table: Table, names: list[str], number: int, files: list[str]) -> _View:
    """What is known of columns, and perhaps more, of a block's rows in the first of some files."""
    view = _views.get((folder, number))
    if view is not None and view.names == files[: len(view.names)] and set(names) <= set(view.rows.columns):
        return view
    known = view.rows.columns if view is not None else []
    return _View([], _columns(empty(table), list(dict.fromkeys([*known, *names]))), 0)


def _grown(view: _View, files: list[str], parts: list[pl.DataFrame]) -> _View:
    rows = pl.concat([view.rows, *(_columns(part, view.rows.columns) for part in parts)])
    if rows.n_chunks() > VIEW_CHUNKS:
        rows = rows.rechunk()
    return _View(files, rows, view.size + sum(int(part.estimated_size()) for part in parts))


def _of_file(place: str, table: Table, names: list[str]) -> _Kept:
    """Columns of a file that is not large, and perhaps more."""
    kept = _kept.get(place)
    if kept is None or not set(names) <= set(kept.rows.columns):
        known = kept.rows.columns if kept is not None else [table.time]
        kept = _kept_of(_file(place, table, list(dict.fromkeys([*known, *names]))), table)
    _kept.keep(place, kept)
    return kept


def _kept_of(rows: pl.DataFrame, table: Table) -> _Kept:
    numbers = rows.get_column(table.time).dt.epoch("us").to_numpy() // MINUTE_US
    if (np.diff(numbers) < 0).any():
        order = np.argsort(numbers, kind="stable")
        rows, numbers = rows[order], numbers[order]
    begins = np.flatnonzero(np.diff(numbers, prepend=-1))
    return _Kept(rows, numbers[begins], np.append(begins, rows.height), int(rows.estimated_size()))


def _file(place: str, table: Table, names: list[str]) -> pl.DataFrame:
    stored = pl.read_parquet(place, columns=needed(names, table), hive_partitioning=False)
    return _columns(whole(stored, table), names)


def _columns(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """`select` without a query, which takes longer than all else for a file of a few hundred rows."""
    return pl.DataFrame([frame.get_column(name) for name in names])

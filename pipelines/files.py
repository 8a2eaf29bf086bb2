"""The Parquet files of a table's version, as the stages read them.

A file of the lake never changes, so what was read of it is kept: the readings of the open minutes and the hour of
minutes that flags look at are read by every tick, and only what the last tick wrote is new.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
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
KEPT_ROWS = 200_000  # of a file; larger ones are compacted hours, of which few rows are asked for

_frames: OrderedDict[str, pl.DataFrame] = OrderedDict()
_lock = Lock()
_sizes: dict[str, int] = {}
_listed: dict[Path, tuple[int, list["File"]]] = {}


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


def listed(pinned: Pinned, table: Table) -> list[File]:
    """The files of a version, from the table's log alone.

    What is known of an earlier version is brought forward by the log entries since: asking Delta for all files takes
    longer with each file, and a tick asks for most tables anew.
    """
    known = _listed.get(pinned.folder)
    if known is not None and known[0] == pinned.version:
        return known[1]
    found = None if known is None or known[0] > pinned.version else _forward(pinned, table, *known)
    if found is None:
        found = _asked(pinned, table)
    _listed[pinned.folder] = pinned.version, found
    return found


def has_large(pinned: Pinned, table: Table, blocks: Iterable[int]) -> bool:
    """Whether any of the blocks may have rows in a large file."""
    wanted = np.unique(np.fromiter(blocks, dtype=np.int64))
    return any(_count(file, wanted) for file in listed(pinned, table) if file.rows > KEPT_ROWS)


def _count(file: File, wanted: NDArray[np.int64]) -> int:
    """How many of the blocks, which are sorted, lie within a file's bounds."""
    begin, end = np.searchsorted(wanted, [file.low_us // MINUTE_US, file.high_us // MINUTE_US + 1])
    return int(end - begin)


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
    wanted = np.unique(np.fromiter(blocks, dtype=np.int64))
    is_here = block(table).is_in(wanted.tolist())
    left, names = [], {}
    for file in listed(pinned, table):
        count = _count(file, wanted)
        if count == 0:
            continue
        if count < file.high_us // MINUTE_US - file.low_us // MINUTE_US + 1:
            rows = _frame(f"{pinned.folder}/{file.name}", table, table.schema.names, file.rows)
            stays = rows.filter(~is_here)
            if stays.height == rows.height:
                continue
            left += [stays] if stays.height else []
        names[file.name] = file.size
    return left, names


def keep(pinned: Pinned, table: Table, name: str, rows: pl.DataFrame) -> None:
    """Keep the rows of a file that this process has just written."""
    _keep(f"{pinned.folder}/{name}", _columns(rows, table.schema.names))


def forget() -> None:
    """List anew: versions were taken back, and others will have their numbers."""
    _listed.clear()


def read(pinned: Pinned, table: Table, blocks: Iterable[int], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Rows of the given blocks (minutes since 1970) in a version; some columns only, when named."""
    wanted = np.unique(np.fromiter(blocks, dtype=np.int64))
    names = list(columns or table.schema.names)
    parts = [_columns(empty(table), names)]
    for file in listed(pinned, table):
        first, last = file.low_us // MINUTE_US, file.high_us // MINUTE_US
        begin, end = np.searchsorted(wanted, [first, last + 1])
        if begin == end:
            continue
        place = f"{pinned.folder}/{file.name}"
        if end - begin == last - first + 1:
            parts.append(_frame(place, table, names, file.rows))
            continue
        here = block(table).is_in(wanted[begin:end].tolist())
        if file.rows <= KEPT_ROWS:
            frame = _frame(place, table, list(dict.fromkeys([*names, table.time])), file.rows)
            parts.append(_columns(frame.filter(here), names))
        else:
            low, high = (from_us(int(at) * MINUTE_US) for at in (wanted[begin], wanted[end - 1] + 1))
            # a span, so that statistics of row groups tell which to leave out
            scan = pl.scan_parquet(place, hive_partitioning=False)
            scan = scan.filter(pl.col(table.time).is_between(low, high, "left") & here).select(needed(names, table))
            parts.append(_columns(whole(scan.collect(), table), names))
    return pl.concat(parts)


def _frame(place: str, table: Table, names: list[str], rows: int) -> pl.DataFrame:
    """Columns of a file; kept when it is not large."""
    if rows > KEPT_ROWS:
        return _file(place, table, names)
    with _lock:
        kept = _frames.get(place, pl.DataFrame())
    missing = [name for name in names if name not in kept.columns]
    if missing:
        more = _file(place, table, missing)
        kept = more if kept.is_empty() else kept.hstack(more)
    _keep(place, kept, is_new=bool(missing))
    return _columns(kept, names)


def _keep(place: str, rows: pl.DataFrame, *, is_new: bool = True) -> None:
    with _lock:
        _frames[place] = rows
        _frames.move_to_end(place)
        if is_new or place not in _sizes:
            _sizes[place] = int(rows.estimated_size())
            while sum(_sizes.values()) > KEPT_BYTES:
                del _sizes[_frames.popitem(last=False)[0]]


def _file(place: str, table: Table, names: list[str]) -> pl.DataFrame:
    stored = pl.read_parquet(place, columns=needed(names, table), hive_partitioning=False)
    return _columns(whole(stored, table), names)


def _columns(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """`select` without a query, which takes longer than all else for a file of a few hundred rows."""
    return pl.DataFrame([frame.get_column(name) for name in names])

"""What retention has removed, in lake/removed.json: for each table and stream the event time below which its rows are
gone. It is written before they go, so whoever finds them gone finds that said.

Rows below it do not come in again, and rows that were made of them stay as they are: made anew they would be empty.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from contracts.layout import Layout, write_durably
from contracts.quality import CONTEXT_MINUTES
from contracts.quantities import of_stream
from contracts.retention import streams_of
from contracts.schemas import Table
from contracts.times import MINUTE_US, from_us
from pipelines.kernels.counters import COUNTER_CONTEXT_S

Bounds = dict[str, dict[str, int]]  # by table and stream, microseconds since 1970

# what a derived table's rows are made of, and how many minutes before them that reaches
_MADE_OF = {
    "minutes": {"observations": 0, "footfall": 0, "minutes": CONTEXT_MINUTES},
    "flags": {"minutes": CONTEXT_MINUTES},
    "windows": {"minutes": COUNTER_CONTEXT_S // 60},
    "hours": {"windows": 0},
    "flow_minutes": {"lane_flows": 0},
    "flow_windows": {"flow_minutes": 0},
}


@dataclass(frozen=True, kw_only=True)
class Removed:
    """`bounds`: rows below are gone or about to go. `done`: rows below are gone."""

    bounds: Bounds = field(default_factory=dict)
    done: Bounds = field(default_factory=dict)


_known: dict[Path, tuple[tuple[int, int, int], Removed]] = {}


def removed(root: Path) -> Removed:
    """As the file stands now; read again only when it changed."""
    path = Layout(root).removed
    try:
        status = path.stat()
    except FileNotFoundError:
        return Removed()
    stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
    if root not in _known or _known[root][0] != stamp:
        _known[root] = stamp, Removed(**json.loads(path.read_bytes()))
    return _known[root][1]


def note(root: Path, more: Bounds) -> None:
    """Say durably what is about to go. A bound never goes back: what was removed stays removed."""
    before = removed(root)
    _store(root, Removed(bounds=_later(before.bounds, more), done=before.done))


def did(root: Path, more: Bounds) -> None:
    """Say durably what has gone."""
    before = removed(root)
    _store(root, Removed(bounds=before.bounds, done=_later(before.done, more)))


def _later(one: Bounds, other: Bounds) -> Bounds:
    found = {name: dict(bounds) for name, bounds in one.items()}
    for name, bounds in other.items():
        own = found.setdefault(name, {})
        for stream, bound in bounds.items():
            own[stream] = max(own.get(stream, 0), bound)
    return found


def _store(root: Path, found: Removed) -> None:
    if found != removed(root):
        write_durably(Layout(root).removed, json.dumps(vars(found), indent=1, sort_keys=True).encode())


def without(root: Path, rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Rows that retention has not removed, or would have."""
    bounds = removed(root).bounds.get(table.name)
    return rows if not bounds or rows.is_empty() else rows.filter(~below(table, bounds))


def kept(root: Path, existing: pl.DataFrame, made: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Rows of a derived table: what was `made` just now, and of what is there those rows whose sources are gone. To be
    called after the sources were read: what was missing there has been noted by then."""
    bounds = removed(root).bounds
    if not bounds:
        return made
    is_orphan = below(table, dict(_sources(bounds, table)))
    return without(root, pl.concat([made.filter(~is_orphan), existing.filter(is_orphan)]), table)


def _sources(bounds: Bounds, table: Table) -> Iterator[tuple[str, int]]:
    """For each stream of a derived table, below which time its rows cannot be made any more."""
    for stream in streams_of(table):
        found = 0
        for source, minutes in _MADE_OF[table.name].items():
            if bound := bounds.get(source, {}).get(stream, 0):
                found = max(found, bound + minutes * MINUTE_US)
        yield stream, found


def below(table: Table, bounds: Mapping[str, int]) -> pl.Expr:
    """Whether a row of a table lies below the bound of its stream."""
    time = pl.col(table.time)
    terms = [of_streams(table, (name,)) & (time < from_us(bound)) for name, bound in bounds.items() if bound]
    return pl.any_horizontal(terms) if terms else pl.lit(value=False)


def of_streams(table: Table, streams: tuple[str, ...]) -> pl.Expr:
    """Whether a row of a table comes from one of these streams."""
    column, values = told_by(table, streams)
    return pl.lit(value=True) if column is None else pl.col(column).is_in(values)


def told_by(table: Table, streams: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """The column that tells a row's stream and its values for some; None where all rows are of these streams."""
    if set(streams) >= set(streams_of(table)):
        return None, []
    if "stream" in table.schema.names:
        return "stream", list(streams)
    return "quantity", [quantity.name for stream in streams for quantity in of_stream(stream)]


def whole(bounds: Mapping[str, int], table: Table) -> int:
    """Below which time every row of a table is gone."""
    return min((bounds.get(stream, 0) for stream in streams_of(table)), default=0)

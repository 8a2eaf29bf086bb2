"""Retention: rows whose event time is too long ago go, a table's UTC day at a time, the oldest first.

Whole days, because settled files hold one: a day of a table that goes as a whole takes its files and rewrites none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from contracts.layout import Layout
from contracts.retention import rule, streams_of
from contracts.schemas import ANNOUNCEMENTS, TABLES, Table
from contracts.times import US, from_us
from pipelines import files, housekeeping, lake, pins, removed
from pipelines.announcements import final_through
from pipelines.files import File
from pipelines.housekeeping import Span
from pipelines.piece import Piece
from pipelines.removed import Bounds

DAY_US = 86_400 * US
Days = Mapping[str, float | None]  # by rule of contracts.retention; None: for ever


@dataclass(frozen=True, kw_only=True)
class Removal(Span):
    """Rows of some streams of a table that lie in a span, which `files` may hold."""

    streams: tuple[str, ...]

    def among(self, listed: Sequence[File]) -> "Removal":
        """The same, of the files that there are now."""
        held = (one for one in listed if one.low_us < self.end_us and one.high_us >= self.start_us)
        return replace(self, files=tuple(held))

    @property
    def is_gone(self) -> pl.Expr:
        """Whether a row is to go."""
        return self.is_here & removed.of_streams(self.table, self.streams)

    @property
    def ends(self) -> list[str]:
        """Files of which no row is left."""
        if removed.told_by(self.table, self.streams)[0] is not None:
            return []
        return [one.name for one in self.files if self.start_us <= one.low_us and one.high_us < self.end_us]

    def rows(self, root: Path) -> int:
        """How many are to go."""
        folder = Layout(root).table(self.table.name)
        places = [folder / one.name for one in self.files]
        found = pl.scan_parquet(places, hive_partitioning=False).filter(self.is_gone).select(pl.len()).collect().item()
        return int(found)


def bounds(root: Path, days: Days, now_us: int) -> Bounds:
    """Below which event time each table's rows of each stream are to go, at a moment."""
    found: Bounds = {}
    for name, table in TABLES.items():
        for stream in streams_of(table):
            kept_days = days[rule(name, stream).name]
            if kept_days is None:
                continue
            bound = now_us - round(kept_days * DAY_US)
            if table is ANNOUNCEMENTS:  # what is final stays so, however long ago it was said
                bound = min([bound, *(int(one.timestamp() * US) for one in final_through(root).values())])
            found.setdefault(name, {})[stream] = max(0, bound // DAY_US * DAY_US)
    return found


def plan(root: Path, days: Days, now_us: int) -> Iterator[Piece]:
    """What is to be removed now, day by day of each table."""
    going = bounds(root, days, now_us)
    for name, own in going.items():
        if lake.exists(root, name):
            for one in _removals(root, TABLES[name], own):
                yield _piece(root, one, going)


def _removals(root: Path, table: Table, going: Mapping[str, int]) -> Iterator[Removal]:
    listed = files.listed(lake.newest_version(root, table.name), table)
    done = removed.removed(root).done.get(table.name, {})
    limit_us = max(going.values())
    starts = {
        day * DAY_US
        for one in listed
        for day in range(one.low_us // DAY_US, min(one.high_us // DAY_US, (limit_us - 1) // DAY_US) + 1)
    }
    for start_us in sorted(starts):
        end_us = start_us + DAY_US
        streams = tuple(stream for stream, bound in going.items() if bound >= end_us)
        # where others stay, the files do not tell whether it has been done
        if removed.told_by(table, streams)[0] is not None:
            streams = tuple(stream for stream in streams if done.get(stream, 0) < end_us)
        if streams:
            found = Removal(table=table, streams=streams, start_us=start_us, end_us=end_us, files=())
            yield found.among(listed)


def _piece(root: Path, one: Removal, going: Bounds) -> Piece:
    day = from_us(one.start_us).date().isoformat()
    streams = "" if removed.told_by(one.table, one.streams)[0] is None else f" of {', '.join(one.streams)}"
    pinned = pins.holding(root, one.table.name, one.ends)
    return Piece(
        kind="remove",
        table=one.table.name,
        what=f"{day}{streams}" + (f", also from {pinned} pins" if pinned else ""),
        rows=one.rows(root),
        files=len(one.files),
        size=sum(file.size for file in one.files),
        work=partial(_remove, root, one, going),
        names=tuple(file.name for file in one.files),
    )


def _remove(root: Path, one: Removal, going: Bounds) -> None:
    name = one.table.name
    removed.note(root, going)
    # a piece before may have put others in their place
    one = one.among(files.listed(lake.newest_version(root, name), one.table))
    pins.drop(root, name, one.ends)
    housekeeping.rewrite(root, one, ~one.is_gone, one.ends)
    removed.did(root, {name: dict.fromkeys(one.streams, one.end_us)})

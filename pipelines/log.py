"""The raw log as the pipelines read it: what is new since the stored positions."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime
from heapq import merge
from pathlib import Path

import polars as pl
import pyarrow as pa

from contracts.layout import SHARD, Segment, instances, open_path, sealed_segments
from contracts.segments import read_segment
from contracts.times import US, to_us

CHUNK_ROWS = 20_000
TICK_ROWS = 60_000
AGAIN_ROWS = 10_000
REREAD_S = 600  # before the positions, read again after a start
RECOVER_S = 5  # between two looks for segments that a killed ingest left open
SEALED_WITHIN_S = 60.0  # far more than ingest takes, and than clocks differ

Span = tuple[str, int, int]  # offsets [first, end) of an instance


def new_segments(raw: Path, offsets: dict[str, int], limit_rows: int = TICK_ROWS) -> tuple[list[Segment], bool]:
    """Sealed segments that hold offsets not yet passed, oldest first, and whether that is all of them.

    Instances take turns in proportion, so that one that is far behind cannot hide the others.
    """
    waiting = {name: sealed_segments(raw, name, offsets.get(name, 0)) for name in instances(raw)}
    total = sum(rows_of(found) for found in waiting.values())
    if total <= limit_rows:
        return [segment for found in waiting.values() for segment in found], True
    taken = []
    for found in waiting.values():
        rows = 0
        for segment in found:
            if rows and rows >= limit_rows / len(waiting):
                break
            taken.append(segment)
            rows += segment.last - segment.first + 1
    return taken, False


def seals(raw: Path, offsets: dict[str, int]) -> list[tuple[int, ...] | None]:
    """What changes whenever a segment behind the positions is sealed, per instance: a few calls, no listing. None
    while the next one is open: there is nothing to take up before it is sealed."""
    marks: list[tuple[int, ...] | None] = []
    for name in instances(raw):
        offset = offsets.get(name, 0)
        path = open_path(raw, name, offset)
        folders = (path.parent.parent, path.parent, open_path(raw, name, offset + SHARD).parent)
        # the folders first: a seal in between changes them, and the next look sees that
        changed = tuple(map(_changed_ns, folders))
        marks.append(None if path.exists() else changed)
    return marks


def _changed_ns(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def old_segments(
    raw: Path, again: dict[str, int], until: dict[str, int], limit_rows: int = AGAIN_ROWS
) -> list[Segment]:
    """The oldest segments that hold offsets between `again` and `until`, of about so many rows; none when all of them
    have been read again."""
    taken: list[Segment] = []
    rows = 0
    for name, offset in again.items():
        if offset >= until.get(name, 0):
            continue
        for segment in sealed_segments(raw, name, offset):
            if segment.first >= until[name] or rows >= limit_rows:
                break
            taken.append(segment)
            rows += segment.last - segment.first + 1
    return taken


def chunks(segments: list[Segment], limit_rows: int = CHUNK_ROWS) -> list[tuple[Segment, ...]]:
    """Segments in groups of about so many rows: the elements that engines decode."""
    groups: list[tuple[Segment, ...]] = []
    group: list[Segment] = []
    rows = 0
    for segment in segments:
        group.append(segment)
        rows += segment.last - segment.first + 1
        if rows >= limit_rows:
            groups.append(tuple(group))
            group, rows = [], 0
    return [*groups, tuple(group)] if group else groups


def spans(segments: Sequence[Segment]) -> tuple[Span, ...]:
    """The offsets that segments hold, as few spans."""
    found: list[Span] = []
    for segment in segments:
        if found and found[-1][0] == segment.instance and found[-1][2] == segment.first:
            found[-1] = (segment.instance, found[-1][1], segment.last + 1)
        else:
            found.append((segment.instance, segment.first, segment.last + 1))
    return tuple(found)


def rows_of(segments: Iterable[Segment]) -> int:
    """Messages in segments."""
    return sum(segment.last - segment.first + 1 for segment in segments)


def received_between(
    raw: Path, segments: Sequence[Segment], since: datetime | None, until: datetime | None
) -> tuple[int, int]:
    """The first of an instance's segments that holds a message received at `since` or later, and the first behind it
    that holds none received before `until`. An instance's received_time never goes back."""

    def begins_us(segment: Segment) -> int:
        try:
            return int(read_segment(raw, segment)["received_time"].cast(pa.int64())[0].as_py())
        except FileNotFoundError:
            return 0  # retention removed it since it was listed

    first = 0 if since is None else max(0, bisect_left(segments, to_us(since), key=begins_us) - 1)
    end = len(segments) if until is None else bisect_left(segments, to_us(until), key=begins_us)
    return min(first, end), end


def in_order(raw: Path, found: Sequence[Sequence[Segment]]) -> list[Segment]:
    """Segments of instances about in the order in which they were sealed, those of one instance in theirs."""

    def sealed_s(segment: Segment) -> float:
        try:
            return segment.path(raw).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    return list(found[0]) if len(found) == 1 else list(merge(*found, key=sealed_s))


def passed(offsets: dict[str, int], segments: list[Segment]) -> dict[str, int]:
    """Positions after these segments."""
    after = dict(offsets)
    for segment in segments:
        after[segment.instance] = max(after.get(segment.instance, 0), segment.last + 1)
    return after


def rows_new(offsets: dict[str, int], segments: list[Segment]) -> int:
    """Messages in these segments that lie behind the positions; a merged one may begin before them."""
    return sum(
        segment.last + 1 - max(segment.first, min(offsets.get(segment.instance, 0), segment.last + 1))
        for segment in segments
    )


def rewound(raw: Path, offsets: dict[str, int], since_s: float) -> dict[str, int]:
    """Positions set back to the first segment that was sealed at or after a moment (seconds since 1970)."""
    before = dict(offsets)
    for name, offset in offsets.items():
        for segment in sealed_segments(raw, name, max(0, offset - SHARD)):
            if segment.first < offset and (first := _first_since(raw, segment, since_s)) is not None:
                before[name] = min(before[name], first)
                break
    return before


def _first_since(raw: Path, segment: Segment, since_s: float) -> int | None:
    """The first offset of a segment that may have been sealed at or after a moment; None when there is none."""
    try:
        if segment.path(raw).stat().st_mtime < since_s:
            return None
        if not segment.is_merged:
            return segment.first
        # merged just now from old ones: the receipts tell, and sealing follows a receipt within a second
        rows = pl.read_parquet(segment.path(raw), columns=["offset", "received_time"], hive_partitioning=False)
    except FileNotFoundError:
        return segment.first  # merged or removed meanwhile: what is left of it is read
    since_us = int((since_s - SEALED_WITHIN_S) * US)
    first: int | None = rows.filter(pl.col("received_time").dt.epoch("us") >= since_us)["offset"].min()  # type: ignore[assignment]
    return first

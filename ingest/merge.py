"""Old segments become few: the contiguous ones of a closed shard are one Parquet file, with the same rows.

Safe against a crash at every step: the merged file is written aside, fsynced, compared with its parts and only then
given its name; parts go in a later step, each compared once more with what the merged file holds. As long as both are
there, `sealed_segments` shows the merged one.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.layout import Segment, fsync_folder, open_segments, parse_segment
from contracts.segments import RAW_SCHEMA, read_segment

GROUP_ROWS = 10_000
GROUP_BYTES = 32 << 20
OLD_S = 3_600.0
LISTED_S = 2.0  # whoever began to list a folder before the merged file had its name is done


class UnlikeError(Exception):
    """A segment does not hold what its name or another file says; nothing is removed. The message names the file."""


@dataclass(frozen=True)
class Merged:
    """What was (or would be) merged: `bytes_after` is None in a dry run."""

    segment: Segment
    parts: int
    bytes_before: int
    bytes_after: int | None


def files(raw: Path, instance: str) -> dict[int, list[Segment]]:
    """Every sealed file per shard, in order, those that a merged one stands for included."""
    found: dict[int, list[Segment]] = {}
    for shard in (raw / instance).iterdir():
        if shard.name.isdigit():
            names = (parse_segment(instance, name) for name in os.listdir(shard))
            found[int(shard.name)] = sorted(each for each in names if each is not None)
    return dict(sorted(found.items()))


def closed_shards(raw: Path, instance: str) -> dict[int, list[Segment]]:
    """Every sealed file of each shard that nothing will be written to any more.

    The shard of the highest offset is not one: from there an instance counts on.
    """
    shards = files(raw, instance)
    newest = max((number for number, found in shards.items() if found), default=0)
    being_written = {int(path.parent.name) for path in open_segments(raw, instance)}
    return {
        number: found for number, found in shards.items() if number < newest and number not in being_written and found
    }


def runs(segments: list[Segment]) -> list[list[Segment]]:
    """Unmerged segments in groups of contiguous offsets: a gap is not hidden inside a merged file."""
    groups: list[list[Segment]] = []
    for segment in segments:
        if segment.is_merged:
            continue
        if groups and groups[-1][-1].last + 1 == segment.first:
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return groups


def merge_shards(raw: Path, instance: str, now_s: float, is_dry: bool = False) -> Iterator[Merged]:
    """Merge what is old in closed shards, oldest first; the parts stay. Raises UnlikeError or OSError."""
    for number, found in closed_shards(raw, instance).items():
        folder = raw / instance / f"{number:08d}"
        for aside in [] if is_dry else folder.glob(".*.tmp"):
            aside.unlink()  # left by a crash
        for run in runs(_shown(found)):
            parts = [segment.path(raw).stat() for segment in run]
            if max(part.st_mtime for part in parts) > now_s - OLD_S:
                continue
            whole = Segment(instance, run[0].first, run[-1].last, is_merged=True)
            after = None if is_dry else _write(raw, run, whole)
            yield Merged(whole, len(run), sum(part.st_size for part in parts), after)


def remove_parts(raw: Path, instance: str) -> int:
    """Remove the segments that a merged one stands for, compared with it; how many. Raises UnlikeError or OSError."""
    removed = 0
    for number, found in closed_shards(raw, instance).items():
        folder = raw / instance / f"{number:08d}"
        for whole in [segment for segment in found if segment.is_merged]:
            parts = [
                segment
                for segment in found
                if not segment.is_merged and whole.first <= segment.first and segment.last <= whole.last
            ]
            if parts and time.time() - whole.path(raw).stat().st_ctime >= LISTED_S:
                _compare(raw, parts, whole.path(raw), whole.first)
                # whoever renamed it may have been killed before its name was durable
                fsync_folder(folder)
                for segment in parts:
                    segment.path(raw).unlink()
                fsync_folder(folder)
                removed += len(parts)
    return removed


def _shown(found: list[Segment]) -> list[Segment]:
    """Without those that a merged one stands for."""
    wholes = [segment for segment in found if segment.is_merged]
    return [
        segment
        for segment in found
        if segment.is_merged or not any(each.first <= segment.first and segment.last <= each.last for each in wholes)
    ]


def _write(raw: Path, parts: list[Segment], whole: Segment) -> int:
    """Make the merged file; its size in bytes."""
    path = whole.path(raw)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("wb") as handle:
            with pq.ParquetWriter(handle, RAW_SCHEMA, compression="zstd") as writer:
                for group in _groups(raw, parts):
                    writer.write_table(group, row_group_size=GROUP_ROWS if len(group) >= 2 * GROUP_ROWS else len(group))
            handle.flush()
            # readers go back to a moment by the files' times
            newest_ns = max(segment.path(raw).stat().st_mtime_ns for segment in parts)
            os.utime(handle.fileno(), ns=(newest_ns, newest_ns))
            os.fsync(handle.fileno())
        _compare(raw, parts, aside, whole.first)
        size = aside.stat().st_size
        aside.rename(path)
    except Exception:
        aside.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
    return size


def _groups(raw: Path, parts: list[Segment]) -> Iterator[pa.Table]:
    """The parts' rows in tables of about GROUP_ROWS. Raises UnlikeError when a part lacks an offset of its name."""
    held: list[pa.Table] = []
    rows = size = 0
    for segment in parts:
        held.append(_rows(raw, segment))
        rows, size = rows + len(held[-1]), size + held[-1].nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _rows(raw: Path, segment: Segment) -> pa.Table:
    try:
        rows = read_segment(raw, segment)
    except pa.ArrowException as error:
        raise UnlikeError(f"{segment.path(raw)} is broken ({error})") from error
    if rows["offset"].to_pylist() != list(range(segment.first, segment.last + 1)):
        raise UnlikeError(f"{segment.path(raw)} does not hold the offsets of its name")
    return rows


def _compare(raw: Path, parts: list[Segment], path: Path, first: int) -> None:
    """Raises UnlikeError unless the merged file, whose first offset is `first`, holds every row of the parts."""
    with pq.ParquetFile(path) as merged:
        groups = iter(range(merged.num_row_groups))
        held, start = RAW_SCHEMA.empty_table(), first
        for segment in parts:
            rows = _rows(raw, segment)
            while start + len(held) <= segment.last:
                number = next(groups, None)
                if number is None:
                    raise UnlikeError(f"{path} lacks offset {start + len(held)}")
                passed = max(0, min(len(held), segment.first - start))
                group = merged.read_row_group(number, use_threads=False).cast(RAW_SCHEMA)
                held, start = pa.concat_tables([held.slice(passed), group]), start + passed
            if not held.slice(segment.first - start, len(rows)).equals(rows):
                raise UnlikeError(f"{path} differs from {segment.path(raw)}")

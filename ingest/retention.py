"""Which sealed segments may go: older than the retention, passed by every consumer, the oldest first without a hole."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.layout import Layout, Positions, Segment, fsync_folder
from contracts.segments import RAW_SCHEMA, read_segment
from contracts.times import US
from ingest import memory
from ingest.merge import UnlikeError, closed_shards

DAY_US = 86_400 * US
_TIME = RAW_SCHEMA.get_field_index("received_time")


@dataclass(frozen=True)
class Expired:
    """A segment that may go. `newest_us` is the received_time of its newest row."""

    segment: Segment
    size: int
    newest_us: int

    @property
    def rows(self) -> int:
        return self.segment.last - self.segment.first + 1

    @property
    def day(self) -> str:
        return datetime.fromtimestamp(self.newest_us / US, UTC).date().isoformat()


def passed(layout: Layout) -> dict[str, int]:
    """Per instance the offset that all consumers (the lake's pipelines, the receipts) have passed.

    One that has said nothing of an instance has passed nothing of it. Raises UnlikeError when it cannot be told.
    """
    try:
        lake = Positions.load(layout.positions).offsets
        consumers = [lake, memory.offsets(layout)]
        return {name: min(int(each.get(name, 0)) for each in consumers) for name in set().union(*consumers)}
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError, ValueError, AttributeError) as error:
        raise UnlikeError(f"{layout.positions} cannot be read ({error}): nothing is removed") from error


def expired(layout: Layout, instance: str, passed_offset: int, before_us: int) -> Iterator[Expired]:
    """Segments of closed shards whose newest row was received before a moment, oldest first, up to the first that must
    stay. Raises UnlikeError or OSError."""
    for found in closed_shards(layout.raw, instance).values():
        for segment in found:
            newest_us = newest_received_us(layout.raw, segment)
            if segment.last >= passed_offset or newest_us >= before_us:
                return
            yield Expired(segment, segment.path(layout.raw).stat().st_size, newest_us)


def newest_received_us(raw: Path, segment: Segment) -> int:
    """received_time of a segment's newest row, microseconds. Raises UnlikeError or OSError when it cannot be told."""
    try:
        if not segment.is_merged:
            times = read_segment(raw, segment).column("received_time").cast(pa.int64())
            return int(max(times.to_pylist()))
        metadata = pq.read_metadata(segment.path(raw))
        newest = [metadata.row_group(number).column(_TIME).statistics.max for number in range(metadata.num_row_groups)]
        return int(max(round(each.timestamp() * US) for each in newest))
    except (pa.ArrowException, AttributeError, ValueError) as error:
        raise UnlikeError(f"{segment.path(raw)} does not tell when it was received ({error})") from error


def remove(raw: Path, segments: list[Segment]) -> None:
    """Remove files, oldest first, and folders that are empty then."""
    for segment in segments:
        segment.path(raw).unlink()
    for folder in dict.fromkeys(segment.path(raw).parent for segment in segments):
        fsync_folder(folder)
        if not any(folder.iterdir()):
            folder.rmdir()
            fsync_folder(folder.parent)

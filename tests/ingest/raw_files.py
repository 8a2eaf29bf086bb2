"""Raw logs of several shards, small enough for a test, and what can be read of them."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from contracts import layout
from contracts.layout import Layout, Segment, sealed_segments
from contracts.segments import RAW_SCHEMA, batch_metadata, read_segment

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
SMALL_SHARD = 100


def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of a hundred offsets, and no segment longer than thirty."""
    monkeypatch.setattr(layout, "SHARD", SMALL_SHARD)
    monkeypatch.setattr(layout, "MAX_SEGMENT_ROWS", 30)
    monkeypatch.setattr("ingest.tail.SHARD", SMALL_SHARD)


def seal(root: Path, first: int, rows: int, received: datetime, instance: str = "a") -> Segment:
    """A sealed segment of so many rows, all received (and the file written) at a moment."""
    segment = Segment(instance, first, first + rows - 1)
    path = segment.path(Layout(root).raw)
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = list(range(first, first + rows))
    batch = pa.record_batch(
        [
            pa.array(offsets, pa.int64()),
            pa.array([f"lamplight/v1/KT{1000 + offset % 7}/air" for offset in offsets], pa.string()),
            pa.array([b"payload %d" % offset for offset in offsets], pa.binary()),
            pa.array([received] * rows, pa.timestamp("us", "UTC")),
            pa.array([False] * rows, pa.bool_()),
        ],
        schema=RAW_SCHEMA,
    )
    with pa.ipc.new_stream(str(path), RAW_SCHEMA) as writer:
        writer.write_batch(batch, custom_metadata=batch_metadata(batch))
    os.utime(path, (received.timestamp(), received.timestamp()))
    return segment


def fill(root: Path, received: datetime, first: int = 0, segments: int = 12, instance: str = "a") -> list[Segment]:
    """Contiguous segments of 25 rows: with twelve, three shards of four."""
    return [seal(root, first + 25 * number, 25, received, instance) for number in range(segments)]


def readable(root: Path, instance: str = "a") -> pa.Table:
    """All rows that the contract shows, in order."""
    raw = Layout(root).raw
    return pa.concat_tables(
        [RAW_SCHEMA.empty_table(), *(read_segment(raw, each) for each in sealed_segments(raw, instance))]
    )


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its size and time of change."""
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def never(seconds: float) -> bool:
    """Wait, and do not stop."""
    time.sleep(seconds)
    return False

"""Raw segments: an Arrow IPC stream, one record batch per group commit, each with its checksum. Old ones are merged
into one Parquet file per shard, with the same rows.

Only sealed segments are read. An `.open` segment whose lock is free was left by a crash: `recover` keeps its whole
batches, cuts its torn tail (which was never acknowledged) and seals it.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.layout import (
    MAX_SEGMENT_ROWS,
    Segment,
    fsync_folder,
    instances,
    open_segments,
    parse_segment,
    try_lock,
    write_durably,
)

RAW_SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
        pa.field("received_time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("is_retained", pa.bool_(), nullable=False),
    ]
)

_HEAD: bytes = RAW_SCHEMA.serialize().to_pybytes()
_CONTINUATION = b"\xff\xff\xff\xff"  # each message of an Arrow IPC stream begins so


def checksum(batch: pa.RecordBatch) -> bytes:
    """CRC-32 of a batch's row count and columns, as decimal text: tells a torn or damaged batch from a whole one.

    No column of RAW_SCHEMA holds nulls, so the count and the buffers are all that there is to a batch.
    """
    value = zlib.crc32(batch.num_rows.to_bytes(8, "little"))
    for column in batch.columns:
        for buffer in column.buffers():
            if buffer is not None:
                value = zlib.crc32(buffer, value)
    return str(value).encode()


def batch_metadata(batch: pa.RecordBatch) -> dict[bytes, bytes]:
    """The custom metadata that a written batch carries."""
    return {b"crc32": checksum(batch)}


def read_segment(raw: Path, segment: Segment) -> pa.Table:
    """All rows of a sealed segment, as one table of RAW_SCHEMA; those of a merged one when it has become part of that.

    Raises FileNotFoundError when it is gone, OSError or pa.ArrowInvalid when it is broken.
    """
    path = segment.path(raw)
    if segment.is_merged:
        return pq.read_table(path, schema=RAW_SCHEMA, partitioning=None)
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            return reader.read_all()
    except FileNotFoundError:
        whole = _merged(path.parent, segment)
        if whole is None:
            raise
    inside = [("offset", ">=", segment.first), ("offset", "<=", segment.last)]
    return pq.read_table(whole, schema=RAW_SCHEMA, filters=inside, partitioning=None)


def _merged(folder: Path, segment: Segment) -> Path | None:
    """The merged file that holds a segment's offsets."""
    for path in folder.glob("*.parquet"):
        whole = parse_segment(segment.instance, path.name)
        if whole and whole.first <= segment.first and segment.last <= whole.last:
            return path
    return None


@dataclass(frozen=True)
class _Frame:
    """One whole batch in a file: its bytes [start, end) and its offsets [first, last]."""

    start: int
    end: int
    first: int
    last: int


def _whole_frames(content: memoryview, first: int) -> Iterator[_Frame]:
    """Every whole batch of a file whose offsets begin at `first`; what is damaged or torn is passed over."""
    position = 0
    while position >= 0 and position < len(content):
        end = _message_end(content, position)
        frame = None if end is None else _frame(content, position, end)
        if end is not None and frame is not None and first <= frame.first < first + MAX_SEGMENT_ROWS:
            yield frame
            first = frame.last + 1
        # a length that leads to another message is believed: payloads that it skips could look like messages
        position = end if end is not None and _is_start(content, end) else _next_start(content, position)


def _is_start(content: memoryview, position: int) -> bool:
    return position == len(content) or content[position : position + 4] == _CONTINUATION


def _next_start(content: memoryview, position: int) -> int:
    """Where the next message may begin (all of them lie at multiples of eight); -1 when there is none."""
    content_bytes = content.obj
    assert isinstance(content_bytes, bytes)
    position = content_bytes.find(_CONTINUATION, position + 1)
    while position >= 0 and position % 8:
        position = content_bytes.find(_CONTINUATION, position + 1)
    return position


def _message_end(content: memoryview, position: int) -> int | None:
    """Where the Arrow message that begins here ends; None when none does."""
    source = pa.BufferReader(pa.py_buffer(content[position:]))
    try:
        pa.ipc.read_message(source)
    except (pa.ArrowException, OSError, EOFError):
        return None
    return position + int(source.tell())


def _frame(content: memoryview, start: int, end: int) -> _Frame | None:
    """The batch that these bytes are; None when they are none, or not the bytes that were written."""
    try:
        reader = pa.ipc.open_stream(pa.BufferReader(_HEAD + bytes(content[start:end])))
        batch, metadata = reader.read_next_batch_with_custom_metadata()
    except (StopIteration, pa.ArrowException, OSError):
        return None
    if batch is None or metadata is None or not _is_whole(batch, metadata):
        return None
    first, last = batch.column("offset")[0].as_py(), batch.column("offset")[-1].as_py()
    return _Frame(start, end, first, last) if last - first + 1 == batch.num_rows else None


def _is_whole(batch: pa.RecordBatch, metadata: dict[bytes, bytes]) -> bool:
    if not batch.num_rows or any(column.null_count for column in batch.columns):
        return False
    return metadata.get(b"crc32") == checksum(batch)


def recover(path: Path) -> list[Segment]:
    """Seal the whole batches of an `.open` segment that a crash left; the segments, none when it holds nothing.

    The torn tail, which was never acknowledged, is cut. Where a batch in the middle is damaged, a segment ends before
    it and the next begins after it. The batches are written anew: the bytes of a file whose fsync failed before the
    crash can be read and may not be on the disk. The caller holds the instance's lock.
    """
    # the file is read as a whole, so that an error of the disk is raised and never taken for a torn tail
    content = memoryview(path.read_bytes())
    runs: list[list[_Frame]] = []
    for frame in _whole_frames(content, int(path.stem)):
        if runs and runs[-1][-1].last + 1 == frame.first:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    raw, instance = path.parent.parent.parent, path.parent.parent.name
    segments = []
    # in their order: a reader that has seen the later would never look for the earlier
    for run in runs:
        segment = Segment(instance, run[0].first, run[-1].last)
        batches = b"".join(bytes(content[frame.start : frame.end]) for frame in run)
        write_durably(segment.path(raw), _HEAD + batches)
        segments.append(segment)
    path.unlink()
    fsync_folder(path.parent)
    return segments


def recover_abandoned(raw: Path) -> list[Segment]:
    """Seal every open segment of an instance that no living process holds. Any process may do so."""
    sealed = []
    for instance in instances(raw):
        left = open_segments(raw, instance)
        if not left:
            continue
        lock = try_lock(raw / instance / "lock")
        if lock is None:
            continue
        with lock:
            # listed again under the lock: its holder may have sealed or begun one before it left
            for path in open_segments(raw, instance):
                sealed += recover(path)
    return sealed

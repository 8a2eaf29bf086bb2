"""Raw segments: an Arrow IPC stream, one record batch per group commit, each with its checksum. Old ones are merged
into one Parquet file per shard, with the same rows.

Only sealed segments are read. An `.open` segment whose lock is free was left by a crash: `recover` keeps its whole
batches, cuts its torn tail (which was never acknowledged) and seals it.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.layout import Segment, fsync_folder, instances, open_segments, parse_segment, try_lock

RAW_SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
        pa.field("received_time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("is_retained", pa.bool_(), nullable=False),
    ]
)


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


def _whole_batches(path: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(end of the batch in the file, batch) of each whole batch, up to the first torn one."""
    # the file is read first, so that an error of the disk is raised and never taken for a torn tail
    source = pa.BufferReader(path.read_bytes())
    try:
        reader = pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError):
        return
    if not reader.schema.equals(RAW_SCHEMA):
        return
    while True:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except (StopIteration, pa.ArrowException, OSError):
            return
        if batch is None or metadata is None or not _is_whole(batch, metadata):
            return
        yield source.tell(), batch


def _is_whole(batch: pa.RecordBatch, metadata: dict[bytes, bytes]) -> bool:
    if not batch.num_rows or any(column.null_count for column in batch.columns):
        return False
    return metadata.get(b"crc32") == checksum(batch)


def recover(path: Path) -> Segment | None:
    """Seal an `.open` segment that a crash left, without its torn tail; None (and no file) when it holds nothing.

    The caller holds the instance's lock.
    """
    end, first, last = 0, 0, -1
    for position, batch in _whole_batches(path):
        if last < 0:
            first = batch.column("offset")[0].as_py()
        end, last = position, batch.column("offset")[-1].as_py()
    instance = path.parent.parent.name
    if last < 0:
        path.unlink()
        fsync_folder(path.parent)
        return None
    segment = Segment(instance, first, last)
    with path.open("r+b") as handle:
        handle.truncate(end)
        handle.flush()
        os.fsync(handle.fileno())
    path.rename(segment.path(path.parent.parent.parent))
    fsync_folder(path.parent)
    return segment


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
                segment = recover(path)
                if segment is not None:
                    sealed.append(segment)
    return sealed

"""The raw log of one ingest instance: what `append` has taken is on disk when it returns (laws 1 and 2)."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from contracts import settings
from contracts.layout import (
    MAX_SEGMENT_ROWS,
    Layout,
    Segment,
    fsync_folder,
    open_path,
    open_segments,
    sealed_segments,
    try_lock,
)
from contracts.segments import RAW_SCHEMA, batch_metadata, recover
from contracts.settings import SettingError
from ingest.arrival import Arrival

SEAL_AFTER_S = 0.2  # law 2 allows 0.25 s; the rest is for the commit that may be running then
SEAL_AT_BYTES = 64 << 20

_HEAD = RAW_SCHEMA.serialize().to_pybytes()
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # the Arrow IPC end-of-stream mark


class NotDurableError(SettingError):
    """The disk did not take a commit: what it held was not and must not be acknowledged."""


def record_batch(arrivals: Sequence[Arrival], first: int) -> pa.RecordBatch:
    """The arrivals as one batch of RAW_SCHEMA, offsets counting up from `first`."""
    return pa.record_batch(
        [
            pa.array(range(first, first + len(arrivals)), pa.int64()),
            pa.array([arrival.topic for arrival in arrivals], pa.string()),
            pa.array([arrival.payload for arrival in arrivals], pa.binary()),
            pa.array([arrival.received_us for arrival in arrivals], pa.int64()).cast(pa.timestamp("us", "UTC")),
            pa.array([arrival.is_retained for arrival in arrivals], pa.bool_()),
        ],
        schema=RAW_SCHEMA,
    )


def frame(batch: pa.RecordBatch) -> memoryview:
    """The batch as one message of an Arrow IPC stream, with its checksum.

    Each is made apart and written by ourselves: Arrow's writer over a Python file takes no notice of a short write.
    """
    sink = pa.BufferOutputStream()
    pa.ipc.new_stream(sink, RAW_SCHEMA).write_batch(batch, custom_metadata=batch_metadata(batch))
    return memoryview(sink.getvalue())[len(_HEAD) :]


class Landing:
    """Holds the instance's lock, recovers what a crash left, and appends.

    At most one segment is open, and none while nothing arrives. `next_offset` is that of the next row. After a
    NotDurableError nothing more is written: what is whole on disk is found again by the next start.

    Raises SettingError when the folder cannot be written or another process holds the instance.
    """

    def __init__(self, layout: Layout, instance: str):
        self.raw = layout.raw
        self.instance = instance
        folder = self.raw / instance
        _make_durably(folder, layout.root)
        lock = try_lock(folder / "lock")
        if lock is None:
            raise SettingError(
                f"ingest instance {instance!r} is already running on {folder}: stop it, "
                "or change LAMPLIGHT_INGEST_INSTANCE"
            )
        self._lock = lock
        self._descriptor = -1
        self._path = Path()
        self._first = 0
        self._bytes = 0
        self._seal_at: float | None = None
        self._is_broken = False
        try:
            for path in open_segments(self.raw, instance):
                recover(path)
        except OSError as error:
            lock.close()
            raise self._failure(error) from error
        sealed = sealed_segments(self.raw, instance)
        self.next_offset = max((segment.last for segment in sealed), default=-1) + 1
        self.start_offset = self.next_offset

    @property
    def durable(self) -> int:
        """Rows fsynced since the start."""
        return self.next_offset - self.start_offset

    @property
    def seal_at(self) -> float | None:
        """When (time.monotonic) the open segment is to be sealed; None when there is none."""
        return self._seal_at

    def append(self, arrivals: Sequence[Arrival]) -> None:
        """Write one commit and fsync it. Raises NotDurableError; nothing of the commit counts then."""
        if self._is_broken:
            raise NotDurableError(f"{self.raw / self.instance} has already failed")
        if self._seal_at is not None and self.next_offset - self._first + len(arrivals) > MAX_SEGMENT_ROWS:
            self.seal()
        content = frame(record_batch(arrivals, self.next_offset))
        try:
            is_new = self._seal_at is None
            if is_new:
                self._begin()
            _write_whole(self._descriptor, content)
            os.fsync(self._descriptor)
            if is_new:
                # without its name a file is not durable, however well its bytes are
                fsync_folder(self._path.parent)
        except OSError as error:
            raise self._failure(error) from error
        self._bytes += len(content)
        self.next_offset += len(arrivals)
        if is_new:
            self._seal_at = time.monotonic() + SEAL_AFTER_S
        if self._bytes >= SEAL_AT_BYTES:
            self.seal()

    def seal_if_due(self) -> None:
        """Seal when the open segment is old enough."""
        if self._seal_at is not None and time.monotonic() >= self._seal_at:
            self.seal()

    def seal(self) -> None:
        """Give the open segment its final name; nothing to do when there is none. Raises NotDurableError."""
        if self._seal_at is None:
            return
        segment = Segment(self.instance, self._first, self.next_offset - 1)
        try:
            _write_whole(self._descriptor, _END)
            os.fsync(self._descriptor)
            self._path.rename(segment.path(self.raw))
            fsync_folder(self._path.parent)
        except OSError as error:
            raise self._failure(error) from error
        self._release()

    def close(self) -> None:
        """Seal, unless the disk has failed, and let the instance go."""
        try:
            if not self._is_broken:
                self.seal()
        finally:
            self._release()
            self._lock.close()

    def _begin(self) -> None:
        path = open_path(self.raw, self.instance, self.next_offset)
        if path.parent != self._path.parent:
            path.parent.mkdir(exist_ok=True)
            fsync_folder(path.parent.parent)
        self._path, self._first, self._bytes = path, self.next_offset, 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        _write_whole(self._descriptor, _HEAD)

    def _release(self) -> None:
        descriptor, self._descriptor, self._seal_at = self._descriptor, -1, None
        if descriptor >= 0:
            os.close(descriptor)

    def _failure(self, error: OSError) -> NotDurableError:
        self._is_broken = True
        where = error.filename or self._path
        return NotDurableError(
            f"ingest stopped, {where} cannot be written ({error.strerror}): free the disk or change LAMPLIGHT_DATA, "
            "and start it again; nothing that is not on disk was acknowledged"
        )

    def __enter__(self) -> "Landing":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write_whole(descriptor: int, content: bytes | memoryview) -> None:
    """Write every byte; a full disk takes some of them before it says so."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _make_durably(folder: Path, root: Path) -> None:
    """Make a folder below the data root so that a power cut does not take it away; raises SettingError."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    settings.writable_folder(folder)
    # those below the root always: an earlier start may have died before it made them durable
    ours = [path for path in (folder, *folder.parents) if path.is_relative_to(root) and path != root]
    try:
        for path in {*made, *ours}:
            fsync_folder(path.parent)
    except OSError as error:
        raise SettingError(f"folder {folder} cannot be written ({error.strerror}): change LAMPLIGHT_DATA") from error

"""The raw log of one ingest instance: what `append` has taken is on disk when it returns (laws 1 and 2)."""

import contextlib
import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc

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
from contracts.segments import RAW_SCHEMA, batch_metadata, read_segment, recover
from contracts.settings import SettingError
from ingest.arrival import Arrival

SEAL_AFTER_S = 0.2  # law 2 allows 0.25 s; the rest is for the commit that may be running then
SEAL_AT_BYTES = 64 << 20

PROBE_BYTES = 65_536

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

    At most one segment is open, and none while nothing arrives. `next_offset` is that of the next row,
    `last_received_us` the greatest received_time so far. After a NotDurableError nothing more is written until `repair`
    has succeeded; without it, the next start finds what is whole on disk. `opened_at` (time.monotonic) is when the open
    segment was begun. `holes` are spans of offsets [first, last] that the start found damaged.

    Raises SettingError when the folder cannot be written or read, or another process holds the instance.
    """

    def __init__(self, layout: Layout, instance: str):
        self.raw = layout.raw
        self.instance = instance
        folder = self.raw / instance
        settings.writable_folder(folder)
        lock = try_lock(folder / "lock")
        if lock is None:
            raise SettingError(
                f"ingest instance {instance!r} is already running on {folder}: stop it, "
                "or change LAMPLIGHT_INGEST_INSTANCE"
            )
        self._lock = lock
        self._descriptor = -1
        self._path: Path | None = None
        self._folder: Path | None = None
        self._first = 0
        self._bytes = 0
        self._refused_bytes = 0
        self._seal_at: float | None = None
        self.opened_at: float | None = None
        self.is_broken = False
        self.holes: list[tuple[int, int]] = []
        try:
            for path in open_segments(self.raw, instance):
                recovered = recover(path)
                self.holes += [(one.last + 1, two.first - 1) for one, two in pairwise(recovered)]
            sealed = sealed_segments(self.raw, instance)
            self.last_received_us = _last_received_us(self.raw, sealed)
        except OSError as error:
            lock.close()
            raise self._failure(error) from error
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
        if self.is_broken:
            raise NotDurableError(f"{self.raw / self.instance} has failed and was not repaired")
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
                fsync_folder(self._opened.parent)
        except OSError as error:
            self._refused_bytes = len(content)
            raise self._failure(error) from error
        self._bytes += len(content)
        self.next_offset += len(arrivals)
        self.last_received_us = max(self.last_received_us, arrivals[-1].received_us)
        if is_new:
            self.opened_at = time.monotonic()
            self._seal_at = self.opened_at + SEAL_AFTER_S
        if self._bytes >= SEAL_AT_BYTES:
            self._seal_at = time.monotonic()

    def seal_if_due(self) -> None:
        """Seal when the open segment is old enough."""
        if self._seal_at is not None and time.monotonic() >= self._seal_at:
            self.seal()

    def seal(self) -> None:
        """Give the open segment its final name; nothing to do when there is none. Raises NotDurableError."""
        if self._seal_at is None:
            return
        if self.is_broken:
            raise NotDurableError(f"{self._path} has failed and was not repaired")
        try:
            _write_whole(self._descriptor, _END)
            os.fsync(self._descriptor)
            self._opened.rename(self._sealed)
            fsync_folder(self._sealed.parent)
        except OSError as error:
            raise self._failure(error) from error
        self._release()

    def repair(self) -> None:
        """After a NotDurableError: put the open segment in order and see whether the disk takes a commit again.

        The segment is cut back to its last successful fsync and sealed, or removed when it has none: after a failed
        fsync the kernel may show bytes that are not on the disk and call the next fsync a success, so nothing of the
        refused commit is kept. May be repeated. Raises NotDurableError while the disk still refuses.
        """
        try:
            self._settle()
            _probe(self.raw / self.instance / ".probe", max(self._refused_bytes, PROBE_BYTES))
        except OSError as error:
            raise self._failure(error) from error
        self.is_broken = False

    def close(self) -> None:
        """Seal, unless the disk has failed, and let the instance go."""
        try:
            if not self.is_broken:
                self.seal()
        finally:
            self._release()
            self._lock.close()

    @property
    def _opened(self) -> Path:
        assert self._path is not None
        return self._path

    @property
    def _sealed(self) -> Path:
        return Segment(self.instance, self._first, self.next_offset - 1).path(self.raw)

    def _begin(self) -> None:
        path = open_path(self.raw, self.instance, self.next_offset)
        if path.parent != self._folder:
            path.parent.mkdir(exist_ok=True)
            fsync_folder(path.parent.parent)
            self._folder = path.parent
        self._path, self._first, self._bytes = path, self.next_offset, 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        _write_whole(self._descriptor, _HEAD)

    def _settle(self) -> None:
        path = self._path
        if path is None:
            return
        if self.next_offset == self._first:
            path.unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):  # then the seal had come as far as the rename
                _cut(path, len(_HEAD) + self._bytes)
                path.rename(self._sealed)
        fsync_folder(path.parent)
        self._release()

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        self._path = self._seal_at = self.opened_at = None
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _failure(self, error: OSError) -> NotDurableError:
        self.is_broken = True
        where = error.filename or self._path or self.raw / self.instance
        return NotDurableError(
            f"the disk refuses {where} ({error.strerror}): free it or change LAMPLIGHT_DATA; "
            "nothing that is not on disk was acknowledged"
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


def _cut(path: Path, size: int) -> None:
    """Cut a file to its first `size` bytes, durably."""
    # by another descriptor than the one whose fsync failed
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _probe(path: Path, size: int) -> None:
    """Write and fsync as much as a commit needs, and take it away again. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_whole(descriptor, bytes(size))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    finally:
        path.unlink(missing_ok=True)
    fsync_folder(path.parent)


def _last_received_us(raw: Path, sealed: Sequence[Segment]) -> int:
    """Greatest received_time (microseconds, UTC) of the newest segment, 0 when there is none. Raises OSError."""
    if not sealed:
        return 0
    try:
        newest = pc.max(read_segment(raw, sealed[-1])["received_time"].cast(pa.int64()))
    except pa.ArrowException:
        # a broken file is for its readers to complain of; it was sealed after its messages came
        return sealed[-1].path(raw).stat().st_mtime_ns // 1000
    return int(newest.as_py() or 0)

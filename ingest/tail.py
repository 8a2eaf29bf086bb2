"""The raw log as it grows: sealed segments of every instance, each row once, in order within an instance."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from contracts.layout import SHARD, Segment, instances, open_path, parse_segment, sealed_segments
from contracts.logs import say
from contracts.segments import RAW_SCHEMA, read_segment

RELIST_S = 10.0
PATIENCE_S = 10.0  # with a segment that cannot be read
SETTLED_NS = 50_000_000  # a folder's time of change is as fine as the kernel's tick, so a young one proves nothing


class _Folder:
    """Names in a folder, listed again only when it has changed; None when there is no such folder."""

    def __init__(self, path: Path):
        self._path = path
        self._names: list[str] = []
        self._changed_ns = -1

    def names(self) -> list[str] | None:
        now_ns = time.time_ns()
        try:
            changed_ns = os.stat(self._path).st_mtime_ns
            if changed_ns != self._changed_ns:
                self._names = os.listdir(self._path)
                self._changed_ns = changed_ns if 0 <= changed_ns < now_ns - SETTLED_NS else -1
        except FileNotFoundError:
            self._changed_ns = -1
            return None
        return self._names


class _Instance:
    """One instance's log from `offset` on; `failing_since` when its next segment cannot be read."""

    def __init__(self, raw: Path, name: str, offset: int):
        self.name = name
        self.offset = offset
        self.failing_since: float | None = None
        self._raw = raw
        self._folders: dict[int, _Folder] = {}
        self._relist_at = 0.0

    def waiting(self) -> list[Segment]:
        """Sealed segments that hold offsets not yet passed, in order.

        Usually the next begins at `offset` itself, and names in its folder tell. Where it does not (at the start, after
        a gap or a merge), and now and then, the contract's listing does.
        """
        found = self._following()
        ends = [self.offset, *(segment.last + 1 for segment in found)]
        is_whole = all(segment.first == end for segment, end in zip(found, ends, strict=False))
        now = time.monotonic()
        if is_whole and (found or now < self._relist_at):
            return found
        self._relist_at = now + RELIST_S
        return sealed_segments(self._raw, self.name, self.offset)

    def _following(self) -> list[Segment]:
        """Segments that begin at `offset` or after it, as far as folder follows folder."""
        least, number = f"{self.offset:012d}", self.offset // SHARD
        for passed in [each for each in self._folders if each < number]:
            del self._folders[passed]
        found: list[Segment] = []
        while True:
            folder = self._folders.get(number)
            if folder is None:
                place = open_path(self._raw, self.name, number * SHARD).parent
                folder = self._folders[number] = _Folder(place)
            names = folder.names()
            if names is None:
                return sorted(found)
            for name in names:
                if name >= least and (segment := parse_segment(self.name, name)):
                    found.append(segment)
            number += 1


class Tail:
    """Reads on from `offsets`, next offset per instance. Instances that appear later are read from their beginning."""

    def __init__(self, raw: Path, offsets: dict[str, int]):
        self.raw = raw
        self.skipped = 0
        self._newest = dict(offsets)
        self._instances = {name: _Instance(raw, name, offset) for name, offset in offsets.items()}

    @property
    def offsets(self) -> dict[str, int]:
        """Next offset per instance; the rows before it have been given."""
        return {name: instance.offset for name, instance in self._instances.items()}

    @property
    def behind(self) -> int:
        """Offsets of sealed segments that were not yet given, as of the last look."""
        return sum(max(0, self._newest[name] - instance.offset) for name, instance in self._instances.items())

    def read(self) -> Iterator[pa.Table]:
        """Look once, and give what is new, a table of RAW_SCHEMA for each segment; instances take turns."""
        waiting = []
        for name in instances(self.raw):
            instance = self._instances.setdefault(name, _Instance(self.raw, name, 0))
            found = instance.waiting()
            self._newest[name] = max([instance.offset, *(segment.last + 1 for segment in found)])
            waiting.append((instance, iter(found)))
        while waiting:
            going = []
            for instance, segments in waiting:
                segment = next(segments, None)
                rows = None if segment is None else self._rows(instance, segment)
                if segment is None or rows is None:
                    continue
                instance.offset = max(instance.offset, segment.last + 1)
                yield rows
                going.append((instance, segments))
            waiting = going

    def _rows(self, instance: _Instance, segment: Segment) -> pa.Table | None:
        """The segment's rows from the instance's offset on; None while it cannot be read. One that stays so is passed
        over: what was in it gets no receipt, and the devices send it again."""
        try:
            table = read_segment(self.raw, segment)
        except (OSError, pa.ArrowException) as error:
            now = time.monotonic()
            if instance.failing_since is None:
                instance.failing_since = now
            if now - instance.failing_since < PATIENCE_S:
                return None
            instance.failing_since = None
            self.skipped += 1
            path = segment.path(self.raw)
            say("receipts", f"{path} cannot be read ({error}): nothing in it is receipted", "error")
            return RAW_SCHEMA.empty_table()
        instance.failing_since = None
        return table.slice(max(0, instance.offset - segment.first))

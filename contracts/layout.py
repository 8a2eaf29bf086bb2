"""Where files lie below the data root. Packages meet here, never in imports.

registry/lampposts.json             the lamppost registry
raw/{instance}/{shard}/{first}-{last}.arrow   sealed segments; `{first}.open` while one is written
raw/{instance}/{shard}/{first}-{last}.parquet the same offsets of many segments, merged
raw/{instance}/lock                 held by the living ingest instance
raw/{instance}/events.ndjson        what befell an instance: sessions lost, disks full
receipts/                           how far each boot's streams are durable, for the receipts process
devices/                            the simulated devices' own disks
lake/{table}/                       Delta tables
lake/positions.json                 what the tables contain: next offset per instance, version per table
lake/dirty.json                     minutes to recompute, left by a rebuild that was interrupted
lake/removed.json                   what retention has removed: event times, by table and stream
lake/pins/{time}/                   an earlier lake: positions.json, and {table}/ with links to its files
release/releases.sqlite             noised releases, written once (private)
open/                               all that the public side may read
catalog.duckdb                      the analysts' catalogue
broker/                             the production broker's folder: configuration, access rules, credentials (private)
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Layout:
    """Paths below one data root."""

    root: Path

    @property
    def registry(self) -> Path:
        return self.root / "registry" / "lampposts.json"

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def positions(self) -> Path:
        return self.lake / "positions.json"

    @property
    def dirty(self) -> Path:
        return self.lake / "dirty.json"

    @property
    def removed(self) -> Path:
        return self.lake / "removed.json"

    @property
    def pins(self) -> Path:
        return self.lake / "pins"

    @property
    def receipts(self) -> Path:
        return self.root / "receipts"

    @property
    def devices(self) -> Path:
        return self.root / "devices"

    @property
    def releases(self) -> Path:
        return self.root / "release" / "releases.sqlite"

    @property
    def open(self) -> Path:
        return self.root / "open"

    @property
    def catalogue(self) -> Path:
        return self.root / "catalog.duckdb"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    def progress(self, stage: str) -> Path:
        """Where a running stage (fleet, ingest, receipts, pipelines) says how far it is."""
        return self.root / "run" / f"{stage}.json"

    def table(self, name: str) -> Path:
        """Folder of one Delta table."""
        return self.lake / name


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_DURABLE: set[Path] = set()  # folders whose names this process knows to be on disk


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each durably: a file in a folder that a power cut undoes is
    lost, however well it was fsynced itself.

    A folder that is there already may have been made by somebody who was killed before it was durable, or who did not
    care; so the names of all folders above are made durable too, once per process.
    """
    folder = folder.absolute()
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in (folder, *folder.parents):
        if path in _DURABLE or path.is_mount():
            break
        # what lies above our own root may not be ours to read
        with contextlib.suppress(PermissionError):
            fsync_folder(path.parent)
        _DURABLE.add(path)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        fsync_folder(path.parent)
        _DURABLE.add(path)


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Tells one content of a name from the next: changes when the file is replaced or written; None: there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def write_durably(path: Path, content: bytes, mode: int = 0o666, owner: tuple[int, int] | None = None) -> None:
    """Replace a file as a whole: written aside, fsynced, renamed, the folder fsynced.

    It never has more than `mode`; `owner` (user, group) is for root to give.
    """
    make_folder(path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as handle:
            if owner is not None:
                os.fchown(handle.fileno(), *owner)
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(path)
    except OSError:
        # a full disk is not to be filled further by each attempt
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_progress(path: Path, figures: dict[str, int | float | str | None]) -> None:
    """Replace a stage's progress file; not durable, because only the living read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json.dumps(figures))
    aside.replace(path)


def read_progress(path: Path) -> dict[str, Any]:
    """A stage's figures; empty before it has said any."""
    try:
        figures: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return figures


@dataclass(frozen=True, kw_only=True)
class Positions:
    """What the lake contains: stored after the tables, with the vector of their versions.

    `offsets`: next raw offset per ingest instance. `versions`: Delta version per table; a catalogue is built from
    one such vector only. `covered_us`: every segment sealed before this moment (microseconds, UTC) is contained.
    """

    offsets: dict[str, int]
    versions: dict[str, int]
    covered_us: int

    def store(self, path: Path) -> None:
        """Replace the positions file durably."""
        content = {"offsets": self.offsets, "versions": self.versions, "covered_us": self.covered_us}
        write_durably(path, json.dumps(content, indent=1, sort_keys=True).encode())

    @staticmethod
    def load(path: Path) -> "Positions":
        """Read a positions file; a missing one is the empty lake."""
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return Positions(offsets={}, versions={}, covered_us=0)
        return Positions(**content)


def _names(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return


SHARD = 100_000  # offsets per folder, so that a reader lists only the folders that it has not passed


@dataclass(frozen=True, order=True)
class Segment:
    """A sealed segment: the offsets [first, last] of one ingest instance, all of them in its file.

    `is_merged`: a Parquet file that many segments of its shard became.
    """

    instance: str
    first: int
    last: int
    is_merged: bool = False

    @property
    def relative(self) -> str:
        suffix = "parquet" if self.is_merged else "arrow"
        return f"{self.instance}/{self.first // SHARD:08d}/{self.first:012d}-{self.last:012d}.{suffix}"

    def path(self, raw: Path) -> Path:
        return raw / self.relative


def open_path(raw: Path, instance: str, first: int) -> Path:
    """Name of a segment that is still written."""
    return raw / instance / f"{first // SHARD:08d}" / f"{first:012d}.open"


def parse_segment(instance: str, name: str) -> Segment | None:
    """The segment that a file name tells, or None when it is no sealed segment."""
    stem, dot, suffix = name.partition(".")
    first, dash, last = stem.partition("-")
    if not (dot and suffix in ("arrow", "parquet") and dash and first.isdigit() and last.isdigit()):
        return None
    return Segment(instance, int(first), int(last), suffix == "parquet")


def instances(raw: Path) -> list[str]:
    """Ingest instances that have a folder."""
    return sorted(entry.name for entry in _names(raw) if entry.is_dir())


def sealed_segments(raw: Path, instance: str, since: int = 0) -> list[Segment]:
    """Sealed segments of an instance that hold offsets >= since, in order, none of them inside another: while many
    are being merged, the merged one stands for them."""
    found = _listed(raw, instance, since)
    # a folder that is read while its segments are merged may show neither them nor the merged one: a gap is believed
    # when it is seen twice
    while _has_gap(found, since) and (again := _listed(raw, instance, since)) != found:
        found = again
    return found


def _has_gap(segments: list[Segment], since: int) -> bool:
    for segment in segments:
        if segment.first > since:
            return True
        since = segment.last + 1
    return False


def _listed(raw: Path, instance: str, since: int) -> list[Segment]:
    found = []
    for shard in _names(raw / instance):
        if shard.name.isdigit() and (int(shard.name) + 1) * SHARD + MAX_SEGMENT_ROWS > since:
            for entry in _names(Path(shard.path)):
                segment = parse_segment(instance, entry.name)
                if segment and segment.last >= since:
                    found.append(segment)
    found.sort(key=lambda segment: (segment.first, -segment.last, not segment.is_merged))
    kept: list[Segment] = []
    for segment in found:
        if not kept or segment.last > kept[-1].last:
            kept.append(segment)
    return kept


def open_segments(raw: Path, instance: str) -> list[Path]:
    """Segments of an instance that were never sealed: being written, or left by a crash."""
    return sorted(
        Path(entry.path)
        for shard in _names(raw / instance)
        if shard.name.isdigit()
        for entry in _names(Path(shard.path))
        if entry.name.endswith(".open")
    )


MAX_SEGMENT_ROWS = 65_536


def try_lock(path: Path) -> IO[Any] | None:
    """Take a lock file; None when a living process holds it. Closing the handle releases it."""
    import fcntl

    make_folder(path.parent)
    handle = path.open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle

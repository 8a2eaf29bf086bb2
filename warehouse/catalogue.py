"""catalog.duckdb: views over exact file lists of one vector of Delta versions, made aside and swapped as a whole.

The vector is that of lake/positions.json, which the pipeline stores after the tables, or of a pin, so a catalogue never
mixes states. The lake's vacuum keeps replaced files for minutes: a catalogue is valid for that long after the next one,
that of a pin as long as the pin.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from contracts.layout import Layout, Positions, fsync_folder, stamp, try_lock
from contracts.registry import load_registry
from contracts.schemas import HOURS, TABLES
from contracts.settings import SettingError
from contracts.times import HONG_KONG, from_us
from warehouse.boundaries import read_boundaries
from warehouse.config import Config
from warehouse.files import Listed, listed, time_span
from warehouse.latest import Latest
from warehouse.published import archived_products
from warehouse.reference import SNAPSHOT, ReferenceTable, ingest_events, registry_tables, state
from warehouse.removed import removed_rows
from warehouse.template import Working, template

LOCK_WAIT_S = 30.0


class NotPublished(SettingError):
    """The catalogue could not be built now: the disk is full, files of the lake are gone. The last one stays."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A state of the lake: its positions, and the Parquet files of each table as paths below the data root, sorted.
    `is_past`: what befell ingest afterwards is left out."""

    positions: Positions
    files: dict[str, list[str]]
    is_past: bool = False


@dataclass
class Kept:
    """What a publisher keeps from one publishing to the next: the files of the versions that were asked for last, what
    files say, and the last catalogue. A version's files and a file's rows never change."""

    known: dict[str, Listed] = field(default_factory=dict)
    latest: Latest = field(default_factory=Latest)
    working: Working | None = None

    def made_of(self, empty: bytes) -> Working:
        """A catalogue to fill, made of an empty one."""
        if self.working is None or self.working.made_of is not empty:
            self.close()
            self.working = Working(empty)
        return self.working

    def close(self) -> None:
        """Remove the last catalogue."""
        if self.working is not None:
            self.working.close()
            self.working = None

    def of(self, layout: Layout, table: str, version: int) -> list[str]:
        """Paths of a table version's Parquet files below the data root, sorted. Raises SettingError when there is no
        such version."""
        folder = layout.table(table).absolute()
        try:
            self.known[table] = listed(folder, version, self.known.get(table))
        except DeltaError as error:
            raise SettingError(
                f"version {version} of {layout.table(table)}, which {layout.positions} names, cannot be read: {error}"
            ) from error
        below = str(folder).removeprefix(str(layout.root.absolute()))
        return sorted(f"{below}/{name}" for name in self.known[table].names)

    def current(self, layout: Layout) -> Source:
        """The lake as its stored positions say."""
        positions = Positions.load(layout.positions)
        known = positions.versions
        return Source(
            positions=positions,
            files={name: self.of(layout, name, known[name]) if name in known else [] for name in TABLES},
        )


@dataclass(frozen=True, kw_only=True)
class Published:
    """A catalogue's file and what it was built from."""

    path: Path
    positions: Positions
    file_count: int


def publish(
    config: Config,
    kept: Kept | None = None,
    *,
    source: Source | None = None,
    out: Path | None = None,
    prefix: str | None = None,
) -> Published:
    """Build a catalogue and swap it in; readers keep the one that they opened.

    Of `source` (the lake's stored positions), as `out` (catalog.duckdb), for files whose paths begin with `prefix` (the
    data root). Raises SettingError when another publisher holds the lock for half a minute, or the registry or the file
    of the districts is broken, and NotPublished.
    """
    layout = config.layout
    target = out or layout.catalogue
    aside = target.with_name(f".{target.stem}.aside.duckdb")
    with _only_publisher(layout.catalogue.with_name(".catalog.lock")):
        keeping = kept or Kept()
        source = source or keeping.current(layout)
        boundaries = read_boundaries(config.districts) if config.districts else ()
        covered_us = source.positions.covered_us
        registry = _registry(config.registry, stamp(config.registry))
        tables = [*registry, ingest_events(layout.raw, covered_us if source.is_past else None)]
        tables.append(ReferenceTable(name="removed", rows=removed_rows(layout.removed)))
        last_year, root = datetime.now(HONG_KONG).year + 1, str(layout.root.absolute())
        archived = archived_products(layout.open)
        _forget(aside)
        try:
            empty = template(last_year, boundaries, root, archived)
            hours = [root + path for path in source.files[HOURS.name]]
            tables += [_snapshot(source, root), state(covered_us), keeping.latest.of(hours)]
            working = keeping.made_of(empty)
            working.fill(source.files, tables, root, root if prefix is None else prefix)
            working.copy(aside)
            aside.replace(target)
            fsync_folder(target.parent)
        except BaseException as error:
            keeping.close()
            if isinstance(error, (OSError, duckdb.IOException, duckdb.FatalException, duckdb.TransactionException)):
                said = " ".join(str(error).split())
                raise NotPublished(f"{target} is not published anew, the last one stays: {said}") from error
            raise
        finally:
            _forget(aside)
            if kept is None:
                keeping.close()
    return Published(
        path=target,
        positions=source.positions,
        file_count=sum(map(len, source.files.values())),
    )


@lru_cache(maxsize=1)
def _registry(path: Path, changed: tuple[int, int, int] | None) -> list[ReferenceTable]:
    """Its tables, made once for each change of the file; None: there is none."""
    return registry_tables(load_registry(path) if changed else None)


@contextmanager
def _only_publisher(path: Path) -> Iterator[None]:
    """Hold the publishers' lock: two at once could swap an older catalogue in after a newer one."""
    end = time.monotonic() + LOCK_WAIT_S
    while (lock := try_lock(path)) is None:
        if time.monotonic() > end:
            raise SettingError(f"another publisher holds {path}: end it, or change LAMPLIGHT_DATA")
        time.sleep(0.05)
    with lock:
        yield


def _forget(aside: Path) -> None:
    """Remove what a killed publisher left."""
    aside.unlink(missing_ok=True)


def _snapshot(source: Source, root: str) -> ReferenceTable:
    now = datetime.now(UTC)
    spans = {name: time_span(TABLES[name], [root + path for path in files]) for name, files in source.files.items()}
    rows: list[dict[str, Any]] = [
        {
            "table_name": name,
            "version": source.positions.versions.get(name),
            "file_count": len(files),
            "first_time": spans[name][0],
            "last_time": spans[name][1],
            "covered_time": from_us(source.positions.covered_us),
            "published_time": now,
        }
        for name, files in source.files.items()
    ]
    return ReferenceTable(name="snapshot", rows=pa.Table.from_pylist(rows, SNAPSHOT))

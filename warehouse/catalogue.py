"""catalog.duckdb: views over exact file lists of one vector of Delta versions, built aside and swapped as a whole.

The vector is that of lake/positions.json, which the pipeline stores after the tables, so a catalogue never mixes
states. The lake's vacuum keeps replaced files for minutes: a catalogue is valid for that long after the next one.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from contracts.layout import Layout, Positions, fsync_folder, try_lock
from contracts.registry import Registry, load_registry
from contracts.schemas import HOURS, TABLES
from contracts.settings import SettingError
from contracts.times import HONG_KONG, from_us
from warehouse.boundaries import read_boundaries
from warehouse.config import Config
from warehouse.files import time_span
from warehouse.latest import Latest
from warehouse.published import archived_products
from warehouse.reference import SNAPSHOT, ReferenceTable, full_name, ingest_events, registry_tables, state
from warehouse.template import attached, describe, template
from warehouse.views import View, raw_view

LOCK_WAIT_S = 30.0


@dataclass
class FileLists:
    """The files of table versions that were asked for last. A version's files never change, so they are kept, and
    a kept handle reads only the log entries that are new to it (measured: half the time of a new one)."""

    known: dict[str, tuple[DeltaTable, list[str]]] = field(default_factory=dict)
    latest: Latest = field(default_factory=Latest)

    def of(self, layout: Layout, table: str, version: int) -> list[str]:
        """Absolute paths of a table version's Parquet files, sorted."""
        kept = self.known.get(table)
        if kept and kept[0].version() == version:
            return kept[1]
        if kept:
            handle = kept[0]
            handle.load_as_version(version)
        else:
            handle = DeltaTable(str(layout.table(table).absolute()), version=version)
        self.known[table] = (handle, sorted(handle.file_uris()))
        return self.known[table][1]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a catalogue was built from."""

    positions: Positions
    file_count: int
    registry_version: int | None


def publish(config: Config, files: FileLists | None = None) -> Published:
    """Build the catalogue from the lake's stored positions and swap it in; readers keep the one that they opened.

    Raises SettingError when another publisher holds the lock for half a minute, or the registry or the file of the
    districts is broken.
    """
    layout, files = config.layout, files or FileLists()
    aside = layout.catalogue.with_name(".catalog.aside.duckdb")
    with _only_publisher(layout.catalogue.with_name(".catalog.lock")):
        positions = Positions.load(layout.positions)
        registry = load_registry(config.registry) if config.registry.exists() else None
        boundaries = read_boundaries(config.districts) if config.districts else ()
        last_year, root = datetime.now(HONG_KONG).year + 1, str(layout.root.absolute())
        empty = template(last_year, boundaries, root, archived_products(layout.open))
        lists = {
            name: files.of(layout, name, positions.versions[name]) if name in positions.versions else []
            for name in TABLES
        }
        _forget(aside)
        tables = [*registry_tables(registry), ingest_events(layout.raw)]
        tables += [_snapshot(positions, lists), state(positions.covered_us), files.latest.of(lists[HOURS.name])]
        _build(aside, empty, [raw_view(table, lists[name]) for name, table in TABLES.items()], tables)
        aside.replace(layout.catalogue)
        fsync_folder(layout.catalogue.parent)
    return Published(
        positions=positions,
        file_count=sum(map(len, lists.values())),
        registry_version=_version(registry),
    )


def _version(registry: Registry | None) -> int | None:
    return registry.version if registry else None


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
    for path in (aside, aside.with_name(f"{aside.name}.wal")):
        path.unlink(missing_ok=True)


def _snapshot(positions: Positions, lists: dict[str, list[str]]) -> ReferenceTable:
    now = datetime.now(UTC)
    spans = {name: time_span(TABLES[name], files) for name, files in lists.items()}
    rows: list[dict[str, Any]] = [
        {
            "table_name": name,
            "version": positions.versions.get(name),
            "file_count": len(files),
            "first_time": spans[name][0],
            "last_time": spans[name][1],
            "covered_time": from_us(positions.covered_us),
            "published_time": now,
        }
        for name, files in lists.items()
    ]
    return ReferenceTable(name="snapshot", rows=pa.Table.from_pylist(rows, SNAPSHOT))


def _build(path: Path, empty: bytes, raw: list[View], tables: list[ReferenceTable]) -> None:
    path.write_bytes(empty)
    with attached(path) as connection:
        for table in tables:
            connection.register("rows", table.rows)
            connection.execute(f"INSERT INTO {full_name(table.name)} SELECT * FROM rows")
            connection.unregister("rows")
        for view in raw:
            connection.execute(f"CREATE OR REPLACE VIEW {view.full_name} AS {view.text}")
            describe(connection, view.full_name, "VIEW", view.comment, view.columns)

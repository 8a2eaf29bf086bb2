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

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from contracts.layout import Layout, Positions, fsync_folder, try_lock
from contracts.registry import Registry, load_registry
from contracts.schemas import TABLES
from contracts.settings import SettingError
from contracts.times import from_us
from warehouse.config import Config
from warehouse.reference import SNAPSHOT, ReferenceTable, quantities, registry_tables
from warehouse.views import View, column_comments, quoted, raw_view, sql_views

STORAGE_VERSION = "v1.5.0"  # so that DuckDB 1.5 opens the file too
LOCK_WAIT_S = 30.0


@dataclass
class FileLists:
    """The files of table versions that were asked for last; a version's files never change, so they are kept."""

    known: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def of(self, layout: Layout, table: str, version: int) -> list[str]:
        """Absolute paths of a table version's Parquet files, sorted."""
        kept = self.known.get(table)
        if kept is None or kept[0] != version:
            uris = DeltaTable(str(layout.table(table).absolute()), version=version).file_uris()
            kept = self.known[table] = (version, sorted(uris))
        return kept[1]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a catalogue was built from."""

    positions: Positions
    file_count: int
    registry_version: int | None


def publish(config: Config, files: FileLists | None = None) -> Published:
    """Build the catalogue from the lake's stored positions and swap it in; readers keep the one that they opened.

    Raises SettingError when another publisher holds the lock for half a minute or the registry is broken.
    """
    layout, files = config.layout, files or FileLists()
    aside = layout.catalogue.with_name(".catalog.aside.duckdb")
    with _only_publisher(layout.catalogue.with_name(".catalog.lock")):
        positions = Positions.load(layout.positions)
        registry = load_registry(config.registry) if config.registry.exists() else None
        lists = {
            name: files.of(layout, name, positions.versions[name]) if name in positions.versions else []
            for name in TABLES
        }
        _forget(aside)
        tables = [quantities(), *registry_tables(registry), _snapshot(positions, lists)]
        _build(aside, [raw_view(table, lists[name]) for name, table in TABLES.items()], tables)
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
    rows: list[dict[str, Any]] = [
        {
            "table_name": name,
            "version": positions.versions.get(name),
            "file_count": len(files),
            "covered_time": from_us(positions.covered_us),
            "published_time": now,
        }
        for name, files in lists.items()
    ]
    return ReferenceTable(
        name="snapshot",
        description="What this catalogue was built from. Grain: one table of the lake. Key: table_name.",
        rows=pa.Table.from_pylist(rows, SNAPSHOT),
    )


def _build(path: Path, raw: list[View], tables: list[ReferenceTable]) -> None:
    with duckdb.connect(":memory:") as connection:
        # "catalog" is the name under which catalog.duckdb is opened
        connection.execute(f"ATTACH {quoted(str(path))} AS catalog (STORAGE_VERSION {quoted(STORAGE_VERSION)})")
        connection.execute("USE catalog")
        connection.execute("BEGIN")
        connection.execute("CREATE SCHEMA lake")
        for table in tables:
            connection.register("rows", table.rows)
            connection.execute(f"CREATE TABLE main.{table.name} AS SELECT * FROM rows")
            connection.unregister("rows")
            _comment(connection, "TABLE", f"main.{table.name}", table.description, column_comments(table.rows.schema))
        for schema, views in (("lake", raw), ("main", sql_views())):
            for view in views:
                name = f"{schema}.{view.name}"
                connection.execute(f"CREATE VIEW {name} AS {view.body}")
                _comment(connection, "VIEW", name, view.comment, _present(connection, name, view))
        connection.execute("COMMIT")
        connection.execute("USE memory")
        connection.execute("DETACH catalog")


def _present(connection: duckdb.DuckDBPyConnection, name: str, view: View) -> dict[str, str]:
    """What is said of the columns that the view has: a table may describe more than the view shows."""
    schema, _, table = name.partition(".")
    rows = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE schema_name = ? AND table_name = ?", [schema, table]
    ).fetchall()
    return {column: view.columns[column] for (column,) in rows if column in view.columns}


def _comment(
    connection: duckdb.DuckDBPyConnection, kind: str, name: str, comment: str, columns: dict[str, str]
) -> None:
    statements = [f"COMMENT ON {kind} {name} IS {quoted(comment)}"]
    statements += [f'COMMENT ON COLUMN {name}."{column}" IS {quoted(said)}' for column, said in columns.items()]
    connection.execute(";\n".join(statements))

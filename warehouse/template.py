"""The catalogue of an empty lake: every view, table and comment, so that publishing only has to say which files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from contracts.schemas import TABLES, Table
from warehouse.boundaries import Boundary
from warehouse.macros import sql_macros
from warehouse.published import published_views
from warehouse.reference import DESCRIPTIONS, REFERENCE, ReferenceTable, full_name, standing
from warehouse.views import SCHEMAS, column_comments, quoted, raw_rows, raw_view, sql_views

STORAGE_VERSION = "v1.5.0"  # so that DuckDB 1.5 opens the file too
BLOCK_SIZE = 16_384  # a small table takes a block of its own, and the file is written each second (half as long)


class Working:
    """A catalogue file of a process's own, filled anew for each publishing and copied. It stays open, because to open
    and close it takes as long as all that a publishing changes; what is as it was is left."""

    def __init__(self, content: bytes):
        self._folder = TemporaryDirectory(prefix="lamplight-")
        self.path = Path(self._folder.name) / "catalog.duckdb"
        self.path.write_bytes(content)
        self.made_of = content
        self.connection = attach(self.path)
        self._rows: dict[str, pa.Table] = {}
        self._files: dict[str, list[str]] = {}
        self._root: str | None = None

    def fill(self, files: dict[str, list[str]], tables: list[ReferenceTable], root: str, prefix: str) -> None:
        """Let it have these files of the lake's tables, below `prefix`, and these rows of its own tables. After an
        error it is not to be used again."""
        with transaction(self.connection):
            for table in tables:
                if (before := self._rows.get(table.name)) is None or not before.equals(table.rows):
                    self.connection.register("rows", table.rows)
                    self.connection.execute(f"DELETE FROM {full_name(table.name)}")
                    self.connection.execute(f"INSERT INTO {full_name(table.name)} SELECT * FROM rows")
                    self.connection.unregister("rows")
                    self._rows[table.name] = table.rows
            # files are bound where they are; where they will be read, there may be none yet
            self._place(root)
            for name, paths in files.items():
                if self._files.get(name, []) != paths:
                    list_files(self.connection, TABLES[name], paths)
                    self._files[name] = paths
            self._place(prefix)
        self.connection.execute("CHECKPOINT catalog")

    def _place(self, root: str) -> None:
        if self._root != root:
            place(self.connection, root)
            self._root = root

    def copy(self, path: Path) -> None:
        """Make a durable copy as it was last filled."""
        with path.open("wb") as file:
            file.write(self.path.read_bytes())
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Remove it."""
        self.connection.close()
        self._folder.cleanup()


def attach(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection to a catalogue file, made when it is missing, under the name that catalog.duckdb is opened by."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET enable_progress_bar = false")
    # a list of files is bound by the footer of its first, mostly the one of last time
    connection.execute("SET parquet_metadata_cache = true")
    options = f"STORAGE_VERSION {quoted(STORAGE_VERSION)}, BLOCK_SIZE {BLOCK_SIZE}"
    connection.execute(f"ATTACH {quoted(str(path))} AS catalog ({options})")
    connection.execute("USE catalog")
    return connection


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit at the end; after an error nothing has happened."""
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@lru_cache(maxsize=2)
def template(last_year: int, boundaries: tuple[Boundary, ...], root: str, archived: frozenset[str]) -> bytes:
    """A catalogue of an empty lake, with all that is the same in the next: a process makes it once (measured: 150
    ms for views and comments, which a copy then need not bind again), and again when what it holds has changed: the
    calendar goes on to the end of `last_year`, and below `root` there is something of the products in `archived`."""
    with TemporaryDirectory(prefix="lamplight-") as folder:
        path = Path(folder) / "template.duckdb"
        with attach(path) as connection, transaction(connection):
            for schema in ("lake", *SCHEMAS):
                connection.execute(f"CREATE SCHEMA {schema}")
            place(connection, root)
            known = standing(last_year, boundaries)
            for name, columns in REFERENCE.items():
                connection.register("rows", known.get(name, columns.empty_table()))
                connection.execute(f"CREATE TABLE {full_name(name)} AS SELECT * FROM rows")
                connection.unregister("rows")
                describe(connection, full_name(name), "TABLE", DESCRIPTIONS[name], column_comments(columns))
            for table in TABLES.values():
                list_files(connection, table, [])
                raw = raw_view(table)
                connection.execute(f"CREATE VIEW {raw.full_name} AS {raw.text}")
                describe(connection, raw.full_name, "VIEW", raw.comment, raw.columns)
            for view in (*sql_views(), *published_views(archived)):
                connection.execute(f"CREATE VIEW {view.full_name} AS {view.text}")
                describe(connection, view.full_name, "VIEW", view.comment, view.columns)
                if view.macro:
                    connection.execute(f"CREATE MACRO {view.full_name}_since(since) AS TABLE {view.macro}")
                    said = f"{view.name} from the moment `since` on."
                    connection.execute(f"COMMENT ON MACRO TABLE {view.full_name}_since IS {quoted(said)}")
            for macro in sql_macros():
                connection.execute(macro.statement)
                kind = "MACRO TABLE" if macro.is_table else "MACRO"
                connection.execute(f"COMMENT ON {kind} main.{macro.name} IS {quoted(macro.comment)}")
        return path.read_bytes()


def place(connection: duckdb.DuckDBPyConnection, root: str) -> None:
    """Say where the files of the views lie: below this folder. They are bound by it when they are asked."""
    connection.execute(f"CREATE OR REPLACE MACRO lake.root() AS {quoted(root)}")
    said = "Where the files of this catalogue begin: the data root, or what was given as publish --root."
    connection.execute(f"COMMENT ON MACRO lake.root IS {quoted(said)}")


def list_files(connection: duckdb.DuckDBPyConnection, table: Table, files: list[str]) -> None:
    """Say which files a table of the lake has, by their paths below the root. They must be there."""
    connection.execute(f"CREATE OR REPLACE MACRO lake.{table.name}_files() AS TABLE {raw_rows(table, files)}")


def describe(
    connection: duckdb.DuckDBPyConnection, name: str, kind: str, comment: str, columns: dict[str, str]
) -> None:
    """Comments of a view or table and of those columns that it has: a contract's table may describe more columns than
    a view shows."""
    statements = [f"COMMENT ON {kind} {name} IS {quoted(comment)}"]
    for column, *_ in connection.execute(f"DESCRIBE {name}").fetchall():
        if column in columns:
            statements.append(f'COMMENT ON COLUMN {name}."{column}" IS {quoted(columns[column])}')
    connection.execute(";\n".join(statements))

"""The catalogue of an empty lake: every view, table and comment, so that publishing only has to say which files."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from contracts.schemas import TABLES, Table
from warehouse.boundaries import Boundary
from warehouse.macros import sql_macros
from warehouse.published import published_views
from warehouse.reference import DESCRIPTIONS, REFERENCE, full_name, standing
from warehouse.views import SCHEMAS, column_comments, quoted, raw_rows, raw_view, sql_views

STORAGE_VERSION = "v1.5.0"  # so that DuckDB 1.5 opens the file too
BLOCK_SIZE = 16_384  # a small table takes a block of its own, and the file is written each second (half as long)


_engines: list[duckdb.DuckDBPyConnection] = []  # at most one, kept: to make and end one takes 20 ms


@contextmanager
def attached(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """One transaction on a catalogue file; for one thread at a time."""
    connection = _engines.pop() if _engines else duckdb.connect(":memory:")
    try:
        connection.execute("SET enable_progress_bar = false")
        # "catalog" is the name under which catalog.duckdb is opened
        options = f"STORAGE_VERSION {quoted(STORAGE_VERSION)}, BLOCK_SIZE {BLOCK_SIZE}"
        connection.execute(f"ATTACH {quoted(str(path))} AS catalog ({options})")
        connection.execute("USE catalog")
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")
        connection.execute("USE memory")
        connection.execute("DETACH catalog")
    except BaseException:
        connection.close()
        raise
    _engines.append(connection)


@lru_cache(maxsize=2)
def template(last_year: int, boundaries: tuple[Boundary, ...], root: str, archived: frozenset[str]) -> bytes:
    """A catalogue of an empty lake, with all that is the same in the next: a process makes it once (measured: 150
    ms for views and comments, which a copy then need not bind again), and again when what it holds has changed: the
    calendar goes on to the end of `last_year`, and below `root` there is something of the products in `archived`."""
    with TemporaryDirectory(prefix="lamplight-") as folder:
        path = Path(folder) / "template.duckdb"
        with attached(path) as connection:
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

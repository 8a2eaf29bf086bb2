"""Read-only questions to the catalogue, from the command line."""

import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import duckdb

from contracts.settings import SettingError
from warehouse.views import SCHEMAS, quoted

FORMATS = ("table", "csv", "json", "parquet")
MAX_TABLE_ROWS = 200
_TIMES = "TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%S.%fZ'"
_COPY_OPTIONS = {
    "csv": f"FORMAT csv, HEADER, {_TIMES}",
    "json": f"FORMAT json, ARRAY, {_TIMES}",
    "parquet": "FORMAT parquet",
}
_READING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


def open_catalogue(path: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection with times in UTC; views need no schema before their name. Raises SettingError when there
    is no catalogue to open."""
    if not path.exists():
        raise SettingError(f"no catalogue at {path}: run `python -m warehouse publish`, or change LAMPLIGHT_DATA")
    try:
        connection = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise SettingError(f"catalogue {path} cannot be opened: {one_line(error)}") from error
    # nothing is fetched from anywhere at run time: a question about a URL fails at once and says why
    connection.execute("SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false")
    connection.execute(f"SET search_path = {quoted(','.join(('main', *SCHEMAS)))}")
    return connection


def one_line(error: duckdb.Error) -> str:
    """A DuckDB error in one line, with its hint but without the echo of the query."""
    lines = (line.strip() for line in str(error).partition("\nLINE ")[0].splitlines())
    return " ".join(line for line in lines if line)


def answer(path: Path, text: str, form: str, out: Path | None) -> None:
    """Answer one SELECT (or EXPLAIN) from the catalogue, to standard output or to a file that is replaced as a whole.

    CSV and JSON have times in ISO 8601 with a Z. Raises SettingError with one line for a query that is wrong, more
    than one statement, or one that would write.
    """
    if form == "parquet" and out is None and sys.stdout.isatty():
        raise SettingError("Parquet is not for a terminal: give --out FILE")
    with open_catalogue(path) as connection:
        try:
            statements = connection.extract_statements(text)
            if not statements:
                raise SettingError("the query is empty: give one SELECT")
            if len(statements) != 1 or statements[0].type not in _READING:
                raise SettingError("the catalogue is read-only: give exactly one SELECT")
            query = statements[0].query.strip().rstrip(";")
            if out is None:
                with tempfile.TemporaryDirectory(prefix="lamplight-") as folder:
                    _write(connection, query, form, Path(folder) / "answer")
                    _copy_out(Path(folder) / "answer")
                return
            aside = out.with_name(f".{out.name}.aside")
            try:
                _write(connection, query, form, aside)
                aside.replace(out)
            except OSError as error:
                raise SettingError(f"{out} cannot be written ({error.strerror}): change --out") from error
            finally:
                aside.unlink(missing_ok=True)
        except duckdb.Error as error:
            raise SettingError(f"query failed: {one_line(error)}") from error


def _write(connection: duckdb.DuckDBPyConnection, query: str, form: str, path: Path) -> None:
    if form == "table":
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
        relation = connection.sql(query)
        with path.open("w", encoding="utf-8") as handle, redirect_stdout(handle):
            relation.show(max_rows=MAX_TABLE_ROWS, max_width=width)
        return
    target = str(path).replace("'", "''")
    # the line break keeps a comment at the query's end from swallowing the bracket
    connection.execute(f"COPY (FROM ({query}\n)) TO '{target}' ({_COPY_OPTIONS[form]})")


def _copy_out(path: Path) -> None:
    with path.open("rb") as handle:
        shutil.copyfileobj(handle, sys.stdout.buffer)
    sys.stdout.flush()


def describe_views(path: Path) -> list[tuple[str, str]]:
    """(schema.name, comment) of each view, table and macro of the catalogue."""
    with open_catalogue(path) as connection:
        rows = connection.execute(
            "SELECT schema_name, view_name, comment FROM duckdb_views() WHERE NOT internal "
            "UNION ALL SELECT schema_name, table_name, comment FROM duckdb_tables() "
            "UNION ALL SELECT schema_name, function_name || '(' || list_aggregate(parameters, 'string_agg', ', ') "
            "|| ')', comment FROM duckdb_functions() WHERE NOT internal "
            "ORDER BY ALL"
        ).fetchall()
    return [(name if schema == "main" else f"{schema}.{name}", comment) for schema, name, comment in rows]


def describe_columns(path: Path, name: str) -> list[tuple[str, str, str]]:
    """(column, type, comment) of one view or table. Raises SettingError when there is none of that name."""
    schema, _, table = name.rpartition(".")
    with open_catalogue(path) as connection:
        rows = connection.execute(
            "SELECT column_name, data_type, comment FROM duckdb_columns() "
            "WHERE NOT internal AND list_contains(?, schema_name) AND table_name = ? ORDER BY column_index",
            [[schema] if schema else ["main", *SCHEMAS], table],
        ).fetchall()
    if not rows:
        raise SettingError(f"no view {name}: `python -m warehouse views` lists them")
    return rows

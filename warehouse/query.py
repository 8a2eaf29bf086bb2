"""Read-only connections to a catalogue, and what one query may take."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import duckdb

from contracts.layout import stamp
from contracts.settings import SettingError
from warehouse.config import Config, Limits
from warehouse.interruption import Watched
from warehouse.views import SCHEMAS, quoted

READ_BELOW = ("lake", "open")  # folders of the data root that a confined query reads
_EXPLAIN = re.compile(r"EXPLAIN\s+(ANALYZE\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)


def open_catalogue(path: Path, limits: Limits | None = None) -> duckdb.DuckDBPyConnection:
    """A read-only connection with times in UTC; views need no schema before their name. Raises SettingError when there
    is no catalogue to open.

    It keeps the catalogue that it opened. The file is attached to a database in memory: DuckDB hands a process that
    opens a path twice the same database, which would be the old catalogue after a newer one was published.
    """
    if not path.exists():
        raise SettingError(f"no catalogue at {path}: run `python -m warehouse publish`, or change LAMPLIGHT_DATA")
    # DuckDB makes this folder when a query does not fit into memory, and removes it
    config: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": str(Path(tempfile.gettempdir()) / f"lamplight-{uuid4().hex}")
    }
    if limits:
        config["memory_limit"] = limits.memory
        if limits.threads:
            config["threads"] = limits.threads
    connection = duckdb.connect(":memory:", config=config)
    try:
        connection.execute(f"ATTACH {quoted(str(path))} AS catalog (READ_ONLY)")
    except duckdb.Error as error:
        connection.close()
        raise SettingError(f"catalogue {path} cannot be opened: {one_line(error)}") from error
    # nothing is fetched from anywhere at run time: a question about a URL fails at once and says why
    connection.execute("SET TimeZone = 'UTC'; SET autoinstall_known_extensions = false")
    # files of the lake never change, and to read the footers of a month again took longer than its hours
    connection.execute("SET parquet_metadata_cache = true")
    names = ",".join(f"catalog.{schema}" for schema in ("main", *SCHEMAS))
    connection.execute(f"USE catalog; SET search_path = {quoted(names)}")
    return connection


def connect(
    root: str | Path | None = None,
    *,
    catalogue: str | Path | None = None,
    memory: str | None = None,
    threads: int | None = None,
) -> duckdb.DuckDBPyConnection:
    """The city in a notebook: `warehouse.connect().sql("FROM wind").pl()`.

    `root` is the data root (LAMPLIGHT_DATA), `catalogue` a catalogue file elsewhere; `memory` ("4GB") and `threads`
    are limits (LAMPLIGHT_QUERY_MEMORY, LAMPLIGHT_QUERY_THREADS). The connection keeps the state of the lake that it
    opened, for as long as the lake keeps those files: connect again for the newest. Your own files and frames can be
    joined; the catalogue cannot be written. Raises SettingError when there is no catalogue or a limit is wrong.
    """
    given = {"LAMPLIGHT_QUERY_MEMORY": memory, "LAMPLIGHT_QUERY_THREADS": str(threads) if threads else None}
    environ = {**os.environ, **{name: value for name, value in given.items() if value}}
    config = Config.build(environ, Path(root) if root else None, Path(catalogue) if catalogue else None)
    return open_catalogue(config.catalogue, config.limits)


def one_line(error: duckdb.Error) -> str:
    """A DuckDB error in one line, with its hint but without the echo of the query."""
    lines = (line.strip() for line in str(error).partition("\nLINE ")[0].splitlines())
    return " ".join(line for line in lines if line)


class Reader:
    """A catalogue opened for questions that others wrote: confined to the lake's files, and with limits.

    `writes` is a file that an answer may be copied to.
    """

    def __init__(self, path: Path, limits: Limits, writes: Path | None = None):
        self.path, self.limits = path, limits
        self._stamp = stamp(path)
        self.connection = open_catalogue(path, limits)
        try:
            self._confine(writes)
        except duckdb.Error as error:
            self.connection.close()
            raise SettingError(
                f"{path} is no catalogue of this version: publish it again ({one_line(error)})"
            ) from error

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def _confine(self, writes: Path | None) -> None:
        root = self.connection.execute("SELECT lake.root()").fetchall()[0][0]
        folders = ", ".join(quoted(f"{root}/{name}/") for name in READ_BELOW)
        files = quoted(str(writes)) if writes else ""
        self.connection.execute(
            f"SET allowed_directories = [{folders}]; SET allowed_paths = [{files}]; "
            "SET python_enable_replacements = false; SET enable_external_access = false; SET lock_configuration = true"
        )

    def is_current(self) -> bool:
        """Whether no other catalogue was published since this one was opened."""
        return stamp(self.path) == self._stamp

    def statements(self, text: str) -> list[str]:
        """The SELECT and EXPLAIN statements that a text consists of. Raises SettingError when it has another."""
        with self.asked():
            found = self.connection.extract_statements(text)
            for statement in found:
                if not self._is_reading(statement):
                    raise SettingError("the catalogue is read-only: give a SELECT (a PIVOT with its values: IN (...))")
        return [statement.query.strip().rstrip(";") for statement in found]

    def _is_reading(self, statement: duckdb.Statement) -> bool:
        if statement.type == duckdb.StatementType.EXPLAIN:
            # EXPLAIN ANALYZE runs what it explains, be it a COPY; with a comment before it, it is refused
            query = statement.query.strip()
            found = _EXPLAIN.match(query)
            inner = self.connection.extract_statements(query[found.end() :]) if found else []
            return [one.type for one in inner] == [duckdb.StatementType.SELECT]
        return statement.type == duckdb.StatementType.SELECT

    @contextmanager
    def asked(self, what: str = "query") -> Iterator[None]:
        """While `what` runs: interrupts it after the limit, and says in one line (SettingError) what went wrong."""
        try:
            with Watched(self.connection, self.limits.timeout_s):
                yield
        except duckdb.InterruptException as error:
            raise SettingError(
                f"{what} ended after {self.limits.timeout_s:g} s: ask for less, or raise LAMPLIGHT_QUERY_TIMEOUT_S "
                "(--timeout)"
            ) from error
        except duckdb.Error as error:
            raise SettingError(self._said(what, error)) from error

    def _said(self, what: str, error: duckdb.Error) -> str:
        line = one_line(error)
        if isinstance(error, duckdb.OutOfMemoryException):
            return (
                f"{what} needs more than {self.limits.memory} of memory: ask for less, or raise LAMPLIGHT_QUERY_MEMORY "
                f"(--memory) ({line})"
            )
        if "No space left" in line or "Could not write" in line:
            return f"{what} failed, the disk is full: make room, or change TMPDIR or --out ({line})"
        if "No files found" in line or "No such file" in line:
            if self.is_current():
                return f"{what} failed, files of {self.path} are gone: publish it again ({line})"
            return f"{what} failed, {self.path} was published again since: open it anew ({line})"
        return f"{what} failed: {line}"

"""`sql`: one question to the catalogue, answered as a table, CSV, JSON or Parquet."""

import argparse
import re
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import IO

import duckdb

from contracts.settings import SettingError
from warehouse.config import Config, Limits, Verbs, limit_options, limits_of
from warehouse.query import Reader

FORMATS = ("table", "csv", "json", "parquet")
MAX_TABLE_ROWS = 200
_TIMES = "TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%S.%fZ'"
_COPY_OPTIONS = {
    "csv": f"FORMAT csv, HEADER, {_TIMES}",
    "json": f"FORMAT json, ARRAY, {_TIMES}",
    "parquet": "FORMAT parquet",
}
_PARAMETER = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def add_parser(verbs: Verbs) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("sql", help="answer a SELECT")
    parser.add_argument("query", nargs="?", help="one SELECT (or -f)")
    parser.add_argument("-f", "--file", metavar="FILE", help="file that holds the query; - is standard input")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="$NAME in the query: a text that DuckDB casts to what it is compared with, like a quoted one "
        "(event_time > $since); elsewhere say the type ($n::INTEGER + 1)",
    )
    parser.add_argument("--format", choices=FORMATS, help="default: as the name of --out ends, else a table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write instead of standard output")
    limit_options(parser)
    parser.set_defaults(run=run)


def run(config: Config, options: argparse.Namespace) -> int:
    """Answer as the options say; raises SettingError."""
    ending = options.out.suffix.removeprefix(".").lower() if options.out else ""
    form = options.format or (ending if ending in FORMATS else "table")
    text = _text(options.query, options.file)
    answer(config.catalogue, text, form, options.out, limits_of(config, options), _parameters(options.param))
    return 0


def _text(query: str | None, file: str | None) -> str:
    if (query is None) == (file is None):
        raise SettingError("give one query: QUERY, or -f FILE")
    if file is None:
        return query or ""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"-f {file} cannot be read: {error}") from error


def _parameters(given: list[str]) -> dict[str, str]:
    found = [_PARAMETER.fullmatch(text) for text in given]
    for text, match in zip(given, found, strict=True):
        if match is None:
            raise SettingError(f"--param {text!r} is not NAME=VALUE")
    return {match[1]: match[2] for match in found if match}


def answer(
    path: Path, text: str, form: str, out: Path | None, limits: Limits, parameters: dict[str, str] | None = None
) -> None:
    """Answer one SELECT (or EXPLAIN) from the catalogue, to standard output or to a file that is replaced as a whole.

    CSV and JSON have times in ISO 8601 with a Z. Raises SettingError with one line for a query that is wrong, more
    than one statement, or one that would write, and for one that takes more than its limits.
    """
    if form == "parquet" and out is None and sys.stdout.isatty():
        raise SettingError("Parquet is not for a terminal: give --out FILE")
    with tempfile.TemporaryDirectory(prefix="lamplight-") as folder:
        aside = out.absolute().with_name(f".{out.name}.aside") if out else Path(folder) / "answer"
        with Reader(path, limits, writes=aside) as reader:
            queries = reader.statements(text)
            if not queries:
                raise SettingError("the query is empty: give one SELECT")
            if len(queries) != 1:
                raise SettingError("give exactly one SELECT")
            try:
                aside.unlink(missing_ok=True)
                with reader.asked():
                    _write(reader.connection, queries[0], form, aside, parameters or {})
                if out:
                    aside.replace(out)
            except OSError as error:
                raise SettingError(f"{out or aside} cannot be written ({error.strerror}): change --out") from error
            finally:
                aside.unlink(missing_ok=True) if out else None
        if out is None:
            _copy_out(aside)


def show(connection: duckdb.DuckDBPyConnection, query: str, target: IO[str], parameters: dict[str, str]) -> None:
    """Write the answer as a table: as wide as the terminal, up to MAX_TABLE_ROWS rows; of EXPLAIN the plan."""
    if query[:7].upper() == "EXPLAIN":
        for _, plan in connection.execute(query, parameters).fetchall():
            print(plan, file=target)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    relation = connection.sql(query, params=parameters)
    with redirect_stdout(target):
        relation.show(max_rows=MAX_TABLE_ROWS, max_width=width)


def _write(
    connection: duckdb.DuckDBPyConnection, query: str, form: str, path: Path, parameters: dict[str, str]
) -> None:
    if form == "table":
        with path.open("w", encoding="utf-8") as handle:
            show(connection, query, handle, parameters)
        return
    target = str(path).replace("'", "''")
    # the line break keeps a comment at the query's end from swallowing the bracket
    connection.execute(f"COPY (FROM ({query}\n)) TO '{target}' ({_COPY_OPTIONS[form]})", parameters)


def _copy_out(path: Path) -> None:
    with path.open("rb") as handle:
        shutil.copyfileobj(handle, sys.stdout.buffer)
    sys.stdout.flush()

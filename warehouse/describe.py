"""`describe`: what the views are for, what one row is, and what each column means."""

import argparse
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import duckdb

from contracts.settings import SettingError
from warehouse.config import Config, Verbs
from warehouse.query import open_catalogue
from warehouse.views import SCHEMAS

HEADINGS = SCHEMAS | {
    "lake": "The raw tables, conflicting copies included.",
    "main": "Reference tables, macros, and what this catalogue was built from.",
}
_TITLE = re.compile(r" (Grain|Key|Gives|Columns|Parameters|Example): ")
_UNIT = re.compile(r"(.*) \[([^]]+)\]", re.S)
_LISTED = """
SELECT schema_name, view_name, comment FROM duckdb_views() WHERE NOT internal
UNION ALL SELECT schema_name, table_name, comment FROM duckdb_tables() WHERE NOT internal
UNION ALL SELECT schema_name, function_name || '(' || array_to_string(parameters, ', ') || ')', comment
FROM duckdb_functions() WHERE NOT internal AND comment IS NOT NULL AND function_type IN ('macro', 'table_macro')
ORDER BY ALL"""


@dataclass(frozen=True, kw_only=True)
class Described:
    """A view, table or macro of the catalogue; a macro's name goes with its parameters."""

    schema: str
    name: str
    comment: str

    @property
    def full_name(self) -> str:
        return self.name if self.schema == "main" else f"{self.schema}.{self.name}"

    @property
    def bare_name(self) -> str:
        return self.name.partition("(")[0]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a view or table; `unit` is "" where a unit makes no sense."""

    name: str
    kind: str
    unit: str
    meaning: str


def add_parser(verbs: Verbs) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("describe", help="list views, tables and macros; or say all about one")
    parser.add_argument("name", nargs="?", help="a view, table or macro, with its schema or without")
    parser.set_defaults(run=run)


def run(config: Config, options: argparse.Namespace) -> int:
    """Print the list, or what is known of one name; raises SettingError."""
    with open_catalogue(config.catalogue) as connection:
        for line in about(connection, options.name) if options.name else overview(connection):
            print(line)
    return 0


def described(connection: duckdb.DuckDBPyConnection) -> list[Described]:
    """All views, tables and macros of the catalogue, by schema and name."""
    rows = connection.execute(_LISTED).fetchall()
    return [Described(schema=schema, name=name, comment=comment or "") for schema, name, comment in rows]


def overview(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Lines: each schema with its purpose, and below it what it holds."""
    ranks = {schema: rank for rank, schema in enumerate((*SCHEMAS, "main", "lake"))}
    found = sorted(described(connection), key=lambda one: (ranks.get(one.schema, len(ranks)), one.name))
    for schema, members in groupby(found, lambda one: one.schema):
        yield f"{schema}: {HEADINGS.get(schema, '')}"
        for one in members:
            yield f"  {one.full_name:30} {one.comment.partition(' Grain: ')[0]}"
        yield ""
    yield "`describe NAME` says what one row is, its key, its columns with their units, and an example."


def about(connection: duckdb.DuckDBPyConnection, name: str) -> Iterator[str]:
    """Lines on one view, table or macro. Raises SettingError that names the nearest when there is none of that name."""
    schema, _, bare = name.partition("(")[0].strip().lower().rpartition(".")
    known = described(connection)
    same = [one for one in known if one.bare_name.lower() == bare and schema in ("", one.schema)]
    # a name that is a view and a raw table of the lake is the view
    one = min(same, key=lambda found: found.schema == "lake", default=None)
    if one is None:
        raise SettingError(f"no view {name}: {_nearest(bare, known)}`python -m warehouse describe` lists them")
    yield one.full_name
    columns = _columns(connection, one)
    meaning, *said = _TITLE.split(one.comment)
    titles = dict(zip(said[::2], said[1::2], strict=True))
    if columns and "Key" in titles:
        titles.setdefault("Example", _example(one, columns))
    yield f"  {meaning}"
    if titles:
        yield ""
    for title, text in titles.items():
        yield f"  {title:10} {text if title == 'Example' else text.rstrip('.')}"
    if columns:
        yield ""
        widths = [max(len(getattr(column, part)) for column in columns) for part in ("name", "kind", "unit")]
        for column in columns:
            cells = zip((column.name, column.kind, column.unit), widths, strict=True)
            yield f"  {'  '.join(text.ljust(width) for text, width in cells)}  {column.meaning}"


def _nearest(bare: str, known: list[Described]) -> str:
    names = {one.bare_name: one.full_name for one in known}
    near = difflib.get_close_matches(bare, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(names[found] for found in near)}? " if near else ""


def _columns(connection: duckdb.DuckDBPyConnection, one: Described) -> list[Column]:
    rows = connection.execute(
        "SELECT column_name, data_type, comment FROM duckdb_columns() "
        "WHERE NOT internal AND schema_name = ? AND table_name = ? ORDER BY column_index",
        [one.schema, one.name],
    ).fetchall()
    found = []
    for name, kind, comment in rows:
        unit = _UNIT.fullmatch(comment or "")
        short = kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
        found.append(
            Column(name=name, kind=short, unit=unit[2] if unit else "", meaning=unit[1] if unit else comment or "")
        )
    return found


def _example(one: Described, columns: list[Column]) -> str:
    """A query that any view of its columns answers quickly: the last hour, where a time tells the rows apart."""
    names = {column.name for column in columns}
    when = next((time for time in ("window_start", "event_time") if time in names), None)
    condition = f" WHERE {when} > now() - INTERVAL 1 HOUR" if when else ""
    return f"SELECT * FROM {one.full_name}{condition} LIMIT 10"

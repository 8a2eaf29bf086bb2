"""The SQL views: one file each in `sql/{schema}/`, whose first lines say meaning, grain and key.

    -- Meaning in one or more lines.
    -- Grain: what one row is
    -- Key: columns that tell rows apart
    -- Columns: the contract's table whose descriptions the columns have
    -- Column name [unit]: description (of a column that the table does not have)
    -- Since: the moment from which on a view without a parameter reads, where that is not everything
    -- Example: a query, where `describe` would not find a telling one itself
    -- Reads: other views, or parts (`sql/parts/`, of the same form), that the body selects from
    -- Wide: streams, for whose quantities `$wide` in the body becomes a column each

Views read `lake` and the reference tables. What a view reads besides is carried in it as common table expressions, so
that each is computed once; no view of the catalogue refers to another. A name stands in one schema only, so that it can
be used without it. Where a text holds `$since`, a view reads the whole lake (or from `-- Since:` on), and a table macro
`{view}_since(since)` beside it reads what it needs from a moment on.

Raw views of the lake's tables have no file: they are rendered from the contract.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pyarrow as pa

from contracts.implied import IMPLIED
from contracts.quantities import of_stream
from contracts.schemas import TABLES, Table
from warehouse.reference import REFERENCE

SQL = Path(__file__).parent / "sql"
PARTS = "parts"
SCHEMAS = {
    "readings": "What the lampposts sent, each message once, typed and flagged.",
    "minutes": "Mergeable state of single minutes.",
    "windows": "Values of longer windows, of one quantity or of a subject.",
    "city": "Where the posts stand and what they carry.",
    "quality": "What became of every message, and how far values can be trusted.",
    "open": "What was published.",
    "questions": "Answers to what departments ask again and again, each with how to read it.",
}
ALWAYS = "TIMESTAMPTZ '1970-01-03 00:00:00Z'"  # no event time is earlier than 1970

DUCKDB_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.date32(): "DATE",
    pa.binary(): "BLOB",
    pa.timestamp("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}


@dataclass(frozen=True, kw_only=True)
class View:
    """A view of the catalogue; `columns` holds what is said of each of its columns, by name; `schema` is one of
    SCHEMAS, or lake."""

    schema: str
    name: str
    meaning: str
    grain: str
    key: str
    body: str
    columns: dict[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    since: str = ALWAYS
    example: str = ""

    @property
    def text(self) -> str:
        """The query without a parameter: over the whole lake, or from `since` on."""
        return self.body.replace("$since", self.since)

    @property
    def macro(self) -> str | None:
        """The query from a moment on, with the parameter `since`; None when it knows no such moment."""
        return self.body.replace("$since", "since") if "$since" in self.body else None

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def comment(self) -> str:
        example = f" Example: {self.example}" if self.example else ""
        return f"{self.meaning} Grain: {self.grain}. Key: {self.key}.{example}"


def column_comments(schema: pa.Schema) -> dict[str, str]:
    """What the contract says of each field, its unit in brackets."""
    said = {}
    for column in schema:
        unit = column.metadata[b"unit"].decode()
        said[column.name] = column.metadata[b"description"].decode() + (f" [{unit}]" if unit else "")
    return said


_TITLES = re.compile(r"-- (Grain|Key|Columns|Reads|Since|Gives|Wide|Example): (.+)")
_NAMED = re.compile(r"-- (Column|Parameter) (\w+)( \[[^]]+\])?: (.+)")


@dataclass(frozen=True, kw_only=True)
class Head:
    """What the first lines of a file say, and the text below them. `named`: by Column or Parameter, then by name."""

    meaning: str
    titles: dict[str, str]
    named: dict[str, dict[str, str]]
    body: str


def parse_head(text: str) -> Head:
    """The head and the body of a file of `sql/`."""
    meaning: list[str] = []
    titles: dict[str, str] = {}
    named: dict[str, dict[str, str]] = {"Column": {}, "Parameter": {}}
    lines = text.splitlines()
    head = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    for line in lines[:head]:
        if title := _TITLES.fullmatch(line):
            titles[title[1]] = title[2].rstrip(".")
        elif one := _NAMED.fullmatch(line):
            named[one[1]][one[2]] = one[4] + (one[3] or "")
        else:
            meaning.append(line.removeprefix("--").strip())
    body = "\n".join(lines[head:]).strip().rstrip(";")
    return Head(meaning=" ".join(meaning), titles=titles, named=named, body=body)


def parse_view(schema: str, name: str, text: str) -> View:
    """A view from its file. Raises ValueError when its first lines lack the meaning, the grain or the key."""
    head = parse_head(text)
    titles = head.titles
    if not head.meaning or not {"Grain", "Key"} <= titles.keys():
        raise ValueError(f"{name}.sql must begin with its meaning, `-- Grain:` and `-- Key:`")
    inherited = {}
    if source := titles.get("Columns"):
        schemas = {table.name: table.schema for table in TABLES.values()} | REFERENCE
        inherited = column_comments(schemas[source])
    wide = [row for stream in titles.get("Wide", "").split(", ") for row in of_stream(stream)]
    inherited |= {row.name: f"{row.title}. {row.description} [{row.unit}]" for row in wide}
    # of a group's rows in long form, one has the quantity
    values = (f"any_value(value) FILTER (quantity = {quoted(row.name)}) AS {row.name}" for row in wide)
    return View(
        schema=schema,
        name=name,
        meaning=head.meaning,
        grain=titles["Grain"],
        key=titles["Key"],
        body=head.body.replace("$wide", ",\n    ".join(values)),
        columns=inherited | head.named["Column"],
        reads=tuple(titles["Reads"].split(", ")) if "Reads" in titles else (),
        since=titles.get("Since", ALWAYS),
        example=titles.get("Example", ""),
    )


def carrying(view: View, known: Mapping[str, View]) -> View:
    """The view with all that it reads, directly or not, in its body. Raises ValueError when views read in a circle."""
    order: list[str] = []

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"{' reads '.join((*above, name))}: views must not read in a circle")
        for below in known[name].reads:
            add(below, (*above, name))
        if name not in order:
            order.append(name)

    for name in view.reads:
        add(name, (view.name,))
    if not order:
        return view
    carried = ",\n".join(f"{name} AS (\n{known[name].body}\n)" for name in order)
    return replace(view, body=f"WITH {carried}\nSELECT * FROM (\n{view.body}\n)")


def _read_all(*schemas: str) -> dict[str, View]:
    paths = sorted(path for schema in schemas for path in (SQL / schema).glob("*.sql"))
    return {path.stem: parse_view(path.parent.name, path.stem, path.read_text("utf-8")) for path in paths}


@cache
def sql_views() -> tuple[View, ...]:
    """Every view in `sql/`, with what it reads."""
    views = _read_all(*SCHEMAS)
    return tuple(carrying(view, views | _read_all(PARTS)) for view in views.values())


def questions(folder: str) -> dict[str, View]:
    """The texts of `sql/{folder}/`, of the same form as views but asked by a command, with what they read: each other,
    parts and views."""
    own = _read_all(folder)
    known = _read_all(*SCHEMAS, PARTS) | own
    return {name: carrying(view, known) for name, view in own.items()}


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def no_rows(schema: pa.Schema) -> str:
    """A query with these columns and no rows."""
    nulls = ", ".join(f'NULL::{DUCKDB_TYPES[column.type]} AS "{column.name}"' for column in schema)
    return f"SELECT {nulls} WHERE false"


SPLIT = "|"  # no path of the lake's has one


def raw_rows(table: Table, files: list[str]) -> str:
    """What the macro `lake.{table}_files()` gives: the rows of an exact list of Parquet files, by their paths below
    `lake.root()`; without files: the right columns and no rows."""
    if not files:
        return no_rows(table.schema)
    implied = IMPLIED.get(table.name, {})
    columns = ", ".join(
        f'coalesce("{name}", {implied[name]}) AS "{name}"' if name in implied else f'"{name}"'
        for name in table.schema.names
    )
    # one text, split: of a list of texts each is bound and written by itself
    source = f"list_transform(string_split({quoted(SPLIT.join(files))}, {quoted(SPLIT)}), lambda f: lake.root() || f)"
    return f"SELECT {columns} FROM read_parquet({source}, hive_partitioning = false)"


def raw_view(table: Table) -> View:
    """A table of the lake. It reads a macro, so that a publishing replaces that and not the view with its comments."""
    key = ", ".join(table.key) + (", digest" if table.is_reading else "")
    meaning = f"Raw table of the lake, conflicting copies included. {table.description}"
    return View(
        schema="lake",
        name=table.name,
        meaning=meaning if table.is_reading else f"Raw table of the lake. {table.description}",
        grain="as the table says",
        key=key,
        body=f"FROM lake.{table.name}_files()",
        columns=column_comments(table.schema),
    )

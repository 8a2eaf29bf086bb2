"""The SQL views: one file each in `sql/`, whose first lines say meaning, grain and key.

    -- Meaning in one or more lines.
    -- Grain: what one row is
    -- Key: columns that tell rows apart
    -- Columns: the contract's table whose descriptions the columns have
    -- Column name [unit]: description (of a column that the table does not have)

Raw views of the lake's tables have no file: they are rendered from the contract.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pyarrow as pa

from contracts.schemas import TABLES, Table
from warehouse.reference import REFERENCE

SQL = Path(__file__).parent / "sql"

DUCKDB_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.timestamp("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}


@dataclass(frozen=True, kw_only=True)
class View:
    """A view of the catalogue; `columns` holds what is said of each of its columns, by name."""

    name: str
    meaning: str
    grain: str
    key: str
    body: str
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def comment(self) -> str:
        return f"{self.meaning} Grain: {self.grain}. Key: {self.key}."


def column_comments(schema: pa.Schema) -> dict[str, str]:
    """What the contract says of each field, its unit in brackets."""
    said = {}
    for column in schema:
        unit = column.metadata[b"unit"].decode()
        said[column.name] = column.metadata[b"description"].decode() + (f" [{unit}]" if unit else "")
    return said


_TITLES = re.compile(r"-- (Grain|Key|Columns): (.+)")
_COLUMN = re.compile(r"-- Column (\w+)( \[[^]]+\])?: (.+)")


def parse_view(name: str, text: str) -> View:
    """A view from its file. Raises ValueError when its first lines lack the meaning, the grain or the key."""
    meaning: list[str] = []
    titles: dict[str, str] = {}
    own: dict[str, str] = {}
    lines = text.splitlines()
    head = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    for line in lines[:head]:
        if title := _TITLES.fullmatch(line):
            titles[title[1]] = title[2].rstrip(".")
        elif column := _COLUMN.fullmatch(line):
            own[column[1]] = column[3] + (column[2] or "")
        else:
            meaning.append(line.removeprefix("--").strip())
    if not meaning or not {"Grain", "Key"} <= titles.keys():
        raise ValueError(f"{name}.sql must begin with its meaning, `-- Grain:` and `-- Key:`")
    inherited = {}
    if source := titles.get("Columns"):
        schemas = {table.name: table.schema for table in TABLES.values()} | REFERENCE
        inherited = column_comments(schemas[source])
    return View(
        name=name,
        meaning=" ".join(meaning),
        grain=titles["Grain"],
        key=titles["Key"],
        body="\n".join(lines[head:]).strip().rstrip(";"),
        columns=inherited | own,
    )


@cache
def sql_views() -> tuple[View, ...]:
    """Every view in `sql/`, by name. They read `lake` and the reference tables, never each other."""
    return tuple(parse_view(path.stem, path.read_text("utf-8")) for path in sorted(SQL.glob("*.sql")))


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def raw_view(table: Table, files: list[str]) -> View:
    """A table of the lake over an exact list of Parquet files; without files: the right columns and no rows."""
    if files:
        columns = ", ".join(f'"{name}"' for name in table.schema.names)
        source = ", ".join(map(quoted, files))
        body = f"SELECT {columns} FROM read_parquet([{source}], hive_partitioning = false)"
    else:
        nulls = ", ".join(f'NULL::{DUCKDB_TYPES[column.type]} AS "{column.name}"' for column in table.schema)
        body = f"SELECT {nulls} WHERE false"
    key = ", ".join(table.key) + (", digest" if table.is_reading else "")
    meaning = f"Raw table of the lake, conflicting copies included. {table.description}"
    return View(
        name=table.name,
        meaning=meaning if table.is_reading else f"Raw table of the lake. {table.description}",
        grain="as the table says",
        key=key,
        body=body,
        columns=column_comments(table.schema),
    )

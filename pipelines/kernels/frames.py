"""Frames in a table's schema: the one place where Polars types meet the Arrow contract."""

import polars as pl

from contracts.schemas import Table

_EMPTY: dict[str, pl.DataFrame] = {}


def schema_of(table: Table) -> pl.Schema:
    """A table's schema in Polars types."""
    return empty(table).schema


def conform(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """The table's columns in order and type; integers that stand for times become times.

    Columns that the frame lacks are null, except `is_conflicting`, which uniting decides.
    """
    schema = schema_of(table)
    columns = []
    for name, kind in schema.items():
        if name in frame.columns:
            columns.append(pl.col(name).cast(kind))
        elif name == "is_conflicting":
            columns.append(pl.lit(False).alias(name))
        else:
            columns.append(pl.lit(None, dtype=kind).alias(name))
    return frame.select(columns)


def empty(table: Table) -> pl.DataFrame:
    """A frame of the table without rows; made once, because a tick asks for hundreds."""
    found = _EMPTY.get(table.name)
    if found is None:
        found = _EMPTY[table.name] = pl.DataFrame(table.schema.empty_table())
    return found

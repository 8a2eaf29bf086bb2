"""Rows as they lie on disk, where a value that others of the row imply is null (contracts.implied), and back."""

from collections.abc import Sequence

import polars as pl

from contracts.implied import IMPLIED
from contracts.schemas import Table

_EXPRESSIONS = {
    table: {column: pl.sql_expr(text) for column, text in columns.items()} for table, columns in IMPLIED.items()
}


def thin(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Whole rows of a table as they are written."""
    implied = _EXPRESSIONS.get(table.name, {})
    return rows.with_columns(
        pl.when(pl.col(column).eq_missing(value)).then(None).otherwise(pl.col(column)).alias(column)
        for column, value in implied.items()
    )


def whole(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Rows as they were before `thin`; of the columns that are there, those that they need must be."""
    implied = _EXPRESSIONS.get(table.name, {})
    return rows.with_columns(
        pl.coalesce(column, value).alias(column) for column, value in implied.items() if column in rows.columns
    )


def needed(names: Sequence[str], table: Table) -> list[str]:
    """Columns to read so that these can be made whole."""
    implied = _EXPRESSIONS.get(table.name, {})
    others = [root for name in names if name in implied for root in implied[name].meta.root_names()]
    return list(dict.fromkeys([*names, *others]))

"""Readings form a set (law 3): uniting is idempotent, commutative and associative.

Among copies that are equal the least received_time stays. Among messages with one key and different bytes the least
digest is the reading; the others stay, marked `is_conflicting`.
"""

import polars as pl

from contracts.schemas import MESSAGE_KEY, QUARANTINE, Table


def message_key(table: Table) -> list[str]:
    """Columns that name a message within a table."""
    if table.name == QUARANTINE.name:
        return list(QUARANTINE.key)
    extra = [name for name in ("stream", "kind") if name in table.key]
    return [*extra, *MESSAGE_KEY]


def unite(existing: pl.DataFrame, new: pl.DataFrame, table: Table) -> pl.DataFrame:
    """The union of two sets of rows of one table, in no order. Blocks may be mixed."""
    rows = pl.concat([existing, new]).sort("received_time").unique(subset=table.identity, keep="first")
    if table.is_reading:
        least = pl.col("digest").min().over(message_key(table))
        rows = rows.with_columns(is_conflicting=pl.col("digest") != least)
    return rows


def readings(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows that count: those of messages that no lesser copy outranks."""
    return frame.filter(~pl.col("is_conflicting"))

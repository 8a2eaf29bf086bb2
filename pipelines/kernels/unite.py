"""Readings form a set (law 3): uniting is idempotent, commutative and associative.

Among copies that are equal the least received_time stays. Among messages with one key and different bytes the least
digest is the reading; the others stay, marked `is_conflicting`.
"""

import polars as pl

from contracts.schemas import DUPLICATES, MESSAGE_KEY, QUARANTINE, Table
from pipelines.kernels.frames import conform


def message_key(table: Table) -> list[str]:
    """Columns that name a message within a table."""
    if table.name == QUARANTINE.name:
        return list(QUARANTINE.key)
    extra = [name for name in ("stream", "kind") if name in table.key]
    return [*extra, *MESSAGE_KEY]


def unite(existing: pl.DataFrame, new: pl.DataFrame, table: Table) -> pl.DataFrame:
    """The union of two sets of rows of one table, in no order. Blocks may be mixed.

    Of rows that are told apart by nothing but their content, which another decoder or registry made, the existing one
    stays: superseding is what replaces it.
    """
    rows = pl.concat([existing, new]).sort("received_time", maintain_order=True)
    rows = rows.unique(subset=table.identity, keep="first")
    if table.is_reading:
        least = pl.col("digest").min().over(message_key(table))
        rows = rows.with_columns(is_conflicting=pl.col("digest") != least)
    return rows


def new_rows(known: pl.DataFrame, new: pl.DataFrame, table: Table) -> pl.DataFrame | None:
    """The rows that `unite` adds to a set of which `known` are those with a message key of `new`; None when it changes
    any of these, so that adding is not enough."""
    united = unite(known, new, table)
    if known.is_empty():
        return united
    columns = [*table.identity, "received_time", "is_conflicting"]
    if united.join(known, on=columns, how="semi").height < known.height:
        return None
    return united.join(known, on=table.identity, how="anti")


def supersede(existing: pl.DataFrame, gone: pl.DataFrame, new: pl.DataFrame, table: Table) -> pl.DataFrame:
    """The union with `new` of what is left without `gone`: rows that the messages of `new` made when they were judged
    before."""
    return unite(existing.join(gone, on=table.identity, how="anti"), new, table)


def readings(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows that count: those of messages that no lesser copy outranks."""
    return frame.filter(~pl.col("is_conflicting"))


def extra_copies(existing: pl.DataFrame, new: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Rows of DUPLICATES: what `unite` leaves out because an equal message was received earlier.

    A copy that was once extra stays extra, so the set of all of them depends on what landed and not on its order.
    Wills have no seq and are left out.
    """
    columns = ["received_time", "digest"]
    # most messages land once, and two integers tell so at a tenth of the cost of the whole name
    receipts = pl.concat([existing.select(columns), new.select(columns)]).unique()
    several = receipts.filter(pl.col("digest").is_duplicated())["digest"].unique()
    rows = pl.concat([frame.filter(pl.col("digest").is_in(several.implode())) for frame in (existing, new)])
    if table.stream is not None:
        rows = rows.with_columns(stream=pl.lit(table.stream))
    if "kind" in table.key:
        rows = rows.filter(pl.col("kind") != "will")
    rows = rows.select(DUPLICATES.schema.names).unique()
    message = [name for name in DUPLICATES.key if name != "received_time"]
    return conform(rows.filter(pl.col("received_time") > pl.col("received_time").min().over(message)), DUPLICATES)

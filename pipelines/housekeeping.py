"""Compaction and vacuum as part of the running system. Closed hours become one sorted file; replaced files go after
minutes (the table's deletedFileRetentionDuration)."""

from pathlib import Path

import polars as pl
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError

from contracts.schemas import TABLES, Table
from contracts.times import US, from_us
from pipelines.lake import file_bounds, open_table

HOUR_US = 3600 * US
SETTLED_US = 2 * HOUR_US  # an hour is compacted this long after its end: most late readings are in by then
MANY_FILES = 8


def compact(root: Path, table: Table, now_us: int) -> int:
    """Rewrite each settled hour that lies in many files as one, sorted for pruning; the number of hours rewritten.

    Rows are untouched; a writer that wins a block meanwhile makes this attempt void, and the next one finds the hour
    again.
    """
    handle = open_table(root, table.name)
    counts: dict[int, int] = {}
    for _, low_us, _ in file_bounds(handle, table):
        counts[low_us // HOUR_US] = counts.get(low_us // HOUR_US, 0) + 1
    done = 0
    for hour, files in sorted(counts.items()):
        if files < MANY_FILES or (hour + 1) * HOUR_US + SETTLED_US > now_us:
            continue
        start, end = from_us(hour * HOUR_US), from_us((hour + 1) * HOUR_US)
        handle = open_table(root, table.name)
        column = pl.col(table.time)
        rows = pl.scan_delta(handle).filter((column >= start) & (column < end)).collect()
        order = list(dict.fromkeys(["post_id" if "post_id" in rows.columns else table.time, table.time, *table.key]))
        predicate = f"{table.time} >= '{start.isoformat()}' AND {table.time} < '{end.isoformat()}'"
        content = rows.select(table.schema.names).sort(order).to_arrow().cast(table.schema)
        try:
            write_deltalake(handle, content, mode="overwrite", predicate=predicate)
        except CommitFailedError:
            return done
        done += 1
    return done


def tidy(root: Path, now_us: int) -> dict[str, int]:
    """Compact and vacuum every table; files removed per table."""
    removed = {}
    for table in TABLES.values():
        compact(root, table, now_us)
        removed[table.name] = len(open_table(root, table.name).vacuum(dry_run=False))
    return removed

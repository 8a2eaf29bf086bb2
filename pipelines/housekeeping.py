"""Compaction and vacuum as part of the running system. Closed spans become one sorted file; replaced files go after
minutes (the table's deletedFileRetentionDuration)."""

from collections import Counter
from pathlib import Path

import polars as pl
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError

from contracts.schemas import ANNOUNCEMENTS, TABLES, Table
from contracts.times import US, from_us
from pipelines.lake import HOOKS, commit_properties, file_bounds, open_table
from pipelines.parquet import order, small

# (length, age after its end at which a span is compacted), seconds: ten minutes when most stragglers are in, so that a
# commit has few files to look through; an hour when late readings are in.
SPANS_S = ((600, 900), (3600, 7200))
MANY_FILES = 4
TIDY_S = 300  # between two rounds of compaction and vacuum


def compact(root: Path, table: Table, now_us: int) -> int:
    """Rewrite each settled span that lies in many files as one, sorted for pruning; the number of spans rewritten.

    Rows are untouched; a writer that wins a block meanwhile makes this attempt void, and the next one finds the span
    again.
    """
    if table is ANNOUNCEMENTS:
        return _join(root, table)
    done = 0
    for length_s, age_s in SPANS_S:
        length_us = length_s * US
        counts = Counter(low_us // length_us for _, low_us, _ in file_bounds(open_table(root, table.name), table))
        for span, files in sorted(counts.items()):
            if files >= MANY_FILES and (span + 1) * length_us + age_s * US <= now_us:
                try:
                    _rewrite(root, table, span * length_us, (span + 1) * length_us)
                except CommitFailedError:
                    return done
                done += 1
    return done


def _join(root: Path, table: Table) -> int:
    """One file of a table of few rows, which everybody asks for who recomputes or queries a window."""
    bounds = file_bounds(open_table(root, table.name), table)
    if len(bounds) < MANY_FILES:
        return 0
    try:
        _rewrite(root, table, min(low for _, low, _ in bounds), max(high for _, _, high in bounds) + 1)
    except CommitFailedError:
        return 0
    return 1


def _rewrite(root: Path, table: Table, start_us: int, end_us: int) -> None:
    handle = open_table(root, table.name)
    start, end = from_us(start_us), from_us(end_us)
    column = pl.col(table.time)
    rows = pl.scan_delta(handle).filter((column >= start) & (column < end)).select(table.schema.names).collect()
    predicate = f"{table.time} >= '{start.isoformat()}' AND {table.time} < '{end.isoformat()}'"
    content = rows.sort(order(table)).to_arrow().cast(table.schema)
    write_deltalake(
        handle,
        content,
        mode="overwrite",
        predicate=predicate,
        writer_properties=small(table),
        commit_properties=commit_properties(()),
        post_commithook_properties=HOOKS,
    )


def compact_all(root: Path, now_us: int) -> None:
    """Compact every table."""
    for table in TABLES.values():
        compact(root, table, now_us)


def vacuum(root: Path) -> dict[str, int]:
    """Remove replaced files and log entries whose time has passed; files removed per table.

    The versions that replaced them must be durable: a power cut that undid one would need its files again.
    """
    removed = {}
    for table in TABLES.values():
        handle = open_table(root, table.name)
        removed[table.name] = len(handle.vacuum(dry_run=False, post_commithook_properties=HOOKS))
        handle.cleanup_metadata()
    return removed

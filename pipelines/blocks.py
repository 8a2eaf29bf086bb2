"""Blocks: the minutes of a table's time column, which are the unit of work (law 4)."""

from collections.abc import Iterable
from datetime import datetime

import polars as pl

from contracts.schemas import Table
from contracts.times import MINUTE_US, from_us


def ranges(blocks: Iterable[int]) -> list[tuple[datetime, datetime]]:
    """Blocks (minutes since 1970) as the fewest time spans [start, end)."""
    return [(from_us(first * MINUTE_US), from_us(end * MINUTE_US)) for first, end in spans(blocks)]


def spans(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Blocks as the fewest spans [first, end)."""
    found: list[tuple[int, int]] = []
    for block in sorted(set(blocks)):
        if found and found[-1][1] == block:
            found[-1] = found[-1][0], block + 1
        else:
            found.append((block, block + 1))
    return found


def any_of(terms: Iterable[str]) -> str:
    """SQL terms joined by OR as a balanced tree. A plain chain is a tree as deep as it is long: 3,500 spans, which a
    device that sends old readings here and there makes, overflowed Delta's stack and ended the process."""
    found = list(terms)
    while len(found) > 1:
        found = [
            found[at] if at + 1 == len(found) else f"({found[at]} OR {found[at + 1]})" for at in range(0, len(found), 2)
        ]
    return found[0]


def changed_posts(existing: pl.DataFrame, wanted: pl.DataFrame, table: Table) -> list[str] | None:
    """Posts whose rows differ; None where rows need not have one."""
    if "post_id" not in table.key:
        return None
    columns = table.schema.names
    pairs = (existing, wanted), (wanted, existing)
    differing = [one.join(other, columns, "anti", nulls_equal=True)["post_id"] for one, other in pairs]
    return pl.concat(differing).unique().sort().to_list()


def changed_blocks(existing: pl.DataFrame, wanted: pl.DataFrame, table: Table) -> set[int]:
    """Blocks whose rows differ, whatever their order."""
    if existing.is_empty():  # a third of the time behind decoding went into comparing with nothing
        return blocks_of(wanted, table)
    before, after = existing.sort(table.identity), wanted.sort(table.identity)
    if before.equals(after):
        return set()
    parts = [
        frame.partition_by("block", as_dict=True) for frame in (_with_block(before, table), _with_block(after, table))
    ]
    none: pl.DataFrame = pl.DataFrame()
    return {
        int(str(key[0]))
        for key in parts[0].keys() | parts[1].keys()
        if not parts[0].get(key, none).equals(parts[1].get(key, none))
    }


def block(table: Table) -> pl.Expr:
    """The block of a row."""
    return pl.col(table.time).dt.epoch("us") // MINUTE_US


def _with_block(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    return frame.with_columns(block=block(table))


def blocks_of(frame: pl.DataFrame, table: Table) -> set[int]:
    """Blocks that a frame's rows lie in."""
    return set(frame.select(block(table).unique()).to_series().to_list())

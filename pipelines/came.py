"""Which minutes are made anew: those of the posts whose readings came in, block by block.

A tick brings all posts in the open minute and a few that were late in the one before; to aggregate these whole was a
fifth of it. What has come counts, known before or not, so that a crash between readings and minutes heals.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow as pa

from contracts.schemas import Table
from pipelines import lake
from pipelines.blocks import block

# posts by block of a table of readings; None: any post in any dirty block
Came = Mapping[int, frozenset[str]] | None
MOST_BLOCKS = 16  # they are read one by one; more are what devices had stored, with little else in them
_ANEW_OR_REST: tuple[Literal["semi", "anti"], ...] = ("semi", "anti")


def came_in(table: Table, batches: Sequence[pa.RecordBatch]) -> Came:
    """The posts whose rows came in, by block of a table of readings; None when it is many blocks."""
    rows = pl.DataFrame(pa.Table.from_batches(batches))
    pairs = rows.select(block(table).alias("block"), "post_id").unique()
    found = pairs.group_by("block").agg("post_id")
    if found.height > MOST_BLOCKS:
        return None
    return {number: frozenset(posts) for number, posts in found.iter_rows()}


class Source:
    """A table of readings, and which of the minutes in dirty blocks are made anew of it."""

    def __init__(self, root: Path, table: Table, dirty: set[int], came: Mapping[str, Came] | None):
        self._root, self._table = root, table
        posts = None if came is None else came.get(table.name, {})
        self._posts: dict[int, frozenset[str] | None] = dict.fromkeys(dirty) if posts is None else dict(posts)

    def readings(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Those of the posts that came in, and of all posts where that is most of a block: to pick them out takes as
        long as to use all."""
        parts = [lake.read(self._root, self._table, self._whole, columns)]
        for number, posts in self._posts.items():
            if posts is None:
                continue
            rows = lake.read(self._root, self._table, {number}, columns)
            some = rows.filter(rows.get_column("post_id").is_in(pl.Series(list(posts)).implode()))
            if 2 * some.height > rows.height:
                self._posts[number], some = None, rows
            parts.append(some)
        return pl.concat(parts)

    def split(self, minutes: pl.DataFrame, table: Table) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Minutes in dirty blocks as they are: those that are made anew of `readings`, and the rest."""
        pairs = [(number, post) for number, posts in self._posts.items() for post in posts or ()]
        chosen = pl.DataFrame(pairs, schema={"block": pl.Int64, "post_id": pl.String}, orient="row")
        named = minutes.with_columns(block=block(table))
        is_whole = pl.col("block").is_in(list(self._whole))
        others = named.filter(~is_whole)
        anew, rest = (others.join(chosen, on=chosen.columns, how=how) for how in _ANEW_OR_REST)
        return pl.concat([named.filter(is_whole), anew]).drop("block"), rest.drop("block")

    @property
    def _whole(self) -> set[int]:
        return {number for number, posts in self._posts.items() if posts is None}

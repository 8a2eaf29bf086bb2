"""How compaction writes the lake's Parquet files: small, and so that few of their row groups answer a question.

Readings lie by post and time, so that statistics of row groups tell which hold a post, and what a message's rows have
in common stands together. Derived tables lie by post, quantity (direction) and time, because the values of a series
resemble each other. Live commits keep Delta's defaults: their files are written anew within the hour. Encodings are
those that every reader of Parquet knows; figures are in ARCHITECTURE.md (`python -m bench.storage`).
"""

from typing import Literal

import pyarrow as pa
from deltalake import ColumnProperties, WriterProperties

from contracts.schemas import HOURS, Table

# A few posts' day of observations: a question about one post of 400 decodes a hundredth of the day. Half as many rows
# take 3 % more bytes, twice as many 2 % less.
ROW_GROUP_ROWS = 65_536
# of hours a month of one post is asked for at once: with half the rows the footers take longer to read, with twice as
# many the groups
HOURS_GROUP_ROWS = 32_768
# 8 % less than level 3 at the most; 19 takes 3 % off and ten times as long
LEVEL = 9
# numbers that step by one
_COUNTED = {"seq", "first_seq"}
# plain: either hardly a value comes twice (a dictionary would hold them all, and an index besides), or a stretch of
# values comes again as a whole, as that of a message's times does for each of its quantities, which zstd sees and
# packed differences hide
_PLAIN = {
    "last_event_time",
    "digest",
    "inverse_speed_sum_h_km",
    "speed_sum_kmh",
    "space_mean_speed_kmh",
    "value_sum_squares",
    "sin_speed_sum_ms",
    "cos_speed_sum_ms",
}


def order(table: Table) -> list[str]:
    """Columns by which the rows of a compacted file are sorted."""
    first = ["post_id"] if "post_id" in table.key else []
    return list(dict.fromkeys([*first, *([] if table.is_derived else [table.time]), *table.identity]))


def small(table: Table) -> WriterProperties:
    """How to write a table's compacted files."""
    rows = HOURS_GROUP_ROWS if table is HOURS else ROW_GROUP_ROWS
    return WriterProperties(
        compression="ZSTD",
        compression_level=LEVEL,
        max_row_group_size=rows,
        data_page_row_count_limit=rows,  # each page is compressed by itself
        column_properties={column.name: _column(table, column) for column in table.schema},
    )


def _column(table: Table, column: pa.Field) -> ColumnProperties:
    # what no question leaves rows out by needs no bounds in each row group and in each entry of Delta's log
    is_sought = column.name in {"post_id", "received_time", table.time, *table.key} - {"boot_id", *_COUNTED}
    bounds: Literal["CHUNK", "NONE"] = "CHUNK" if is_sought else "NONE"
    if column.name in _PLAIN:
        return ColumnProperties(statistics_enabled=bounds, encoding="PLAIN")
    if pa.types.is_timestamp(column.type) or column.name in _COUNTED:
        return ColumnProperties(statistics_enabled=bounds, encoding="DELTA_BINARY_PACKED")
    return ColumnProperties(statistics_enabled=bounds, dictionary_enabled=True)

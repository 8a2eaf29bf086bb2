"""What the Parquet files of the lake say of themselves."""

from datetime import datetime
from functools import lru_cache

import pyarrow.parquet as pq

from contracts.schemas import Table


def time_span(table: Table, paths: list[str]) -> tuple[datetime | None, datetime | None]:
    """The least and greatest time in files of a table together, from their footers; (None, None) without rows."""
    found = [_times(path, table.time) for path in paths]
    return min((low for low, _ in found), default=None), max((high for _, high in found), default=None)


@lru_cache(maxsize=100_000)
def _times(path: str, column: str) -> tuple[datetime, datetime]:
    """A file never changes: its footer is read once."""
    footer = pq.read_metadata(path)
    number = footer.schema.names.index(column)
    groups = [footer.row_group(group).column(number).statistics for group in range(footer.num_row_groups)]
    return min(group.min for group in groups), max(group.max for group in groups)

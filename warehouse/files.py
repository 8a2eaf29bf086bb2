"""Which Parquet files a version of a table has, and what they say of themselves."""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from contracts.layout import stamp
from contracts.schemas import Table


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Names of the files of a version; `entry` is its log entry's stamp, by which a table differs from another that was
    made later in its place."""

    entry: tuple[int, int, int] | None
    version: int
    names: frozenset[str]


def listed(folder: Path, version: int, before: Listed | None = None) -> Listed:
    """The files of a version of the table in `folder`, known from the log entries since `before` where they are there.

    A handle that is brought forward slows with each commit that it has seen, and a new one reads the whole log. Raises
    DeltaError when there is no such version.
    """
    entries = folder / "_delta_log"
    names = None
    if before and before.entry and before.version <= version and before.entry == stamp(_entry(entries, before.version)):
        names = _forward(entries, before.names, range(before.version + 1, version + 1))
    if names is None:
        # (addresses would have %20 for a space of the folder's)
        actions = DeltaTable(str(folder), version=version).get_add_actions()
        names = frozenset(pa.table(actions)["path"].to_pylist())
    return Listed(entry=stamp(_entry(entries, version)), version=version, names=names)


def _entry(entries: Path, version: int) -> Path:
    return entries / f"{version:020d}.json"


def _forward(entries: Path, names: frozenset[str], versions: range) -> frozenset[str] | None:
    """The names after the log entries of these versions; None when one of them is gone or cannot be read."""
    found = set(names)
    try:
        for version in versions:
            for line in _entry(entries, version).read_bytes().splitlines():
                action = json.loads(line)
                if "remove" in action:
                    found.discard(unquote(action["remove"]["path"]))
                elif "add" in action:
                    found.add(unquote(action["add"]["path"]))
    except (FileNotFoundError, KeyError, ValueError, TypeError):
        return None
    return frozenset(found)


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

"""Commits of our own to a Delta table: some files go, some come, in a log entry made as Delta makes its own (named only
if nobody has that version).

Delta's replacement by a predicate plans a query: it took 21 to 30 ms of a tick for each table where writing the file
and the entry takes 4. Its own bulk writes, compaction's and these exclude one another by the same rule: whoever's entry
comes first wins, and who finds that a file it removes or a block it changes has been changed since begins anew.
"""

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow.parquet as pq

from contracts.schemas import Table
from contracts.times import isoformat
from pipelines.blocks import spans
from pipelines.files import Pinned, entry
from pipelines.parquet import ROW_GROUP_ROWS
from pipelines.sparse import thin

# each commit says which blocks it changes, so that others need not take a rewritten file for changed rows
BLOCKS = "lamplight_blocks"


class Conflict(Exception):
    """Another writer came first: what was read must be read again."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a log entry says: files that go (bytes by name) and come (as Delta's log adds them), and the blocks whose
    rows change; a compaction changes none."""

    operation: str
    removed: Mapping[str, int]
    added: Sequence[Mapping[str, Any]]
    blocks: frozenset[int] = frozenset()

    def lines(self) -> str:
        """The entry."""
        now_ms = time.time_ns() // 1_000_000
        metrics = {"num_added_files": len(self.added), "num_removed_files": len(self.removed)}
        told = {"timestamp": now_ms, "operation": self.operation, "operationParameters": {}, "engineInfo": "lamplight"}
        gone = {"deletionTimestamp": now_ms, "extendedFileMetadata": True, "partitionValues": {}}
        gone["dataChange"] = bool(self.blocks)
        actions: list[dict[str, Any]] = [{"commitInfo": told | {"operationMetrics": metrics} | said(self.blocks)}]
        actions += [{"remove": {"path": name, "size": size, **gone}} for name, size in self.removed.items()]
        actions += [{"add": {**action, "dataChange": bool(self.blocks)}} for action in self.added]
        return "".join(json.dumps(action) + "\n" for action in actions)


def said(blocks: frozenset[int]) -> dict[str, str]:
    """What a commit says of itself: the blocks whose rows it changes."""
    return {BLOCKS: " ".join(f"{first}-{end}" for first, end in spans(blocks))}


def told(path: Path) -> set[int] | None:
    """The blocks that a log entry says it changes; None when it says nothing."""
    return _told(_actions(path))


def commit(pinned: Pinned, change: Change) -> int:
    """Name the log entry behind a version, or behind those that others have made since; its version. Raises Conflict
    when one of those has changed a file that goes or a block that changes; then nothing has happened."""
    log, version = pinned.folder / "_delta_log", pinned.version
    aside = log / f"_commit_{uuid.uuid4()}.json.tmp"  # named as Delta names its own
    aside.write_text(change.lines())
    try:
        while True:
            version += 1
            try:
                os.link(aside, entry(log, version))
            except FileExistsError:
                _give_way(change, entry(log, version))
                continue
            # old entries are cleaned up oldest first: only where the one before is there, this one was never
            if not entry(log, version - 1).exists():
                entry(log, version).unlink()
                raise Conflict(f"version {version - 1} of {pinned.folder} has been cleaned up meanwhile")
            return version
    finally:
        aside.unlink()


def _give_way(change: Change, other: Path) -> None:
    actions = _actions(other)
    removed = {unquote(action["remove"]["path"]) for action in actions if "remove" in action}
    is_foreign = any(name in action for action in actions for name in ("add", "remove"))
    others = _told(actions)
    is_changed = is_foreign if others is None else not others.isdisjoint(change.blocks)
    if (is_changed and change.blocks) or not removed.isdisjoint(change.removed):
        raise Conflict(f"{other} has changed what was to be replaced")


def _actions(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _told(actions: Sequence[Mapping[str, Any]]) -> set[int] | None:
    for action in actions:
        words = action.get("commitInfo", {}).get(BLOCKS)
        if words is not None:
            found = [span.split("-") for span in words.split()]
            return {block for first, end in found for block in range(int(first), int(end))}
    return None


def add_file(folder: Path, table: Table, rows: pl.DataFrame) -> dict[str, Any]:
    """Write rows (at least one) as a file of a table in its folder; the file as a log entry adds it, with the bounds
    that `pipelines.files` and other readers leave files out by."""
    path = folder / f"part-00000-{uuid.uuid4()}-c000.snappy.parquet"
    try:
        content = thin(rows, table).to_arrow().cast(table.schema)
        pq.write_table(content, path, row_group_size=ROW_GROUP_ROWS, store_schema=False)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    status = path.stat()
    names = [table.time, *(["post_id"] if "post_id" in table.key else [])]
    stats = {
        "numRecords": rows.height,
        "minValues": {name: _bound(rows.get_column(name).min()) for name in names},
        "maxValues": {name: _bound(rows.get_column(name).max()) for name in names},
        "nullCount": dict.fromkeys(names, 0),
    }
    return {
        "path": path.name,
        "partitionValues": {},
        "size": status.st_size,
        "modificationTime": status.st_mtime_ns // 1_000_000,
        "stats": json.dumps(stats),
    }


def _bound(value: object) -> str:
    return isoformat(value) if isinstance(value, datetime) else str(value)

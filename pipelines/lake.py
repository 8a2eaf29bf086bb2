"""Delta tables, replaced block by block under Delta's optimistic concurrency (law 4).

A block is a minute of the table's time column. All dirty blocks of a table go in one commit from one pinned
version; before every replacement the handle is brought up to date, because a handle that has advanced by its own
commit hides another writer's.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from contracts.layout import Layout, make_folder
from contracts.schemas import TABLES, Table
from pipelines import counts, files
from pipelines.blocks import any_of, block, blocks_of, changed_blocks, changed_posts, ranges, spans
from pipelines.sparse import thin


class _Handles(threading.local):
    """Handles by path, of one thread, each with the version at which it was opened: a handle that another thread brings
    up to date between our reading and our writing would hide a third writer's commit."""

    def __init__(self) -> None:
        self.by_path: dict[Path, tuple[DeltaTable, int]] = {}
        self.forgotten = 0


_forgotten = 0  # how often all threads' handles were given up
_HANDLES = _Handles()
_RETRIES = 50
# Delta rewrites whole files, and with one file per commit a late reading would in time join a day into one file that
# every tick writes anew (measured: 5.3 MB a commit after an hour of the pilot, 0.17 MB with small files)
LIVE_FILE_BYTES = 256 * 1024
BULK_FILE_BYTES = 16 * 1024 * 1024
BULK_ROWS = 200_000
BULK_BLOCKS = 60
QUERY_GRACE_S = 900
LOG_AFTER_S = 300  # log entries stay so much longer than the files that they replaced
# whose rows of a compacted file change is told to Delta: it then rewrites the files of these posts only
FEW_POSTS = 64
# A handle that has advanced by many commits is slow, because each adds a piece to its list of files: with 800 files a
# replacement takes 35 ms behind a new handle, 187 ms a hundred commits later, 531 ms after eight hundred. A checkpoint
# takes 57 ms and a new handle 12 ms.
CHECKPOINT_EVERY = 25
# a checkpoint that a power cut undoes after it let log entries be removed would take the table with it, so checkpoints
# and the removal of old entries have times of their own (durability, housekeeping)
HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
# each commit says which blocks it changes, so that others need not take a rewritten file for changed rows
BLOCKS = "lamplight_blocks"


@dataclass
class _Attempt:
    """One attempt to replace blocks of a table: which blocks of which version of which tables it has read."""

    table: Table
    handle: DeltaTable
    reads: list[tuple[Table, int, set[int]]] = field(default_factory=list)


_ATTEMPT: ContextVar[_Attempt | None] = ContextVar("_ATTEMPT", default=None)


class _Counts(threading.local):
    """What a thread has replaced since it was last asked."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()


_COUNTS = _Counts()


class Conflict(Exception):
    """Another writer kept winning a block: the work must be done again from the readings."""


def open_table(root: Path, name: str) -> DeltaTable:
    """This thread's handle of a table, brought up to date; made when it is missing."""
    path = Layout(root).table(name)
    if _HANDLES.forgotten != _forgotten:
        _HANDLES.by_path.clear()
        _HANDLES.forgotten = _forgotten
    if path in _HANDLES.by_path:
        handle, opened = _HANDLES.by_path[path]
        if not _is_newest(handle, path):
            handle.update_incremental()
        if handle.version() - opened < CHECKPOINT_EVERY:
            return handle
    try:
        handle = DeltaTable(str(path))
    except TableNotFoundError:
        handle = _create(path, TABLES[name])
    _HANDLES.by_path[path] = handle, handle.version()
    return handle


def _is_newest(handle: DeltaTable, path: Path) -> bool:
    """Whether nobody has committed since: the handle's log entry is there and the next one is not. (Entries are cleaned
    up oldest first.) Bringing a handle up to date that is so takes 1.25 ms, and a tick asks 60 times."""
    log, version = path / "_delta_log", handle.version()
    return (log / f"{version:020d}.json").exists() and not (log / f"{version + 1:020d}.json").exists()


def _create(path: Path, table: Table) -> DeltaTable:
    make_folder(path)
    return DeltaTable.create(
        str(path),
        schema=table.schema,
        mode="ignore",
        description=table.description,
        configuration={
            "delta.checkpointInterval": str(CHECKPOINT_EVERY),
            **grace(QUERY_GRACE_S),
            "delta.enableExpiredLogCleanup": "true",
        },
        post_commithook_properties=HOOKS,
    )


def grace(seconds: int) -> dict[str, str]:
    """Properties of a table whose replaced files stay so long: as long as the longest query on a catalogue that named
    them."""
    return {
        "delta.deletedFileRetentionDuration": f"interval {seconds} seconds",
        "delta.logRetentionDuration": f"interval {seconds + LOG_AFTER_S} seconds",
    }


def forget() -> None:
    """Open the tables anew: their files were changed behind the handles."""
    global _forgotten  # noqa: PLW0603
    _forgotten += 1
    files.forget()


def checkpoint(root: Path, before: dict[str, int], after: dict[str, int]) -> None:
    """Write a checkpoint of each table that has passed a multiple of CHECKPOINT_EVERY between two vectors of
    versions, so that a new handle reads few log entries."""
    for name, version in after.items():
        if version // CHECKPOINT_EVERY > max(0, before.get(name, 0)) // CHECKPOINT_EVERY:
            open_table(root, name).create_checkpoint()


def versions(root: Path) -> dict[str, int]:
    """The vector of table versions as it stands."""
    return {name: open_table(root, name).version() for name in TABLES}


def exists(root: Path, name: str) -> bool:
    """Whether a table has been made."""
    return (Layout(root).table(name) / "_delta_log").is_dir()


def count_rows(root: Path, name: str) -> int:
    """Rows of a table, from its log alone."""
    return sum(file.rows for file in files.listed(open_table(root, name), TABLES[name]))


def count_files(root: Path, name: str) -> int:
    """Files of a table, from its log alone."""
    return len(files.listed(open_table(root, name), TABLES[name]))


def file_sizes(root: Path, name: str) -> list[int]:
    """Bytes of each file of a table, from its log alone."""
    return [file.size for file in files.listed(open_table(root, name), TABLES[name])]


def file_bounds(handle: DeltaTable, table: Table) -> list[tuple[str, int, int]]:
    """(path, least, greatest) of each file's time column in microseconds since 1970, from the table's log alone."""
    return [(file.name, file.low_us, file.high_us) for file in files.listed(handle, table)]


def read_blocks(
    handle: DeltaTable, table: Table, blocks: Iterable[int], columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Rows of the given blocks in the handle's pinned version; some columns only, when they are named."""
    return files.read(handle, table, blocks, columns)


def read(root: Path, table: Table, blocks: set[int], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Rows of blocks as they stand now; some columns only, when they are named.

    Within `recompute` of `replace_blocks` it is noted what was read, and of the table that is being replaced the
    pinned version is read: bringing its handle up to date would hide what another writer changed since.
    """
    attempt = _ATTEMPT.get()
    is_own = attempt is not None and attempt.table is table
    handle = attempt.handle if attempt is not None and is_own else open_table(root, table.name)
    if attempt is not None:
        attempt.reads.append((table, handle.version(), blocks))
    return read_blocks(handle, table, blocks, columns)


def replace_blocks(
    root: Path, table: Table, blocks: set[int], recompute: Callable[[pl.DataFrame], pl.DataFrame]
) -> bool:
    """Make the blocks hold what `recompute` makes of their rows; False when that is what they held already.

    `recompute` reads its sources with `read`, after this table's version is pinned, and is called again after a
    conflict. Rows of the result lie in the given blocks; their order does not matter. Only blocks that change are
    written, and others may commit what `recompute` has read of other blocks and tables while it works: a derived table
    is then made once more. Raises Conflict after many lost races.
    """
    if not blocks:
        return False
    for _ in range(_RETRIES):
        attempt = _Attempt(table, open_table(root, table.name))
        pinned = attempt.handle.version()
        token = _ATTEMPT.set(attempt)
        try:
            existing = read(root, table, blocks)
            wanted = recompute(existing)
        finally:
            _ATTEMPT.reset(token)
        changed = changed_blocks(existing, wanted, table)
        if not changed:
            return False
        if attempt.handle.version() != pinned:
            continue  # another writer's commit through this handle would be overwritten without a conflict
        try:
            rows = _write(attempt.handle, table, existing, wanted, changed)
        except CommitFailedError:
            _COUNTS.found[counts.CONFLICTS + table.name] += 1
            continue
        except DeltaError:
            # whoever slept while the log was cleaned up cannot be told what it has missed
            fresh = DeltaTable(str(Layout(root).table(table.name)))
            if fresh.version() == pinned:
                raise
            _HANDLES.by_path[Layout(root).table(table.name)] = fresh, fresh.version()
            _COUNTS.found[counts.CONFLICTS + table.name] += 1
            continue
        _COUNTS.found[counts.REPLACED_BLOCKS + table.name] += len(changed)
        _COUNTS.found[counts.WRITTEN_ROWS + table.name] += rows
        if table.is_derived and _is_stale(root, attempt):
            _COUNTS.found[counts.REPEATS + table.name] += 1
            continue
        return True
    raise Conflict(f"{table.name}: {_RETRIES} attempts to replace {len(blocks)} blocks lost against other writers")


def append_rows(root: Path, table: Table, rows: pl.DataFrame) -> bool:
    """Add rows to the blocks that they lie in, which hold none of them; False when there are none. The caller is the
    only writer of the lake: what another has added meanwhile would not be united with these rows."""
    if rows.is_empty():
        return False
    content = rows.sort(table.time).to_arrow().cast(table.schema)
    write_deltalake(
        open_table(root, table.name),
        content,
        mode="append",
        target_file_size=LIVE_FILE_BYTES if content.num_rows < BULK_ROWS else BULK_FILE_BYTES,
        commit_properties=commit_properties(blocks_of(rows, table)),
        post_commithook_properties=HOOKS,
    )
    return True


def take_counts() -> dict[str, int]:
    """What this thread has replaced since it was last asked, by the names of `counts`."""
    found, _COUNTS.found = dict(_COUNTS.found), Counter()
    return found


def _is_stale(root: Path, attempt: _Attempt) -> bool:
    """Whether somebody else has changed what an attempt had read before its own commit, or before now in other tables.

    Whoever commits later reads this commit or finds it here: so the last of all who touch a row has seen all of it.
    """
    own = attempt.handle.version()
    return any(
        _is_changed(root, table, version, own if table is attempt.table else _newest(root, table) + 1, blocks)
        for table, version, blocks in attempt.reads
    )


def _newest(root: Path, table: Table) -> int:
    return open_table(root, table.name).version()


def _is_changed(root: Path, table: Table, since: int, before: int, blocks: set[int]) -> bool:
    """Whether a commit between two versions, both excluded, changed one of the blocks or does not tell which."""
    log = Layout(root).table(table.name) / "_delta_log"
    for version in range(since + 1, before):
        try:
            told = _told(log / f"{version:020d}.json")
        except FileNotFoundError:
            told = None  # cleaned up: this worker has slept for long
        if told is None or not told.isdisjoint(blocks):
            return True
    return False


def _told(entry: Path) -> set[int] | None:
    """The blocks that a log entry says it changes; None when it says nothing."""
    for line in entry.read_text().splitlines():
        words = json.loads(line).get("commitInfo", {}).get(BLOCKS)
        if words is not None:
            spans = [span.split("-") for span in words.split()]
            return {block for first, end in spans for block in range(int(first), int(end))}
    return None


def commit_properties(blocks: Iterable[int]) -> CommitProperties:
    """What a commit says of itself: the blocks whose rows it changes; a compaction changes none."""
    return CommitProperties(custom_metadata={BLOCKS: " ".join(f"{first}-{end}" for first, end in spans(blocks))})


def _write(handle: DeltaTable, table: Table, existing: pl.DataFrame, wanted: pl.DataFrame, blocks: set[int]) -> int:
    predicate = any_of(
        f"({table.time} >= '{start.isoformat()}' AND {table.time} < '{end.isoformat()}')"
        for start, end in ranges(blocks)
    )
    is_changed = block(table).is_in(list(blocks))
    content = wanted.filter(is_changed)
    posts = None
    if files.has_large(handle, table, blocks):
        posts = changed_posts(existing.filter(is_changed), content, table)
    if posts is not None and len(posts) <= FEW_POSTS:
        content = content.filter(pl.col("post_id").is_in(posts))
        named = any_of("post_id = '{}'".format(post.replace("'", "''")) for post in posts)
        predicate = f"({predicate}) AND ({named})"
    # by time, so that statistics of row groups prune; compaction sorts by post
    rows = thin(content.sort(table.time), table).to_arrow().cast(table.schema)
    is_bulk = rows.num_rows >= BULK_ROWS or len(blocks) >= BULK_BLOCKS
    write_deltalake(
        handle,
        rows,
        mode="overwrite",
        predicate=predicate,
        target_file_size=LIVE_FILE_BYTES if not is_bulk else BULK_FILE_BYTES,
        commit_properties=commit_properties(blocks),
        post_commithook_properties=HOOKS,
    )
    return int(rows.num_rows)

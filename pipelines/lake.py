"""Delta tables, replaced block by block under Delta's optimistic concurrency (law 4).

A block is a minute of the table's time column. All dirty blocks of a table go in one commit from one pinned
version, which is the newest when the replacement begins.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from contracts.layout import Layout, make_folder
from contracts.schemas import TABLES, Table
from pipelines import counts, files
from pipelines.blocks import any_of, block, blocks_of, changed_blocks, changed_posts, ranges
from pipelines.commit import Change, Conflict, add_file, commit, said, told
from pipelines.files import Pinned, entry
from pipelines.kernels.frames import empty
from pipelines.sparse import thin


class _Handles(threading.local):
    """Handles by path, of one thread, each with the version at which it was opened: another thread would bring one up
    to date while we read of it."""

    def __init__(self) -> None:
        self.by_path: dict[Path, tuple[DeltaTable, int]] = {}
        self.forgotten = 0


_forgotten = 0  # how often all threads' handles were given up
_HANDLES = _Handles()
_newest: dict[Path, int] = {}  # versions that were the newest when somebody asked
_RETRIES = 50
LIVE_ROWS = 4_096  # of neighbouring blocks in a file; one of 400 posts has more
LIVE_FILE_BYTES = 256 * 1024
# of a backfill; where there are rows already Delta replaces them: its memory does not grow with the rows of the files
BULK_FILE_ROWS = 500_000
BULK_FILE_BYTES = 16 * 1024 * 1024
BULK_ROWS = 200_000
BULK_BLOCKS = 60
QUERY_GRACE_S = 900
LOG_AFTER_S = 300  # log entries stay so much longer than the files that they replaced
# whose rows of a compacted file change is told to Delta: it then rewrites the files of these posts only
FEW_POSTS = 64
# A Delta handle that has advanced by many commits is slow, because each adds a piece to its list of files: with 800
# files a replacement takes 35 ms behind a new handle, 187 ms a hundred commits later, 531 ms after eight hundred.
HANDLE_COMMITS = 25
CHECKPOINT_EVERY = 100  # takes 100 ms of a table of live ticks
# a checkpoint that a power cut undoes after it let log entries be removed would take the table with it, so checkpoints
# and the removal of old entries have times of their own (durability, housekeeping)
HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@dataclass
class _Attempt:
    """One attempt to replace blocks of a table: which blocks of which version of which tables it has read."""

    table: Table
    pinned: Pinned
    reads: list[tuple[Table, int, set[int]]] = field(default_factory=list)


_ATTEMPT: ContextVar[_Attempt | None] = ContextVar("_ATTEMPT", default=None)


class _Counts(threading.local):
    """What a thread has replaced since it was last asked."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()


_COUNTS = _Counts()


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
        if handle.version() - opened < HANDLE_COMMITS:
            return handle
    try:
        handle = DeltaTable(str(path))
    except TableNotFoundError:
        handle = _create(path, TABLES[name])
    _HANDLES.by_path[path] = handle, handle.version()
    return handle


def _is_newest(handle: DeltaTable, path: Path) -> bool:
    """Whether nobody has committed since: the handle's log entry is there and the next one is not. (Entries are cleaned
    up oldest first.) Bringing a handle up to date that is so takes 1.25 ms."""
    log, version = path / "_delta_log", handle.version()
    return entry(log, version).exists() and not entry(log, version + 1).exists()


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


def newest_version(root: Path, name: str) -> Pinned:
    """The newest version of a table; the table is made when it is missing.

    Asked of the names of the log's entries: nothing but Delta's own work needs a handle, and bringing one up to date
    took a tick 50 ms (it asks 60 times).
    """
    folder = Layout(root).table(name)
    log, version = folder / "_delta_log", _newest.get(folder, -1)
    if version < 0 or not entry(log, version).exists():  # (old entries are cleaned up)
        version = open_table(root, name).version()
    while entry(log, version + 1).exists():
        version += 1
    _newest[folder] = version
    return Pinned(folder, version)


def forget() -> None:
    """Open the tables anew: their files were changed behind the handles."""
    global _forgotten  # noqa: PLW0603
    _forgotten += 1
    _newest.clear()
    files.forget()


def checkpoint(root: Path, before: dict[str, int], after: dict[str, int]) -> None:
    """Write a checkpoint of each table that has made CHECKPOINT_EVERY commits between two vectors of versions, so that
    a new handle reads few log entries. A tick commits to most tables, so each has its own turn: all at once took 1.3 s
    of one tick."""
    for at, name in enumerate(TABLES):
        turn = at * CHECKPOINT_EVERY // len(TABLES)
        begun, ended = (max(0, one.get(name, 0)) + turn for one in (before, after))
        if ended // CHECKPOINT_EVERY > begun // CHECKPOINT_EVERY:
            open_table(root, name).create_checkpoint()


def versions(root: Path) -> dict[str, int]:
    """The vector of table versions as it stands."""
    return {name: newest_version(root, name).version for name in TABLES}


def exists(root: Path, name: str) -> bool:
    """Whether a table has been made."""
    return (Layout(root).table(name) / "_delta_log").is_dir()


def count_rows(root: Path, name: str) -> int:
    """Rows of a table, from its log alone."""
    return sum(file.rows for file in files.listed(newest_version(root, name), TABLES[name]))


def count_files(root: Path, name: str) -> int:
    """Files of a table, from its log alone."""
    return len(files.listed(newest_version(root, name), TABLES[name]))


def file_sizes(root: Path, name: str) -> list[int]:
    """Bytes of each file of a table, from its log alone."""
    return [file.size for file in files.listed(newest_version(root, name), TABLES[name])]


def file_bounds(pinned: Pinned, table: Table) -> list[tuple[str, int, int]]:
    """(path, least, greatest) of each file's time column in microseconds since 1970, from the table's log alone."""
    return [(file.name, file.low_us, file.high_us) for file in files.listed(pinned, table)]


def read_blocks(
    pinned: Pinned, table: Table, blocks: Iterable[int], columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Rows of the given blocks in a version; some columns only, when they are named."""
    return files.read(pinned, table, blocks, columns)


def read(root: Path, table: Table, blocks: set[int], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Rows of blocks as they stand now; some columns only, when they are named.

    Within `recompute` of `replace_blocks` it is noted what was read, and of the table that is being replaced the
    pinned version is read: a newer one would hide what another writer changed since.
    """
    attempt = _ATTEMPT.get()
    is_own = attempt is not None and attempt.table is table
    pinned = attempt.pinned if attempt is not None and is_own else newest_version(root, table.name)
    if attempt is not None:
        attempt.reads.append((table, pinned.version, blocks))
    return read_blocks(pinned, table, blocks, columns)


def scan(root: Path, table: Table, since_us: int | None = None) -> pl.LazyFrame:
    """Rows as they stand now, lazily; without files whose rows all are from before a moment (microseconds since 1970),
    if one is given. Polars' own scan of a Delta table opens every file, and finds none in a folder whose name has a
    space."""
    pinned = newest_version(root, table.name)
    chosen = [file.name for file in files.listed(pinned, table) if since_us is None or file.high_us >= since_us]
    if not chosen:
        return pl.LazyFrame(schema=empty(table).schema)
    return pl.scan_parquet([pinned.folder / name for name in chosen], glob=False)


def replace_blocks(
    root: Path, table: Table, blocks: set[int], recompute: Callable[[pl.DataFrame], pl.DataFrame]
) -> bool:
    """Make the blocks hold what `recompute` makes of their rows; False when that is what they held already.

    `recompute` reads its sources with `read`, after this table's version is pinned, and is called again after a
    conflict. Rows of the result lie in the given blocks; their order does not matter. Only blocks that change are
    written, and others may commit what `recompute` has read of other blocks and tables while it works: a derived table
    is then made once more. Raises Conflict when another writer wins many times.
    """
    if not blocks:
        return False
    for _ in range(_RETRIES):
        attempt = _Attempt(table, newest_version(root, table.name))
        token = _ATTEMPT.set(attempt)
        try:
            existing = read(root, table, blocks)
            wanted = recompute(existing)
        finally:
            _ATTEMPT.reset(token)
        changed = changed_blocks(existing, wanted, table)
        if not changed:
            return False
        is_changed = block(table).is_in(list(changed))
        rows = wanted.filter(is_changed)
        try:
            version = put(attempt.pinned, table, rows, changed, existing.filter(is_changed))
        except (CommitFailedError, Conflict):
            _COUNTS.found[counts.CONFLICTS + table.name] += 1
            continue
        except DeltaError:
            # whoever slept while the log was cleaned up cannot be told what it has missed
            if newest_version(root, table.name) == attempt.pinned:
                raise
            _COUNTS.found[counts.CONFLICTS + table.name] += 1
            continue
        _COUNTS.found[counts.REPLACED_BLOCKS + table.name] += len(changed)
        _COUNTS.found[counts.WRITTEN_ROWS + table.name] += rows.height
        if table.is_derived and _is_stale(root, attempt, version):
            _COUNTS.found[counts.REPEATS + table.name] += 1
            continue
        return True
    raise Conflict(f"{table.name}: {_RETRIES} attempts to replace {len(blocks)} blocks lost against other writers")


def append_rows(root: Path, table: Table, rows: pl.DataFrame) -> bool:
    """Add rows to the blocks that they lie in, which hold none of them; False when there are none. The caller is the
    only writer of the lake: what another has added meanwhile would not be united with these rows."""
    if rows.is_empty():
        return False
    put(newest_version(root, table.name), table, rows, blocks_of(rows, table))
    return True


def take_counts() -> dict[str, int]:
    """What this thread has replaced since it was last asked, by the names of `counts`."""
    found, _COUNTS.found = dict(_COUNTS.found), Counter()
    return found


def _is_stale(root: Path, attempt: _Attempt, own: int) -> bool:
    """Whether somebody else has changed what an attempt had read before its own commit (a version), or before now in
    other tables.

    Whoever commits later reads this commit or finds it here: so the last of all who touch a row has seen all of it.
    """
    return any(
        _is_changed(
            root, table, since, own if table is attempt.table else newest_version(root, table.name).version + 1, blocks
        )
        for table, since, blocks in attempt.reads
    )


def _is_changed(root: Path, table: Table, since: int, before: int, blocks: set[int]) -> bool:
    """Whether a commit between two versions, both excluded, changed one of the blocks or does not tell which."""
    log = Layout(root).table(table.name) / "_delta_log"
    for version in range(since + 1, before):
        try:
            changed = told(entry(log, version))
        except FileNotFoundError:
            changed = None  # cleaned up: this worker has slept for long
        if changed is None or not changed.isdisjoint(blocks):
            return True
    return False


def put(
    pinned: Pinned, table: Table, rows: pl.DataFrame, blocks: set[int], existing: pl.DataFrame | None = None
) -> int:
    """Commit rows of blocks in place of what these hold (`existing`), or beside it where that is None; the version.

    Raises CommitFailedError, DeltaError or Conflict when another writer came first.
    """
    is_bulk = rows.height >= BULK_ROWS or len(blocks) >= BULK_BLOCKS
    replaced = None if existing is None or existing.is_empty() else existing
    if replaced is not None and (is_bulk or files.has_large(pinned, table, blocks)):
        return _put_by_delta(pinned, table, rows, blocks, replaced, is_bulk)
    # rows to append are mostly few, and of many blocks
    parts = [rows.sort(table.time)] if existing is None and not is_bulk else _parts(rows, table, is_bulk=is_bulk)
    removed: dict[str, int] = {}
    if replaced is not None:
        left, removed = files.without(pinned, table, blocks)
        # what stays of a file stays in one of its own: else late rows would in time join a day into one file, which
        # every tick would write anew (measured: 5.3 MB a commit after an hour of the pilot, 0.17 MB with small files)
        parts += left
    added: list[dict[str, Any]] = []
    try:
        for part in parts:
            added.append(add_file(pinned.folder, table, part))
        change = Change(operation="WRITE", removed=removed, added=added, blocks=frozenset(blocks))
        version = commit(pinned, change)
    except BaseException:
        for action in added:
            (pinned.folder / action["path"]).unlink(missing_ok=True)
        raise
    for action, part in zip(added, parts, strict=True):
        files.keep(pinned, table, action["path"], part)
    return version


def _parts(rows: pl.DataFrame, table: Table, *, is_bulk: bool) -> list[pl.DataFrame]:
    """Rows in the order of their blocks, as files: blocks are divided only between files, so that to replace one seldom
    needs another's rows written again."""
    ordered, most = rows.sort(table.time), BULK_FILE_ROWS if is_bulk else LIVE_ROWS
    found, begin = [], 0
    for end in ordered.select(block(table).rle().struct.field("len").cum_sum()).to_series():
        if end - begin >= most or end == ordered.height:
            found.append(ordered[begin:end])
            begin = end
    return found


def _put_by_delta(
    pinned: Pinned, table: Table, rows: pl.DataFrame, blocks: set[int], existing: pl.DataFrame, is_bulk: bool
) -> int:
    """Replace rows as Delta does it: where there are many, or rows of large files."""
    predicate = any_of(
        f"({table.time} >= '{start.isoformat()}' AND {table.time} < '{end.isoformat()}')"
        for start, end in ranges(blocks)
    )
    posts = None
    if files.has_large(pinned, table, blocks):
        posts = changed_posts(existing, rows, table)
    if posts is not None and len(posts) <= FEW_POSTS:
        rows = rows.filter(pl.col("post_id").is_in(posts))
        named = any_of("post_id = '{}'".format(post.replace("'", "''")) for post in posts)
        predicate = f"({predicate}) AND ({named})"
    handle = DeltaTable(str(pinned.folder), version=pinned.version)
    # by time, so that statistics of row groups prune; compaction sorts by post
    content = thin(rows.sort(table.time), table).to_arrow().cast(table.schema)
    size = BULK_FILE_BYTES if is_bulk else LIVE_FILE_BYTES
    words = CommitProperties(custom_metadata=said(frozenset(blocks)))
    write_deltalake(
        handle,
        content,
        mode="overwrite",
        predicate=predicate,
        target_file_size=size,
        commit_properties=words,
        post_commithook_properties=HOOKS,
    )
    return int(handle.version())

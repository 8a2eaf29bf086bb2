"""Compaction and vacuum as parts of the running system. The files of a settled span become few, sorted ones; replaced
files go after minutes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from contracts.layout import Layout, Positions
from contracts.schemas import ANNOUNCEMENTS, HOURS, TABLES, Table
from contracts.times import US, from_us, isoformat
from pipelines import files, lake
from pipelines.exchange import exchange
from pipelines.files import LAST_POST, File
from pipelines.lake import HOOKS, newest_version, open_table
from pipelines.parquet import order
from pipelines.piece import Piece, durably

# (length, age after its end at which a span is compacted), seconds: five minutes when most stragglers are in, so that
# a commit has few files to look through; an hour when late readings are in; a UTC day when most stored ones are.
Spans = Sequence[tuple[int, int]]
SPANS_S: Spans = ((300, 300), (3600, 7200), (86_400, 86_400))
# of hours a month is asked for at once: of as many weeks, not days, a group of rows is decoded
WEEK_S = (7 * 86_400, 86_400)
# a span is compacted when a post's rows lie in so many files that could be larger
MANY_FILES = 4
WHOLE_BYTES = 8 * 1024 * 1024
ROWS_AT_ONCE = 1_000_000  # about 0.5 GiB while they are sorted
FILE_RANGES = 2  # so many times these rows are a file: 8 MB of readings, written anew for a late one
_Range = tuple[str | datetime | None, str | datetime | None]
_ALL = pl.lit(value=True)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Files of a table whose rows in event times [start_us, end_us) are to become one sorted run."""

    table: Table
    start_us: int
    end_us: int
    files: tuple[File, ...]

    @property
    def is_within(self) -> bool:
        """Whether the files have no row outside."""
        return all(self.start_us <= file.low_us and file.high_us < self.end_us for file in self.files)

    @property
    def is_here(self) -> pl.Expr:
        """Whether a row lies within."""
        return pl.col(self.table.time).is_between(from_us(self.start_us), from_us(self.end_us), closed="left")


def plan(root: Path, now_us: int) -> Iterator[Piece]:
    """The spans that are settled and lie in many files, of every table."""
    for name, table in TABLES.items():
        if lake.exists(root, name):
            for span in spans(files.listed(newest_version(root, name), table), table, now_us):
                yield _piece(root, span)


def spans(listed: Sequence[File], table: Table, now_us: int, spans_s: Spans | None = None) -> list[Span]:
    """The spans to compact at a moment, a longer one in place of shorter ones within it; `spans_s` stands for those of
    the table."""
    if table is ANNOUNCEMENTS:  # few rows, which everybody asks for who recomputes or queries a window
        end_us = max((file.high_us for file in listed), default=0) + 1
        return [Span(table=table, start_us=0, end_us=end_us, files=tuple(listed))] if len(listed) >= MANY_FILES else []
    found: list[Span] = []
    left = list(listed)
    if spans_s is None:
        spans_s = (*SPANS_S, WEEK_S) if table is HOURS else SPANS_S
    for length_s, age_s in reversed(spans_s):
        length_us = length_s * US
        by_span: defaultdict[int, list[File]] = defaultdict(list)
        for file in left:
            by_span[file.low_us // length_us].append(file)
        left = []
        for number, own in sorted(by_span.items()):
            is_settled = (number + 1) * length_us + age_s * US <= now_us
            if is_settled and _is_scattered(own):
                start_us = number * length_us
                found.append(Span(table=table, start_us=start_us, end_us=start_us + length_us, files=tuple(own)))
            else:
                left += own
    return found


def _is_scattered(listed: Sequence[File]) -> bool:
    """Whether a post's rows lie in many small files, or in several large ones, as a backfill leaves them. Of a table
    without posts large ones need not be written again."""
    large = [file for file in listed if file.size >= WHOLE_BYTES]
    small = [file for file in listed if file.size < WHOLE_BYTES]
    return depth(small) >= MANY_FILES or depth([file for file in large if file.last_post != LAST_POST]) > 1


def depth(listed: Sequence[File]) -> int:
    """The most files that hold, or could by their statistics, rows of one post."""
    edges = sorted([(file.first_post, 0) for file in listed] + [(file.last_post, 1) for file in listed])
    most = now = 0
    for _, is_end in edges:
        now += -1 if is_end else 1
        most = max(most, now)
    return most


def _piece(root: Path, span: Span) -> Piece:
    return Piece(
        kind="join",
        table=span.table.name,
        what=f"{isoformat(from_us(span.start_us))}/{isoformat(from_us(span.end_us))}",
        rows=sum(file.rows for file in span.files),
        files=len(span.files),
        size=sum(file.size for file in span.files),
        work=partial(rewrite, root, span),
        names=tuple(file.name for file in span.files),
    )


def rewrite(root: Path, span: Span, is_kept: pl.Expr = _ALL, ends: Sequence[str] = ()) -> None:
    """Put the rows of a span's files that are to be kept, sorted, in place of these files; those that do not lie in the
    span in files of their own. Of `ends`, names of some files, it is known that no row is kept. Memory is that of
    ROWS_AT_ONCE rows, however many there are. Raises lake.Conflict."""
    left = [file for file in span.files if file.name not in ends]
    parts = [is_kept] if span.is_within else [is_kept & span.is_here, is_kept & ~span.is_here]
    runs = [run for part in parts for run in _runs(root, span.table, left, part)] if left else []
    durably(root, span.table.name, lambda: exchange(root, span.table, span.files, runs))


def _runs(root: Path, table: Table, listed: Sequence[File], is_kept: pl.Expr) -> Iterator[Iterator[pa.RecordBatch]]:
    """Rows in the order of compacted files, a run for each of these."""
    folder = Layout(root).table(table.name)
    rows = pl.scan_parquet([folder / file.name for file in listed], hive_partitioning=False).filter(is_kept)
    ranges = _ranges(rows, order(table)[0], sum(file.rows for file in listed))
    for at in range(0, len(ranges), FILE_RANGES):
        yield _sorted(rows, table, ranges[at : at + FILE_RANGES])


def _sorted(rows: pl.LazyFrame, table: Table, ranges: Sequence[_Range]) -> Iterator[pa.RecordBatch]:
    by = order(table)
    for low, high in ranges:
        part = rows if low is None else rows.filter(pl.col(by[0]).is_between(pl.lit(low), pl.lit(high)))
        content = part.select(table.schema.names).collect().sort(by)
        if not content.is_empty():
            yield from content.to_arrow().cast(table.schema).to_batches()


def _ranges(rows: pl.LazyFrame, column: str, count: int) -> list[_Range]:
    """Ranges [low, high] of a column's values that hold about ROWS_AT_ONCE rows each; (None, None): one for all."""
    if count <= ROWS_AT_ONCE:
        return [(None, None)]
    counted = rows.group_by(column).len().collect(engine="streaming").sort(column)
    total = pl.col("len").sum()
    number = (pl.col("len").cum_sum() - 1) * (total / ROWS_AT_ONCE).ceil() // total
    parts = counted.group_by(number.alias("number"), maintain_order=True)
    return list(parts.agg(low=pl.col(column).first(), high=pl.col(column).last()).select("low", "high").iter_rows())


def compact(root: Path, table: Table, now_us: int, spans_s: Spans | None = None) -> int:
    """Compact a table at a moment; the number of spans."""
    found = spans(files.listed(newest_version(root, table.name), table), table, now_us, spans_s)
    for span in found:
        rewrite(root, span)
    return len(found)


def compact_all(root: Path, now_us: int, spans_s: Spans | None = None) -> None:
    """Compact every table."""
    for table in TABLES.values():
        compact(root, table, now_us, spans_s)


def vacuum_plan(root: Path, grace_s: int) -> Iterator[Piece]:
    """Replaced files, and log entries, whose time has passed."""
    for name in TABLES:
        if lake.exists(root, name):
            sizes = [path.stat().st_size for path in _replaced(root, name, grace_s) if path.exists()]
            yield Piece(
                kind="vacuum",
                table=name,
                what="replaced files",
                rows=0,
                files=len(sizes),
                size=sum(sizes),
                work=partial(_vacuum, root, name, grace_s),
            )


def _claimed(root: Path, name: str) -> DeltaTable | None:
    """A table as the stored positions claim it: what was replaced since may come back in a power cut, and a checkpoint
    since may not be whole."""
    version = Positions.load(Layout(root).positions).versions.get(name)
    return None if version is None else DeltaTable(str(Layout(root).table(name)), version=version)


def _has_grace(handle: DeltaTable, grace_s: int) -> bool:
    return lake.grace(grace_s).items() <= handle.metadata().configuration.items()


def _replaced(root: Path, name: str, grace_s: int) -> list[Path]:
    """Files that no version needs which is younger than the grace, what killed writers left among them. It does not do
    to ask for what the log says was replaced: a checkpoint forgets that as soon as the grace is over, and then nobody
    knows of it (measured: of 929 such files of a backfill 21 were named)."""
    handle = _claimed(root, name)
    if handle is None or not _has_grace(handle, grace_s):
        return []
    pinned = lake.newest_version(root, name)
    alive = {file.name for file in files.listed(pinned, TABLES[name])}
    return [pinned.folder / one for one in handle.vacuum(dry_run=True, full=True) if one not in alive]


def _vacuum(root: Path, name: str, grace_s: int) -> None:
    if not _has_grace(handle := open_table(root, name), grace_s):
        handle.alter.set_table_properties(lake.grace(grace_s), post_commithook_properties=HOOKS)
    for path in _replaced(root, name, grace_s):
        path.unlink(missing_ok=True)
    if claimed := _claimed(root, name):
        claimed.cleanup_metadata()


def vacuum(root: Path, grace_s: int = lake.QUERY_GRACE_S) -> None:
    """Vacuum every table."""
    for piece in vacuum_plan(root, grace_s):
        piece.work()

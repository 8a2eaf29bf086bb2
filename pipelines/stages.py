"""What the engines run: each stage reads, calls a kernel and replaces blocks. Nothing here knows an engine.

Every stage may run again at any time on the same input: it finds that nothing is new.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from contracts.layout import Layout, Segment
from contracts.quality import CONTEXT_MINUTES
from contracts.registry import Registry, load_registry
from contracts.schemas import (
    DUPLICATES,
    FLAGS,
    FLOW_MINUTES,
    FLOW_WINDOW_S,
    FLOW_WINDOWS,
    FOOTFALL,
    HOUR_S,
    HOURS,
    LANE_FLOWS,
    MINUTES,
    OBSERVATIONS,
    TABLES,
    WINDOW_S,
    WINDOWS,
    Table,
)
from contracts.segments import read_segment
from contracts.times import MINUTE_US, US
from pipelines import lake, removed
from pipelines.announcements import final_through
from pipelines.blocks import block, blocks_of
from pipelines.came import Came, Source
from pipelines.kernels import context as context_kernel
from pipelines.kernels import minutes as minute_kernel
from pipelines.kernels import rollups
from pipelines.kernels.context import PLAIN
from pipelines.kernels.counters import COUNTER_CONTEXT_S, COUNTERS
from pipelines.kernels.decode import Tolerance, decode_messages
from pipelines.kernels.finality import revised
from pipelines.kernels.frames import empty
from pipelines.kernels.unite import extra_copies, message_key, new_rows, unite
from pipelines.lake import append_rows, replace_blocks

T = TypeVar("T")
MINUTES_OF = {OBSERVATIONS.name: MINUTES, FOOTFALL.name: MINUTES, LANE_FLOWS.name: FLOW_MINUTES}
WINDOWS_OF = {MINUTES.name: WINDOWS, FLOW_MINUTES.name: FLOW_WINDOWS}
HOURS_OF = {WINDOWS.name: HOURS}

LATE_S = 600  # what came later than this is late: its minutes are closed, and nobody watches them for the newest


class Arrival(StrEnum):
    """Which readings a run takes up: the live loop lets those that a device had stored wait for the newest."""

    ANY = "any"
    PROMPT = "prompt"
    LATE = "late"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a worker needs to know: where the files lie and what is tolerated. Crosses the runner by pickle.

    `is_sole_owner`: nobody else writes to the lake meanwhile, so new rows may be appended to their blocks. `arrival`:
    which rows are taken up, by how long after their event time they were received.
    """

    root: Path
    registry: Path
    tolerance: Tolerance = field(default_factory=Tolerance)
    window_s: int = WINDOW_S
    is_sole_owner: bool = False
    arrival: Arrival = Arrival.ANY

    @property
    def layout(self) -> Layout:
        return Layout(self.root)


@lru_cache(maxsize=2)
def _registry(path: Path, modified_ns: int, size: int) -> Registry:
    return load_registry(path)


def registry(path: Path) -> Registry:
    """The registry as its file stands now; read again only when the file changed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return load_registry(path)
    return _registry(path, status.st_mtime_ns, status.st_size)


def decode(setup: Setup, segments: Sequence[Segment]) -> dict[str, pa.RecordBatch]:
    """Rows per table of a few segments, as one record batch each."""
    return decode_raw(setup, read(setup, segments))


def read(setup: Setup, segments: Sequence[Segment]) -> pa.Table:
    """Rows of a few segments. Raises FileNotFoundError when one is gone: list them again."""
    return pa.concat_tables([read_segment(setup.layout.raw, segment) for segment in segments])


def decode_raw(setup: Setup, raw: pa.Table) -> dict[str, pa.RecordBatch]:
    """Rows per table of raw messages, as one record batch each."""
    frames = _without_collector(lambda: decode_messages(raw, registry(setup.registry), setup.tolerance))
    return {name: to_batch(frame, TABLES[name]) for name, frame in frames.items()}


def arrived(setup: Setup, batches: dict[str, pa.RecordBatch]) -> tuple[dict[str, pa.RecordBatch], int]:
    """The rows that the setup takes up, and how many it leaves out. Refused messages are prompt: their block is that
    of their receipt."""
    if setup.arrival is Arrival.ANY:
        return batches, 0
    taken, left = {}, 0
    for name, batch in batches.items():
        is_late = np.zeros(batch.num_rows, dtype=bool)
        if TABLES[name].is_reading:
            times = (batch[column].cast(pa.int64()).to_numpy() for column in ("received_time", "event_time"))
            is_late = np.subtract(*times) > LATE_S * US
        wanted = is_late if setup.arrival is Arrival.LATE else ~is_late
        part = batch if wanted.all() else batch.filter(pa.array(wanted))
        left += batch.num_rows - part.num_rows
        if part.num_rows:
            taken[name] = part
    return taken, left


def _without_collector(work: Callable[[], T]) -> T:
    """Decoding keeps many small objects alive and makes no cycles: the collector would only walk over them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return work()
    finally:
        if was_enabled:
            gc.enable()


def to_batch(frame: pl.DataFrame, table: Table) -> pa.RecordBatch:
    """A frame as one record batch of the table's schema."""
    return frame.to_arrow().cast(table.schema).combine_chunks().to_batches()[0]


def unite_blocks(setup: Setup, name: str, batches: Sequence[pa.RecordBatch]) -> set[int]:
    """Unite new rows with the blocks that they lie in; the dirty blocks, changed or not.

    Blocks that did not change are returned too: whether something is new is judged per table, so that a crash
    between readings and minutes heals.
    """
    table = TABLES[name]
    new = removed.without(setup.root, pl.DataFrame(pa.Table.from_batches(batches)), table)
    blocks = blocks_of(new, table)
    if setup.is_sole_owner and table.is_reading:
        known = _same_messages(setup, table, blocks, new)
        fresh = new_rows(known, new, table)
        if fresh is not None:
            _note_copies(setup, extra_copies(known, new, table))
            append_rows(setup.root, table, fresh)
            return blocks

    def recompute(existing: pl.DataFrame) -> pl.DataFrame:
        if table.is_reading:
            # before the readings: once those are replaced, an earlier copy that gave way is no longer seen
            _note_copies(setup, extra_copies(existing, new, table))
        return unite(existing, new, table)

    replace_blocks(setup.root, table, blocks, recompute)
    return blocks


def _same_messages(setup: Setup, table: Table, blocks: set[int], new: pl.DataFrame) -> pl.DataFrame:
    """Rows of the blocks that have the message key of any new row; most blocks are read by these columns only."""
    key = message_key(table)
    known = _read(setup, table, blocks, [*key, "digest"]).join(new.select(key).unique(), on=key, how="semi")
    if known.is_empty():
        return empty(table)
    # (whose bytes are the same has the same key)
    digests = known.get_column("digest").unique().implode()
    return _read(setup, table, blocks_of(known, table)).filter(pl.col("digest").is_in(digests))


def _note_copies(setup: Setup, copies: pl.DataFrame) -> None:
    if copies.is_empty():
        return
    blocks = blocks_of(copies, DUPLICATES)
    if setup.is_sole_owner:
        key = list(DUPLICATES.key)
        append_rows(setup.root, DUPLICATES, copies.join(_read(setup, DUPLICATES, blocks, key), on=key, how="anti"))
    else:
        replace_blocks(setup.root, DUPLICATES, blocks, lambda noted: unite(noted, copies, DUPLICATES))


def make_minutes(setup: Setup, name: str, blocks: set[int], came: Mapping[str, Came] | None = None) -> set[int]:
    """Recompute the minutes table `name` for dirty blocks of its readings; the blocks that may have changed. `came`
    says by table of readings where rows came in, if that is known: what is made of others stays.

    A minute of values is the context of the next hour, so the flags of that hour are judged again too.
    """
    if name == FLOW_MINUTES.name:
        _remake(setup, FLOW_MINUTES, blocks, lambda existing: _flow_minutes(setup, existing, blocks, came))
        return blocks
    touched = {after for block in blocks for after in range(block, block + CONTEXT_MINUTES + 1)}
    judge = _Flags(setup, touched)

    def flags(_: pl.DataFrame) -> pl.DataFrame:
        # what made the minutes still holds where nobody else can have changed them since
        return judge.found if setup.is_sole_owner else judge.of(_read(setup, MINUTES, touched, PLAIN))

    _remake(setup, MINUTES, touched, lambda existing: _minutes(setup, existing, blocks, came, judge))
    _remake(setup, FLAGS, touched, flags)
    return touched


def _flow_minutes(
    setup: Setup, existing: pl.DataFrame, dirty: set[int], came: Mapping[str, Came] | None
) -> pl.DataFrame:
    lanes = Source(setup.root, LANE_FLOWS, dirty, came)
    made = minute_kernel.flow_minutes(lanes.readings())
    return pl.concat([made, lanes.split(existing, FLOW_MINUTES)[1]])


def _minutes(
    setup: Setup,
    existing: pl.DataFrame,
    dirty: set[int],
    came: Mapping[str, Came] | None,
    judge: "_Flags",
) -> pl.DataFrame:
    """Minutes as their readings and their context make them: dirty ones from the readings, all others and those of the
    hour after only where flags are or were."""
    observed, walked = (Source(setup.root, table, dirty, came) for table in (OBSERVATIONS, FOOTFALL))
    plain = minute_kernel.minutes(observed.readings(minute_kernel.OBSERVED), walked.readings())
    is_dirty, is_walked = block(MINUTES).is_in(list(dirty)), pl.col("quantity").is_in(minute_kernel.CROSSINGS)
    gone, rest = zip(
        observed.split(existing.filter(is_dirty & ~is_walked), MINUTES),
        walked.split(existing.filter(is_dirty & is_walked), MINUTES),
        strict=True,
    )
    plain = removed.kept(setup.root, pl.concat(gone), plain, MINUTES)
    later = pl.concat([existing.filter(~is_dirty), *rest])
    found = judge.of(pl.concat([plain, later]))
    row = list(MINUTES.key)
    # of a minute whose contradiction was cleared the counts do not say so
    was_judged = later.filter(pl.col("value_count") < pl.col("plain_count")).select(row)
    judged = pl.concat([found.select(row), was_judged, context_kernel.contradicted(later).select(row)]).unique()
    if judged.is_empty():
        return pl.concat([plain, later])
    # the readings of judged minutes are used again, within what their flags accept
    observations = _read(setup, OBSERVATIONS, blocks_of(judged, MINUTES), minute_kernel.OBSERVED)
    named = observations.with_columns(window_start=pl.col("event_time").dt.truncate("1m"))
    # a direction's state holds the speeds of its messages
    speeds = judged.with_columns(quantity=pl.lit(minute_kernel.WIND_SPEED))
    directions = judged.filter(pl.col("quantity") == minute_kernel.WIND_SPEED).with_columns(
        quantity=pl.lit("wind_direction_deg")
    )
    judged = pl.concat([judged, directions]).unique()
    needed = named.join(pl.concat([judged, speeds]).unique(), on=row, how="semi").select(minute_kernel.OBSERVED)
    again = minute_kernel.minutes(needed, empty(FOOTFALL), found).join(judged, on=row, how="semi")
    return pl.concat([pl.concat([plain, later]).join(again, on=row, how="anti"), again])


class _Flags:
    """Rows of FLAGS of the touched minutes. The last answer is kept with what it was made of: the minutes as committed
    mostly are what they were before, and asking the kernel twice would double its cost."""

    def __init__(self, setup: Setup, touched: set[int]):
        self._setup, self._touched = setup, touched
        self._asked: tuple[int, int, object] | None = None
        self.found = empty(FLAGS)

    def of(self, minutes: pl.DataFrame) -> pl.DataFrame:
        """`minutes` holds those of the touched minutes that there are; the hour before the touched ones is read."""
        present = blocks_of(minutes, MINUTES)
        context = {before for block in present for before in range(block - CONTEXT_MINUTES, block)} - self._touched
        plain = pl.concat([minutes.select(PLAIN), _read(self._setup, MINUTES, context, PLAIN)])
        areas = registry(self._setup.registry).areas
        # equal rows in any order; to sort both and compare took longer than the kernel
        asked = plain.height, int(plain.hash_rows().to_numpy().sum()), areas
        if self._asked is None or asked[:2] != self._asked[:2] or self._asked[2] is not areas:
            self._asked = asked
            self.found = context_kernel.flags(plain, present, areas)
        return self.found


def make_windows(setup: Setup, name: str, blocks: set[int]) -> set[int]:
    """Recompute the windows that dirty minutes of the minutes table `name` touch; the windows' first minutes.

    A counter's minute also touches the windows whose growth starts from it.
    """
    table = WINDOWS_OF[name]
    period_s = setup.window_s if table is WINDOWS else FLOW_WINDOW_S
    length = period_s * 1_000_000 // MINUTE_US
    context = COUNTER_CONTEXT_S // 60 if name == MINUTES.name else 0
    starts = {block // length * length for dirty in blocks for block in range(dirty, dirty + context + 1)}
    inside = {block for start in starts for block in range(start, start + length)}
    before = {block for start in starts for block in range(start - context, start)} - inside

    def recompute(existing: pl.DataFrame) -> pl.DataFrame:
        rows = _read(setup, TABLES[name], inside)
        if before:
            # mostly as many minutes as those wanted, and only counters ask for them
            rows = pl.concat([_read(setup, MINUTES, before).filter(pl.col("quantity").is_in(COUNTERS)), rows])
        merged = (rollups.windows if name == MINUTES.name else rollups.flow_windows)(rows, period_s)
        wanted = merged.filter((pl.col("window_start").dt.epoch("us") // MINUTE_US).is_in(list(starts)))
        return revised(existing, wanted, table, final_through(setup.root))

    _remake(setup, table, starts, recompute)
    return starts


def make_hours(setup: Setup, name: str, blocks: set[int]) -> set[int]:
    """Recompute the hours that dirty windows of the table `name` lie in; the hours' first minutes. Traffic has none."""
    if name not in HOURS_OF:
        return set()
    length = HOUR_S // 60
    starts = {block // length * length for block in blocks}
    inside = {block for start in starts for block in range(start, start + length)}

    def recompute(_: pl.DataFrame) -> pl.DataFrame:
        return rollups.hours(_read(setup, TABLES[name], inside, rollups.MERGED))

    _remake(setup, HOURS_OF[name], starts, recompute)
    return starts


def roll_up(setup: Setup, name: str, blocks: set[int]) -> None:
    """Windows and hours of dirty minutes of the minutes table `name`."""
    make_hours(setup, WINDOWS_OF[name].name, make_windows(setup, name, blocks))


def _remake(setup: Setup, table: Table, blocks: set[int], recompute: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Replace blocks of a derived table; rows whose sources retention has removed stay as they are."""
    replace_blocks(
        setup.root, table, blocks, lambda existing: removed.kept(setup.root, existing, recompute(existing), table)
    )


def _read(setup: Setup, table: Table, blocks: set[int], columns: Sequence[str] | None = None) -> pl.DataFrame:
    return lake.read(setup.root, table, blocks, columns)

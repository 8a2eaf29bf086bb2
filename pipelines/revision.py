"""Judging messages again: quarantined ones after a fix (`replay-quarantine`), the raw log after a new decoder or a
corrected registry (`rebuild`). Both are one thing: the rows of each message are superseded by those that it makes now.

Order of a chunk: what is refused is in quarantine before its rows leave their tables, what passes is in its tables
before it leaves quarantine, each step durable before the next. A crash leaves a message in both, never in neither, and
doing it again heals.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from contracts.layout import Layout, Positions, Segment, instances, sealed_segments
from contracts.registry import Registry
from contracts.schemas import DUPLICATES, QUARANTINE, READING_TABLES, TABLES, Table
from contracts.segments import read_segment
from pipelines import dirty, durability, lake
from pipelines.blocks import blocks_of
from pipelines.judgement import LANDED, Judgement, changes, judge, quarantined_copies
from pipelines.kernels.frames import empty
from pipelines.kernels.unite import supersede
from pipelines.lake import replace_blocks, scan
from pipelines.stages import MINUTES_OF, Setup, registry

CHUNK_ROWS = 100_000


@dataclass(kw_only=True)
class Tally:
    """Rows that change, by table, kind of change and reason; a row that several chunks touch counts once."""

    rows: dict[tuple[str, str, str], list[pl.Series]] = field(default_factory=dict)

    def add(self, judgement: Judgement) -> None:
        for table, kind, reason, rows in changes(judgement):
            self.rows.setdefault((table, kind, reason), []).append(rows)

    @property
    def counts(self) -> Counter[tuple[str, str, str]]:
        return Counter({what: pl.concat(rows).n_unique() for what, rows in self.rows.items()})


class Revision:
    """One pass over chunks of landed messages by the holder of the lake's lock."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.layout = Layout(setup.root)
        self.positions = Positions.load(self.layout.positions)
        # one registry for the whole pass, whatever happens to its file meanwhile
        self.entries: Registry = registry(setup.registry)
        self.elsewhere = quarantined_copies(setup)
        self.tally = Tally()

    def judge(self, landed: pl.DataFrame) -> Judgement:
        """What a chunk of LANDED would change."""
        found = judge(self.setup, self.entries, landed.select(list(LANDED)).unique(), self.elsewhere)
        self.tally.add(found)
        return found

    def apply(self, judgement: Judgement) -> None:
        """Make it so, and claim it."""
        stale: dict[str, set[int]] = {}
        for name, minutes in MINUTES_OF.items():
            blocks = _blocks(judgement, TABLES[name])
            stale[minutes.name] = stale.get(minutes.name, set()) | blocks
        dirty.note(self.layout.dirty, stale)
        for table in (QUARANTINE, DUPLICATES):
            self._replace(table, empty(table), judgement.new[table.name])
        self._make_durable()
        for table in (*READING_TABLES, DUPLICATES):
            self._replace(table, judgement.gone[table.name], judgement.new[table.name])
        dirty.recompute(self.setup, stale)
        self._make_durable()
        self._replace(QUARANTINE, judgement.gone[QUARANTINE.name], judgement.new[QUARANTINE.name])
        before = self.positions
        self.positions = durability.claim(self.setup.root, before, before.offsets, before.covered_us)
        dirty.forget(self.layout.dirty)

    def _replace(self, table: Table, gone: pl.DataFrame, new: pl.DataFrame) -> None:
        blocks = blocks_of(gone, table) | blocks_of(new, table)
        replace_blocks(self.setup.root, table, blocks, lambda existing: supersede(existing, gone, new, table))

    def _make_durable(self) -> None:
        durability.make_durable(self.setup.root, self.positions.versions, lake.versions(self.setup.root))


def _blocks(judgement: Judgement, table: Table) -> set[int]:
    return blocks_of(judgement.gone[table.name], table) | blocks_of(judgement.new[table.name], table)


def raw_segments(raw: Path, since: datetime | None) -> list[Segment]:
    """What raw retention has left; only what was sealed after a moment, when one is given."""
    found = [segment for name in instances(raw) for segment in sealed_segments(raw, name)]
    return found if since is None else [one for one in found if _sealed_s(one.path(raw)) >= since.timestamp()]


def _sealed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")  # merged meanwhile: reading will find it


def raw_chunks(raw: Path, segments: Iterable[Segment], since: datetime | None) -> Iterator[pl.DataFrame]:
    """The messages of segments, about CHUNK_ROWS at a time."""
    parts: list[pl.DataFrame] = []
    rows = 0
    for segment in segments:
        try:
            part: pl.DataFrame = pl.DataFrame(read_segment(raw, segment).select(list(LANDED)))
        except FileNotFoundError:
            continue  # retention removed it since it was listed
        if since is not None:
            part = part.filter(pl.col("received_time") >= since)
        parts.append(part)
        rows += part.height
        if rows >= CHUNK_ROWS:
            yield pl.concat(parts)
            parts, rows = [], 0
    if rows:
        yield pl.concat(parts)


def quarantined(setup: Setup, reasons: Sequence[str], since: datetime | None) -> pl.DataFrame:
    """Rows of the quarantined messages of which any copy has one of the reasons (none given: any) and was received
    since a moment; all copies of each, messages that came first first."""
    rows = scan(setup.root, QUARANTINE)
    wanted = pl.lit(value=True)
    if reasons:
        wanted &= pl.col("reason").is_in(reasons)
    if since is not None:
        wanted &= pl.col("received_time") >= since
    message = ["topic", "digest"]
    return (
        rows.join(rows.filter(wanted).select(message).unique(), on=message, how="semi")
        .select(QUARANTINE.schema.names)
        .collect()
        .sort(pl.col("received_time").min().over(message), *message, "received_time")
    )


def quarantine_chunks(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Quarantined rows, about CHUNK_ROWS at a time, no message in two of them."""
    number = rows.select(pl.struct("topic", "digest").rle_id()).to_series()
    at = 0
    while at < rows.height:
        end = min(at + CHUNK_ROWS, rows.height)
        while end < rows.height and number[end] == number[end - 1]:
            end += 1
        yield rows[at:end]
        at = end

"""Announces windows as final: what landed since the last look joins the cover of seqs, and the kernel tells how far
every stream has come.

The cover lives in memory and is found again from the lake: the first looks read what could still matter, part by part,
later ones what was received since.
"""

import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl

from contracts.payloads import Reading, Reason, decode
from contracts.registry import Registry
from contracts.schemas import DEVICE_STATUS, FOOTFALL, LANE_FLOWS, OBSERVATIONS, QUARANTINE, Table
from contracts.times import from_us, to_us
from pipelines.announcements import announce, final_through
from pipelines.kernels import finality as kernel
from pipelines.kernels.finality import COVER, MESSAGES, STATEMENTS
from pipelines.kernels.rows import FRAME_OF
from pipelines.lake import file_bounds, newest_version, scan
from pipelines.stages import Setup, registry

# streams whose readings become windows, by the table that their readings lie in
STREAMS = {"weather": OBSERVATIONS, "air": OBSERVATIONS, "pedestrian": FOOTFALL, "traffic": LANE_FLOWS}
# before the windows that are not final yet: within this a post that sends has said something
CONTEXT = timedelta(minutes=10)
# a segment is sealed within a second of its receipts, by a clock that may differ from ours. What is sealed later is
# missed here, which never makes a window final too early
SEALED_WITHIN = timedelta(seconds=60)
PART = timedelta(minutes=5)
ANNOUNCE_S = 60  # between two looks
REMEMBERED = timedelta(hours=24)  # boots of which nothing was heard for so long are forgotten
# a message that its clock speaks against has landed, but not at the time that it tells
_WRONG_CLOCK = [Reason.FUTURE.value, Reason.TOO_OLD.value]
_ORIGIN = ["post_id", "boot_id", "seq", "first_seq", "event_time", "received_time", "digest"]


class Finality:
    """State of one owner of the positions. `grace_s`: a window is final so long after its end, whatever is missing."""

    def __init__(self, setup: Setup, grace_s: float):
        self._setup = setup
        self._grace_s = grace_s
        self._cover: pl.DataFrame = COVER.to_frame()
        self._part: datetime | None = None  # where the next part of event time begins, while there is one
        self._received: datetime | None = None  # receipts before it are in the cover
        self.is_caught_up = False
        self.final_through: dict[str, datetime] = final_through(setup.root)

    def look(self, covered_us: int) -> bool:
        """Announce what has become final; whether anything has. `covered_us`: every segment sealed before it is
        contained. The tables must be durable as they stand: no power cut may take back what is announced."""
        covered = from_us(covered_us)
        entries = registry(self._setup.registry)
        streams = self._streams(entries)
        announced = final_through(self._setup.root)
        by_grace = kernel.grace_through(covered, self._grace_s)
        final = {stream: announced.get(stream, by_grace) for stream in streams}
        self._take_up(max(min(final.values(), default=by_grace), by_grace) - CONTEXT, covered)
        if not self.is_caught_up:
            return False
        posts = [(post.post_id, stream) for post in entries.valid(covered_us) for stream in post.streams]
        given: pl.DataFrame = pl.DataFrame(posts, schema={"post_id": pl.String, "stream": pl.String}, orient="row")
        through = kernel.contiguous_through(self._cover, given, final, covered)
        now = from_us(time.time_ns() // 1000)
        rows = kernel.announcements(through, announced, streams, covered, self._grace_s, now)
        announce(self._setup.root, rows)
        self.final_through = final_through(self._setup.root)
        return not rows.is_empty()

    def _streams(self, entries: Registry) -> frozenset[str]:
        given = frozenset[str]().union(*(post.streams for post in entries.file.lampposts))
        return frozenset(name for name, table in STREAMS.items() if name in given and self._has_rows(table))

    def _has_rows(self, table: Table) -> bool:
        return bool(file_bounds(newest_version(self._setup.root, table.name), table))

    def _take_up(self, since: datetime, covered: datetime) -> None:
        """Let the cover grow by what was received since the last look, or by the next part of event time."""
        if self._received is None:
            self._part, self._received = since, covered
        start, end = since, None
        received = self._received - SEALED_WITHIN
        if self._part is not None:
            start, end, received = self._part, self._part + PART, from_us(0)
            end = end if end <= covered else None
        wanted = Wanted(start=start, end=end, received=received, covered=covered)
        # a heartbeat that was stored for hours may report what was dropped of the last minutes
        said = wanted if self._part is not None else replace(wanted, start=start - REMEMBERED)
        covers = (kernel.landed(self._messages(wanted)), kernel.stated(self._statements(said)))
        self._cover = kernel.without_old(kernel.unite_covers(self._cover, *covers), covered - REMEMBERED)
        if self._part is None:
            self._received = covered
        self._part = end
        self.is_caught_up = end is None

    def _rows(self, table: Table, wanted: "Wanted") -> pl.LazyFrame:
        return scan(self._setup.root, table, to_us(wanted.start)).filter(wanted.of(table))

    def _messages(self, wanted: "Wanted") -> pl.DataFrame:
        """MESSAGES that landed, refused ones included; a message may have several rows."""
        parts = []
        for table in (OBSERVATIONS, LANE_FLOWS, FOOTFALL, DEVICE_STATUS):
            rows = self._rows(table, wanted)
            if table is DEVICE_STATUS:
                rows = rows.filter(pl.col("kind") != "will")
            if table.stream is not None:
                rows = rows.with_columns(stream=pl.lit(table.stream))
            parts.append(rows.select(MESSAGES.names()).collect())
        refused = self._rows(QUARANTINE, wanted).drop_nulls(["post_id", "stream", "boot_id", "seq", "first_seq"])
        is_wrong = pl.col("reason").is_in(_WRONG_CLOCK)
        time_or_null = pl.when(~is_wrong).then("event_time")
        parts.append(refused.with_columns(event_time=time_or_null).select(MESSAGES.names()).collect())
        return pl.concat(parts)

    def _statements(self, wanted: "Wanted") -> pl.DataFrame:
        """STATEMENTS of births and heartbeats, also of those that only their clock speaks against."""
        said = self._rows(DEVICE_STATUS, wanted).select(STATEMENTS.names()).collect()
        refused = self._rows(QUARANTINE, wanted).filter(
            (pl.col("stream") == "status") & pl.col("reason").is_in(_WRONG_CLOCK) & pl.col("seq").is_not_null()
        )
        found = refused.with_columns(event_time="received_time").collect()
        readings = [decode(topic, payload) for topic, payload in found.select("topic", "payload").iter_rows()]
        kept = found.filter(pl.Series([isinstance(one, Reading) for one in readings], dtype=pl.Boolean))
        if kept.is_empty():
            return said
        _, rows_of = FRAME_OF["status"]
        payloads = [one.payload for one in readings if isinstance(one, Reading)]
        return pl.concat([said, rows_of(kept.select(_ORIGIN), payloads).select(STATEMENTS.names())])


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Rows of event times [start, end), of quarantine by receipt, that were received since a moment and before
    another: of what came later, workers of a stream may have taken up some and not the rest."""

    start: datetime
    end: datetime | None
    received: datetime
    covered: datetime

    def of(self, table: Table) -> pl.Expr:
        time = pl.col(table.time)
        until = pl.lit(value=True) if self.end is None else time < self.end
        received = pl.col("received_time")
        return (time >= self.start) & until & (received >= self.received) & (received < self.covered)

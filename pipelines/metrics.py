"""What a scrape of running pipelines sees, and whether they are well. Counted per tick."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contracts.layout import instances, sealed_segments
from contracts.times import US
from pipelines import counts

TICK_S = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
STILL_S = 60.0  # no tick has ended, or the lake is behind, for longer: not well
_PREFIX = "lamplight_pipelines_"


class Metrics:
    """The figures of one process, in a registry of their own. `covered_us` is when it began until a tick has told."""

    def __init__(self, raw: Path) -> None:
        self.registry = CollectorRegistry()
        self.covered_us = time.time_ns() // 1000
        self.offsets: Mapping[str, int] = {}
        self._raw = raw
        self._ended = time.monotonic()
        self._messages = self._counter("messages", "Messages read from the raw log.")
        self._bytes = self._counter("payload_bytes", "Payloads read from the raw log.")
        self._readings = self._counter("readings", "Rows decoded, by table.", "table")
        self._quarantined = self._counter("quarantined", "Messages refused, by reason.", "reason")
        self._of_tables = {
            counts.REPLACED_BLOCKS: self._counter("replaced_blocks", "Minutes of a table that changed.", "table"),
            counts.WRITTEN_ROWS: self._counter("written_rows", "Rows of the blocks that changed.", "table"),
            counts.CONFLICTS: self._counter("conflicts", "Replacements that another writer was before.", "table"),
            counts.REPEATS: self._counter("repeats", "Made again: what had been read was changed by another.", "table"),
        }
        self._stage_s = self._counter("stage_seconds", "Time spent, by stage of the graph.", "stage")
        self.disk_failures = self._counter("disk_failures", "Ticks that the disk refused.")
        self._newest = self._gauge("last_event_timestamp_seconds", "Newest event time, by stream.", "stream")
        self._files = self._gauge("table_files", "Files of a table.", "table")
        self._table_bytes = self._gauge("table_bytes", "Bytes of a table's files.", "table")
        self._chores_s = self._gauge("chores_seconds", "The last round of housekeeping, beside the ticks.")
        self._versions = self._gauge("table_version", "Version of a table that positions.json claims.", "table")
        self._released = self._gauge("released_windows", "Windows archived as open data since the start.")
        self._final = self._gauge(
            "final_through_timestamp_seconds", "End of the newest window announced as final, by stream.", "stream"
        )
        self._tick_s = Histogram(_PREFIX + "tick_seconds", "One tick.", buckets=TICK_S, registry=self.registry)
        self._gauge("lag_seconds", "How far the lake is behind now.").set_function(lambda: self.lag_s)
        self._gauge("segments_waiting", "Sealed segments that the tables do not contain.").set_function(self._waiting)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, meaning, labels, registry=self.registry)

    @property
    def lag_s(self) -> float:
        """Seconds that the newest moment which the lake covers lies behind now."""
        return max(0.0, time.time() - self.covered_us / US)

    def _waiting(self) -> int:
        offsets = self.offsets
        return sum(len(sealed_segments(self._raw, name, offsets.get(name, 0))) for name in instances(self._raw))

    def met(self, found: Mapping[str, int]) -> None:
        """Count what a run of the graph has met, by the names of `counts`."""
        for name, amount in found.items():
            kind, _, label = name.partition("/")
            if name == counts.MESSAGES:
                self._messages.inc(amount)
            elif name == counts.BYTES:
                self._bytes.inc(amount)
            elif kind + "/" == counts.READINGS:
                self._readings.labels(label).inc(amount)
            elif kind + "/" == counts.QUARANTINED:
                self._quarantined.labels(label).inc(amount)
            elif kind + "/" in self._of_tables:
                self._of_tables[kind + "/"].labels(label).inc(amount)
            elif kind + "/" == counts.STAGE_US:
                self._stage_s.labels(label).inc(amount / US)
            else:
                self._newest.labels(label).set(amount / US)

    def ticked(self, spent_s: float, covered_us: int, offsets: Mapping[str, int], released: int) -> None:
        """A tick has ended."""
        self._ended = time.monotonic()
        self._tick_s.observe(spent_s)
        self._released.set(released)
        self.covered_us, self.offsets = covered_us or self.covered_us, offsets

    def claimed(self, versions: Mapping[str, int], sizes: Callable[[str], list[int]]) -> None:
        """positions.json claims these versions; `sizes` tells the bytes of each of a table's files."""
        for name, version in versions.items():
            self._versions.labels(name).set(version)
            own = sizes(name)
            self._files.labels(name).set(len(own))
            self._table_bytes.labels(name).set(sum(own))

    def tidied(self, spent_s: float) -> None:
        """A round of housekeeping has ended."""
        self._chores_s.set(spent_s)

    def final(self, through: Mapping[str, datetime]) -> None:
        """Windows that end until then are announced as final, by stream."""
        for stream, moment in through.items():
            self._final.labels(stream).set(moment.timestamp())

    def check(self) -> tuple[bool, Mapping[str, int | float | str | None]]:
        """For /health: a tick has ended and the lake was up to date within STILL_S."""
        still_s, lag_s = time.monotonic() - self._ended, self.lag_s
        is_well = still_s < STILL_S and lag_s <= STILL_S
        return is_well, {"seconds_since_tick": round(still_s, 1), "lag_s": round(lag_s, 1)}

"""What the receipts process says of itself: counts, and how far it is behind; for a scraper and for people."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ingest.tidy import Tidied

HANGS_S = 30.0
BEHIND_S = 60.0
_DELAYS_S = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 30.0)

_COUNTERS = {
    "messages": "Messages read from sealed segments, copies included.",
    "published": "Receipts that the broker has taken.",
    "refused": "Receipts that the broker has refused.",
    "reconnects": "Connections after the first.",
    "skipped": "Sealed segments that could not be read and were passed over.",
    "merged": "Segments that became part of a merged one.",
    "removed": "Segments removed past their retention.",
}
_GAUGES = {
    "posts": "Posts that are known.",
    "boots": "Boots that are known, at most 16 of a post.",
    "waiting": "Posts that wait for a receipt.",
    "lag_offsets": "Offsets of sealed segments that were not read yet.",
    "lag_seconds": "Age of the row read last while others wait; else 0.",
    "is_connected": "Whether the connection to the broker stands.",
    "last_published_seconds": "When the broker last took a receipt, seconds since 1970; 0 before the first.",
}


@dataclass(eq=False)
class Tally:
    """`delays`: from a message's receipt by ingest to the sending of the post's receipt that first tells of it."""

    messages: int = 0
    published: int = 0
    refused: int = 0
    reconnects: int = 0
    skipped: int = 0
    merged: int = 0
    removed: int = 0
    posts: int = 0
    boots: int = 0
    waiting: int = 0
    lag_offsets: int = 0
    lag_seconds: float = 0.0
    is_connected: int = 0
    last_published_seconds: float = 0.0
    turned_at: float = field(default_factory=time.monotonic)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.delays = Histogram(
            "lamplight_receipts_delay_seconds",
            "From a message's receipt by ingest to the receipt of its post.",
            buckets=_DELAYS_S,
            registry=self.registry,
        )
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"lamplight_receipts_{name}", text, getattr(self, name))
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"lamplight_receipts_{name}", text, getattr(self, name))

    def check(self) -> tuple[bool, Mapping[str, int | float | str | None]]:
        """Whether receipts leave and are not long behind."""
        hangs_s = time.monotonic() - self.turned_at
        is_well = bool(self.is_connected) and self.lag_seconds < BEHIND_S and hangs_s < HANGS_S
        return is_well, self.figures() | {"last_turn_s": round(hangs_s, 3)}

    def tidied(self, done: Tidied) -> None:
        """Count what a round of tidying did."""
        self.merged += done.merged
        self.removed += done.removed

    def figures(self) -> dict[str, int | float | str | None]:
        """Every count, by name."""
        return {name: getattr(self, name) for name in (*_COUNTERS, *_GAUGES)}

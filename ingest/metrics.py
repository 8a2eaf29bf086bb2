"""What a scrape of a running ingest sees. Counted per commit, never per message: Python is slow enough."""

import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contracts.times import US
from contracts.topics import parse_device_topic
from ingest.arrival import Arrival

COMMIT_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
OTHER = "other"  # what is no device's topic


class Metrics:
    """The figures of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._messages = Counter(
            "lamplight_ingest_messages", "Messages made durable.", ["stream"], registry=self.registry
        )
        self._bytes = Counter("lamplight_ingest_payload_bytes", "Payloads made durable.", registry=self.registry)
        self._commit_s = Histogram(
            "lamplight_ingest_commit_seconds", "Write and fsync.", buckets=COMMIT_S, registry=self.registry
        )
        self._newest = Gauge(
            "lamplight_ingest_last_landed_timestamp_seconds",
            "When the newest message of a stream was received.",
            ["stream"],
            registry=self.registry,
        )
        self.reconnects = Counter(
            "lamplight_ingest_reconnects", "Connections after the first one.", registry=self.registry
        )
        self.sessions_lost = Counter(
            "lamplight_ingest_sessions_lost", "Times the broker had forgotten us.", registry=self.registry
        )
        self.disk_failures = Counter(
            "lamplight_ingest_disk_failures", "Times the disk began to refuse commits.", registry=self.registry
        )

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A gauge `lamplight_ingest_{name}` that is read at each scrape, by another thread."""
        Gauge(f"lamplight_ingest_{name}", meaning, registry=self.registry).set_function(value)

    def committed(self, arrivals: Sequence[Arrival], spent_s: float) -> None:
        """Count a commit that took so many seconds."""
        self._commit_s.observe(spent_s)
        self._bytes.inc(sum([len(arrival.payload) for arrival in arrivals]))
        streams: Tally[str] = Tally()
        for topic, count in Tally([arrival.topic for arrival in arrivals]).items():
            named = parse_device_topic(topic)
            streams[OTHER if named is None else named[1]] += count
        received_s = arrivals[-1].received_us / US
        for stream, count in streams.items():
            self._messages.labels(stream).inc(count)
            # within a commit, which is milliseconds long, the newest of all is near enough
            self._newest.labels(stream).set(received_s)


def age_s(since: float | None) -> float:
    """Seconds since a moment of time.monotonic(); 0 for None."""
    return 0.0 if since is None else max(0.0, time.monotonic() - since)

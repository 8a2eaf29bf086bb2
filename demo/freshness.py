"""Freshness as an open-data user sees it: from a reading's publication to its being in the feed that HTTP serves."""

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

import httpx
import msgspec

from contracts.times import to_us

EXACT_FEEDS = ("weather", "air")


class _Row(msgspec.Struct):
    post_id: str
    data_through: datetime


class _Feed(msgspec.Struct):
    generated_at: datetime
    rows: list[_Row]


@dataclass(kw_only=True)
class Freshness:
    """Samples of (moment seen, age in seconds): one when a post's newest reading first shows in a feed.

    Only readings made at or after `since_us` count: stored ones were published late, not shown late.
    """

    client: httpx.Client
    since_us: int = 0
    samples: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=200_000))
    rows: dict[str, int] = field(default_factory=dict)
    generated_us: int = 0
    _seen: dict[tuple[str, str], datetime] = field(default_factory=dict)
    _tags: dict[str, str] = field(default_factory=dict)

    def look(self) -> None:
        """Fetch the exact feeds, as a polite client does: with the ETag that it has."""
        for name in EXACT_FEEDS:
            try:
                tag = self._tags.get(name)
                answer = self.client.get(f"/latest/{name}.json", headers={"If-None-Match": tag} if tag else {})
            except httpx.TransportError:
                continue
            if answer.status_code != 200:
                continue
            self._tags[name] = answer.headers.get("etag", "")
            self._take(name, msgspec.json.decode(answer.content, type=_Feed))

    def _take(self, name: str, feed: _Feed) -> None:
        now = time.time()
        self.rows[name] = len(feed.rows)
        self.generated_us = max(self.generated_us, to_us(feed.generated_at))
        for row in feed.rows:
            before = self._seen.get((name, row.post_id))
            if before is None or row.data_through > before:
                self._seen[name, row.post_id] = row.data_through
                if self.since_us and to_us(row.data_through) >= self.since_us:
                    self.samples.append((now, now - row.data_through.timestamp()))

    def percentiles(self, last_s: float = float("inf")) -> tuple[float, float] | None:
        """p50 and p95 in seconds of the samples seen in the last so many seconds; None without samples."""
        ages = sorted(age for seen, age in self.samples if seen >= time.time() - last_s)
        if not ages:
            return None
        return ages[len(ages) // 2], ages[min(len(ages) - 1, int(len(ages) * 0.95))]

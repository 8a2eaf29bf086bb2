"""When each post sends what: slots that depend on nothing but the fleet and the clock.

Sample streams are spread evenly over their cadence. Period streams are sent a little after the aligned period's end.
A load (`factor` above or below 1) shortens or stretches every cadence alike, so the mix stays the pilot's; then the
period streams are spread over their whole cadence too. A post has only so many real half-minutes: with a factor
above 1 the half-minutes begin as far in the past as lets the last one of `seconds` be the latest that has ended.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from contracts.registry import Lamppost
from contracts.streams import STREAMS
from contracts.times import US
from sensors_sim import sky, streets
from sensors_sim.city import City
from sensors_sim.hashing import Ints, mix, salt

_AFTER_END_US = 200_000  # a period's summary leaves no sooner than this after its end
_NATURAL = 0.03  # a rate within 3 % of the fleet's own is the fleet's own


@dataclass(frozen=True, eq=False)
class Slots:
    """Messages of one stream that are due in a span: post index, phenomenon time, and the moment of sending."""

    stream: str
    posts: Ints
    time_us: Ints
    due_us: Ints


def natural_rate(posts: tuple[Lamppost, ...]) -> float:
    """Messages a second of these posts at the devices' cadence (dumping aside)."""
    cadences = (STREAMS[stream].cadence_s for post in posts for stream in post.streams)
    return sum(1 / cadence_s for cadence_s in cadences if cadence_s)


class Schedule:
    """Slots of a city's posts. `start_us` is the beginning of the live phase, `factor` the load's."""

    def __init__(self, city: City, start_us: int, factor: float = 1.0, seconds: float = 3600.0):
        self._city = city
        self._start_us = start_us
        self.factor = 1.0 if abs(factor - 1) < _NATURAL else factor
        self._seconds = seconds
        self._members: dict[str, tuple[Ints, Ints]] = {}  # post index and phase
        for stream in STREAMS.values():
            posts = [number for number, post in enumerate(city.posts) if stream.name in post.streams]
            members = np.array(posts, dtype=np.int64)
            rank = np.argsort(np.argsort(mix(city.keys[members], int(salt(stream.name) >> np.uint64(1)))))
            span_us = self.cadence_us(stream.name)
            if stream.is_period and self.factor == 1.0:
                # What one publisher sends without a queue: 4 s for the pilot, up to 25 s for 40,000 posts.
                span_us = min(25 * US, max(4 * US, len(posts) * 10_000))
            self._members[stream.name] = (members, rank * span_us // max(1, len(posts)))

    def cadence_us(self, stream: str) -> int:
        """Microseconds between a post's messages of a stream under this load; 0 for events."""
        return round((STREAMS[stream].cadence_s or 0) * US / self.factor)

    def counts(self, stream: str, from_us: int, to_us: int) -> Ints:
        """How many messages of a stream each post sends in (from, to]."""
        counts = np.zeros(len(self._city.posts), dtype=np.int64)
        for slots in self._of_stream(stream, from_us, to_us):
            counts += np.bincount(slots.posts, minlength=len(counts))
        return counts

    def due(self, from_us: int, to_us: int) -> list[Slots]:
        """Everything that is due in (from, to], per stream in order of sending."""
        found = (slots for stream in STREAMS for slots in self._of_stream(stream, from_us, to_us))
        return [slots for slots in found if len(slots.posts)]

    def _of_stream(self, stream: str, from_us: int, to_us: int) -> Iterator[Slots]:
        posts, phase = self._members[stream]
        cadence_us = self.cadence_us(stream)
        if not cadence_us:
            yield from self._events(posts, from_us, to_us)
            return
        if STREAMS[stream].is_period and self.factor == 1.0:
            phase = phase + _AFTER_END_US
        first = (from_us - phase) // cadence_us + 1
        counts = (to_us - phase) // cadence_us + 1 - first
        row = np.repeat(np.arange(len(posts)), counts)
        slot = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        due_us = slot * cadence_us + phase[row]
        order = np.argsort(due_us, kind="stable")
        row, slot, due_us = row[order], slot[order], due_us[order]
        time_us = self._period_start(stream, slot, due_us) if STREAMS[stream].is_period else due_us
        yield Slots(stream=stream, posts=posts[row], time_us=time_us, due_us=due_us)

    def _period_start(self, stream: str, slot: Ints, due_us: Ints) -> Ints:
        period_us = (STREAMS[stream].cadence_s or 0) * US
        if self.factor == 1.0:
            return (slot - 1) * period_us
        if self.factor < 1.0:
            return (due_us // period_us - 1) * period_us
        cadence_us = self.cadence_us(stream)
        run = max(1, -(-round(self._seconds * US) // cadence_us))
        behind = -(-round(run * (1 - 1 / self.factor) * 1000) // 1000)
        number = (slot - self._start_us // cadence_us) % run
        return (self._start_us // period_us - 2 - behind + number) * period_us

    def _events(self, posts: Ints, from_us: int, to_us: int) -> Iterator[Slots]:
        hours = np.arange(from_us // sky.HOUR_US, to_us // sky.HOUR_US + 1)
        many, hour = np.tile(posts, len(hours)), np.repeat(hours, len(posts))
        found, time_us, _, _ = streets.dumping(self._city, many, hour)
        order = np.argsort(time_us, kind="stable")
        order = order[(time_us[order] > from_us) & (time_us[order] <= to_us)]
        yield Slots(stream="dumping", posts=many[found][order], time_us=time_us[order], due_us=time_us[order])

"""The context tests once more, slow and plain: one value at a time, lists and loops. An oracle for the kernel."""

from collections.abc import Mapping
from statistics import NormalDist, median

import numpy as np

from contracts.quality import AT_LEAST, LIMITS, Limits
from contracts.quantities import QUANTITIES

Minute = tuple[float, float, float]  # last, least and greatest value
Minutes = Mapping[tuple[str, str, int], Minute]  # by post, quantity and minute
Row = tuple[str, str, int, str, int]


def difference(one: float, other: float, is_circular: bool) -> float:
    return (one - other + 180) % 360 - 180 if is_circular else one - other


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, high = int(np.floor(place)), int(np.ceil(place))
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


class Oracle:
    def __init__(self, minutes: Minutes, areas: Mapping[str, str]):
        self.minutes, self.areas = minutes, areas
        self.known: dict[tuple[str, str, int], tuple[float, float] | None] = {}
        self.posts = sorted({post for post, _, _ in minutes})

    def neighbours(self, post: str) -> list[str]:
        own = self.areas.get(post)
        return [other for other in self.posts if other != post and own and self.areas.get(other) == own]

    def last(self, post: str, quantity: str, minute: int) -> float | None:
        found = self.minutes.get((post, quantity, minute))
        return None if found is None or (quantity == "wind_direction_deg" and found[0] == 0) else found[0]

    def expected(self, post: str, limits: Limits, minute: int) -> tuple[float, float, float, float] | None:
        """Newest value, how far below and above it a value may lie, and the width around that."""
        name = limits.quantity
        is_circular = name == "wind_direction_deg"
        recent = [value for back in range(1, 6) if (value := self.last(post, name, minute - back)) is not None]
        changes = {}
        for back in range(1, 60):
            after, before = (self.last(post, name, minute - back - more) for more in (0, 1))
            if after is not None and before is not None:
                changes[back] = difference(after, before, is_circular)
        if len(recent) < 3 or len(changes) < 10:
            return None
        newest = recent[0]
        middle = median([0.0, *(difference(value, newest, is_circular) for value in recent[1:3])])
        may = [0.0, middle]
        if limits.has_trend:
            last_four = [changes[back] for back in range(1, 5) if back in changes]
            slope = median(last_four) if len(last_four) == 4 else 0.0
            may += [slope, middle + 2 * slope]
        sizes = [float(np.float32(abs(change))) for change in changes.values()]
        scatter = sum(quantile(sizes, share) / NormalDist().inv_cdf((1 + share) / 2) / 2 for share in (0.7, 0.92))
        width = limits.spike_scales * max(limits.noise, scatter) + QUANTITIES[name].resolution / 2
        return newest, min(may), max(may), width

    def off(self, post: str, limits: Limits, minute: int) -> tuple[float, float] | None:
        """How many widths the last value lies below and above what is expected."""
        key = post, limits.quantity, minute
        if key not in self.known:
            self.known[key] = self._off(*key, limits)
        return self.known[key]

    def _off(self, post: str, quantity: str, minute: int, limits: Limits) -> tuple[float, float] | None:
        value, found = self.last(post, quantity, minute), self.expected(post, limits, minute)
        if value is None or found is None:
            return None
        newest, low, high, width = found
        distance = difference(value, newest, quantity == "wind_direction_deg")
        return (low - distance) / width, (distance - high) / width

    def spread(self, post: str, quantity: str, minute: int) -> tuple[float, int] | None:
        hour = [self.minutes.get((post, quantity, at)) for at in range(minute - 59, minute + 1)]
        known = [found for found in hour if found is not None]
        if len(known) < 2:
            return None
        low, lower = sorted(k[1] for k in known)[:2]
        high, higher = sorted((k[2] for k in known), reverse=True)[:2]
        return min(higher - low, high - lower), len(known)

    def bounds(self, post: str, limits: Limits, minute: int) -> tuple[float, float] | None:
        """Between which the hour expects values, widened by the neighbours."""
        expected, own = self.expected(post, limits, minute), self.off(post, limits, minute)
        if expected is None or own is None:
            return None
        newest, low, high, width = expected
        wide = []
        for side in (0, 1):
            others = [off[side] for other in self.neighbours(post) if (off := self.off(other, limits, minute))]
            moved = 2 * quantile(others, 0.9) if own[side] > 1 and len(others) >= 3 else 1.0
            wide.append(max(1.0, moved))
        return newest + low - width * wide[0], newest + high + width * wide[1]

    def rows(self, post: str, quantity: str, minute: int) -> set[Row]:
        """With clearings, which look at what the tests say of the other quantity."""
        found = self.refusals(post, quantity, minute)
        bounds = self.bounds(post, LIMITS[quantity], minute)
        for pair in AT_LEAST:
            if quantity not in (pair.greater, pair.lesser):
                continue
            other = pair.lesser if quantity == pair.greater else pair.greater
            greater, lesser = (self.minutes.get((post, name, minute)) for name in (pair.greater, pair.lesser))
            if greater is None or lesser is None or greater[1] >= lesser[2] - pair.tolerance:
                continue
            if not found and bounds is not None and self.refusals(post, other, minute):
                found.add((post, quantity, minute, "consistency", 1))
        return found

    def refusals(self, post: str, quantity: str, minute: int) -> set[Row]:
        limits, found = LIMITS[quantity], set[Row]()
        now = self.minutes.get((post, quantity, minute))
        if now is None:
            return found
        is_circular = quantity == "wind_direction_deg"
        expected, bounds = self.expected(post, limits, minute), self.bounds(post, limits, minute)
        if expected is not None and bounds is not None:
            newest, low, high, _ = expected
            tests = [("spike", 3, *bounds)]
            if limits.step_fail is not None:
                least, greatest = newest + low - limits.step_fail, newest + high + limits.step_fail
                tests.append(("step", 4, min(bounds[0], least), max(bounds[1], greatest)))
            for test, flag, least, greatest in tests:
                if is_circular:
                    away = abs((now[0] - (least + greatest) / 2 + 180) % 360 - 180)
                    is_out = away > (greatest - least) / 2
                else:
                    is_out = now[1] < least or now[2] > greatest
                if is_out:
                    found.add((post, quantity, minute, test, flag))
        hour = self.spread(post, quantity, minute)
        if limits.still is not None and hour is not None and hour[1] >= 48 and hour[0] <= limits.still:
            may = (limits.still_above is not None and now[0] >= limits.still_above) or (
                limits.still_below is not None and now[0] <= limits.still_below
            )
            if may and limits.still_neighbours is not None:
                others = [s[0] for other in self.neighbours(post) if (s := self.spread(other, quantity, minute))]
                may = not (len(others) >= 3 and quantile(others, 0.5) > limits.still_neighbours)
            if not may:
                found.add((post, quantity, minute, "persistence", 3))
        return found

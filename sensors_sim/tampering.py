"""How each fault changes fields, bytes or the way of a message."""

from typing import Any

import numpy as np

from contracts.payloads import SENTINEL
from contracts.quality import LIMITS
from contracts.quantities import QUANTITIES, Aggregation
from contracts.streams import STREAMS
from contracts.times import US
from sensors_sim import signals, sky
from sensors_sim.city import City
from sensors_sim.content import Fields
from sensors_sim.faults import FaultPlan, draw
from sensors_sim.schedule import Slots

Notes = dict[int, list[dict[str, Any]]]  # per row of the slots: what was injected


def tamper_values(city: City, plan: FaultPlan, slots: Slots, fields: list[Fields]) -> Notes:
    """Change values of weather and air in place."""
    notes: Notes = {}
    if slots.stream not in ("weather", "air"):
        return notes
    for name in ("stuck", "drift"):
        found = plan.episodes(city, name, slots.posts, slots.time_us)
        for row in np.flatnonzero(found.is_on).tolist():
            quantity = list(fields[row])[int(found.size[row] * len(fields[row]))]
            start_us = int(found.start_us[row])
            if name == "stuck":
                sent = float(
                    signals.value(city, quantity, slots.posts[row : row + 1], found.start_us[row : row + 1])[0]
                )
            else:
                minutes = (int(slots.time_us[row]) - start_us) / 60e6
                scale = QUANTITIES[quantity].high - QUANTITIES[quantity].low
                sent = min(QUANTITIES[quantity].high, round(fields[row][quantity] + scale * 0.001 * minutes, 1))
            _replace(notes, fields, row, name, quantity, sent, since_us=start_us)
    for name in ("spike", "sentinel", "out_of_range"):
        for row in plan.strikes(city, name, slots.stream, slots.posts, slots.time_us).tolist():
            post, time_us = int(slots.posts[row]), int(slots.time_us[row])
            quantity = list(fields[row])[int(draw(city, post, time_us, f"{name} quantity") * len(fields[row]))]
            limits = QUANTITIES[quantity]
            span = limits.high - limits.low
            if name == "sentinel":
                mark: float | str = SENTINEL if draw(city, post, time_us, "sentinel") < 0.5 else "////"
            elif name == "out_of_range":
                mark = round(limits.high + 0.5 * span, 1)
            elif name in plan.spans:
                spiked = _spiked(city, plan.spans[name], quantity, post, time_us, fields[row][quantity])
                if spiked is None:
                    continue
                mark = spiked
            else:
                true = fields[row][quantity]
                base = true if isinstance(true, float) else limits.low
                mark = round(base + (0.4 if base < limits.low + 0.5 * span else -0.4) * span, 1)
            _replace(notes, fields, row, name, quantity, mark)
    return notes


def _spiked(
    city: City, span: tuple[float, float], quantity: str, post: int, time_us: int, true: float | str
) -> float | None:
    """A value so many scatters off, up or down; None where there is none in the plausible range."""
    if isinstance(true, str) or quantity not in LIMITS:
        return None
    size = span[0] + (span[1] - span[0]) * draw(city, post, time_us, "spike size")
    off = size * scatter(city, quantity, post, time_us) * (1 if draw(city, post, time_us, "spike sign") < 0.5 else -1)
    limits = QUANTITIES[quantity]
    decimals = 0 if limits.resolution >= 1 else 1
    if limits.aggregation is Aggregation.CIRCULAR:
        # calm air has no direction, and half a turn is the most that one can be off
        return None if true == 0 or abs(off) > 170 else round((true + off) % 360) or 360
    for mark in (round(true + off, decimals), round(true - off, decimals)):
        if limits.low <= mark <= limits.high:
            return mark
    return None


def scatter(city: City, quantity: str, post: int, time_us: int) -> float:
    """Sigma of a spike's size: the standard deviation of the faultless signal's one-minute changes in the hour around,
    at least the quantity's `noise` of contracts.quality."""
    times = time_us + 60 * US * np.arange(-30, 31)
    changes = np.diff(signals.value(city, quantity, np.full(len(times), post), times))
    if QUANTITIES[quantity].aggregation is Aggregation.CIRCULAR:
        changes = (changes + 180) % 360 - 180
    return max(LIMITS[quantity].noise, float(changes.std()))


def _replace(
    notes: Notes, fields: list[Fields], row: int, name: str, quantity: str, sent: float | str, **more: int
) -> None:
    note = {"fault": name, "quantity": quantity, "replaced_value": fields[row][quantity], "sent_value": sent, **more}
    notes.setdefault(row, []).append(note)
    fields[row][quantity] = sent


def tamper_times(city: City, plan: FaultPlan, slots: Slots, fields: list[Fields], notes: Notes) -> list[int]:
    """The times that the devices write, microseconds: with a wrong clock's offset, or days ahead.

    A period stays aligned: a device aligns by its own clock.
    """
    times: list[int] = slots.time_us.tolist()
    step_us = (STREAMS[slots.stream].cadence_s or 0) * US if STREAMS[slots.stream].is_period else 1
    found = plan.episodes(city, "skew", slots.posts, slots.time_us)
    for row in np.flatnonzero(found.is_on).tolist():
        size = float(found.size[row])
        offset_s = round((5 + 595 * abs(2 * size - 1)) * (1 if size < 0.5 else -1), 1)
        times[row] += round(offset_s * US / step_us) * step_us
        if slots.stream == "status":
            fields[row]["clock_offset_s"] = round(fields[row]["clock_offset_s"] + offset_s, 3)
        notes.setdefault(row, []).append(
            {"fault": "skew", "offset_s": offset_s, "true_time_us": int(slots.time_us[row])}
        )
    for row in plan.strikes(city, "future", slots.stream, slots.posts, slots.time_us).tolist():
        true_us = int(slots.time_us[row])
        times[row] = true_us + (1 + int(3 * draw(city, int(slots.posts[row]), true_us, "future"))) * sky.DAY_US
        notes.setdefault(row, []).append({"fault": "future", "true_time_us": true_us})
    return times


def tamper_bytes(name: str, payload: bytes, part: float) -> bytes:
    """A payload that is no JSON any more: its last brace a bracket, or cut off at a part of its length."""
    if name == "malformed":
        return payload[:-1] + b"]"
    return payload[: 1 + int(part * (len(payload) - 1))]


def tamper_topic(name: str, topic: str) -> str:
    """The topic of a post that does not exist (ZZ....), or of a stream that does not."""
    head, post_id, stream = topic.rsplit("/", 2)
    return f"{head}/ZZ{post_id[-4:]}/{stream}" if name == "unknown_post" else f"{head}/{post_id}/{stream}s"

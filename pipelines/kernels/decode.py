"""Raw messages to readings and rejects.

What a message becomes depends on its topic, its bytes, its receipt, the registry and the tolerance only, so any
split of the raw log into segments gives the same rows.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from contracts.payloads import (
    DECODER_VERSION,
    DECODERS,
    LATEST_US,
    PERIODS_US,
    SCHEMA_VERSION,
    SENTINEL,
    VEHICLE_CLASSES,
    Birth,
    ClassCounts,
    Dumping,
    Heartbeat,
    Lane,
    Message,
    Payload,
    Pedestrian,
    Reading,
    Reason,
    Reject,
    Traffic,
    Will,
    decode,
    is_empty,
)
from contracts.quantities import of_stream
from contracts.registry import Registry
from contracts.schemas import (
    DEVICE_STATUS,
    DUMPING_EVENTS,
    FOOTFALL,
    LANE_FLOWS,
    OBSERVATIONS,
    QUARANTINE,
)
from contracts.streams import HALF_MINUTE_S
from contracts.times import US, to_us
from contracts.topics import parse_device_topic
from pipelines.kernels.flags import flag_footfall, flag_lanes, flag_observations
from pipelines.kernels.frames import conform

Frames = dict[str, pl.DataFrame]
Row = tuple[Any, ...]

_HEAD_FIELDS = len(Message.__struct_fields__)
_NO_CLASSES = (None,) * len(VEHICLE_CLASSES)
_ORIGIN = ("post_id", "boot_id", "seq", "first_seq", "event_time", "received_time", "digest")
_LANE_COLUMNS = (
    *_ORIGIN,
    "lane_index",
    "lane",
    "direction",
    "vehicle_count",
    *(f"{name}_count" for name in VEHICLE_CLASSES),
    "mean_speed_kmh",
    "speed_sd_kmh",
    "inverse_speed_sum_h_km",
    "occupancy_pct",
    "is_valid",
    "release_speed_sum",
    "is_repeated",
)
_STATUS_COLUMNS = (
    *_ORIGIN,
    "kind",
    "firmware",
    "clock_offset_s",
    "dropped_count",
    "previous_boot_id",
    "previous_highest_seq",
    "gateway_id",
)


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far an event time may lie from its receipt: `retention_s` behind it, `future_s` ahead of it."""

    retention_s: int = 30 * 86_400
    future_s: int = 60


def digest(payload: bytes) -> int:
    """BLAKE2b with 8 bytes of the payload, as a signed integer."""
    return int.from_bytes(blake2b(payload, digest_size=8).digest(), "big", signed=True)


def judge(
    reading: Reading, event_time_us: int, received_us: int, registry: Registry, tolerance: Tolerance
) -> tuple[Reason, str] | None:
    """What the registry and the clock have against a message; None when it is a reading."""
    if event_time_us > received_us + tolerance.future_s * US:
        return Reason.FUTURE, f"event time is more than {tolerance.future_s} s ahead of its receipt"
    if event_time_us < received_us - tolerance.retention_s * US:
        return Reason.TOO_OLD, f"event time is more than {tolerance.retention_s} s behind its receipt"
    entry = registry.entry(reading.post_id, event_time_us)
    if entry is None:
        if isinstance(reading.payload, Will) and reading.post_id in registry.gateways:
            return None
        return Reason.UNKNOWN_POST, "the registry has no such post at the message's time"
    if reading.stream not in entry.streams:
        return Reason.UNKNOWN_SENSOR, f"the registry gives the post no {reading.stream}"
    if isinstance(reading.payload, Traffic):
        for lane in reading.payload.lanes:
            if lane.direction not in entry.directions:
                return Reason.UNKNOWN_DIRECTION, f"the registry gives the post no direction {lane.direction!r}"
    return None


def decode_messages(raw: pa.Table, registry: Registry, tolerance: Tolerance) -> Frames:
    """Rows of RAW_SCHEMA to one frame per table, flagged, in the tables' schemas; empty tables are left out."""
    rows: dict[str, list[Row]] = {}
    received_times = raw["received_time"].cast(pa.int64()).to_pylist()
    accept = _acceptor(rows, registry, tolerance)
    for topic, payload, received_us in zip(
        raw["topic"].to_pylist(), raw["payload"].to_pylist(), received_times, strict=True
    ):
        mark = digest(payload)
        if not accept(topic, payload, received_us, mark):
            _decode_one(rows, topic, payload, received_us, mark, registry, tolerance)
    return _frames(rows)


def _acceptor(
    rows: dict[str, list[Row]], registry: Registry, tolerance: Tolerance
) -> Callable[[str, bytes, int, int], bool]:
    """The short way for messages that nothing speaks against: the conditions of `contracts.payloads.decode` and of
    `judge` in one function, because a call more for each message costs the pipeline a tenth of its speed. Whatever
    fails one of them goes the long way, which finds the reason."""
    future_us, retention_us = tolerance.future_s * US, tolerance.retention_s * US
    appenders = [(stream, DECODERS[stream].decode, _APPEND[stream], PERIODS_US.get(stream, 1)) for stream in _APPEND]
    ways = {stream: (read, append, period_us) for stream, read, append, period_us in appenders}

    def accept(topic: str, payload: bytes, received_us: int, mark: int) -> bool:
        place = parse_device_topic(topic)
        if place is None:
            return False
        post_id, stream = place
        read, append, period_us = ways[stream]
        try:
            message: Any = read(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if type(message) is Will or message.schema_version != SCHEMA_VERSION or message.seq < message.first_seq:
            return False
        event_us = to_us(message.time)
        if (
            event_us % period_us
            or not received_us - retention_us <= event_us <= received_us + future_us
            or not 0 <= event_us <= LATEST_US
        ):
            return False
        entry = registry.entry(post_id, event_us)
        if entry is None or stream not in entry.streams or is_empty(message):
            return False
        if stream == "traffic":
            for lane in message.lanes:
                if lane.direction not in entry.directions:
                    return False
        append(rows, (post_id, message.boot_id, message.seq, message.first_seq, event_us, received_us, mark), message)
        return True

    return accept


def _decode_one(
    rows: dict[str, list[Row]],
    topic: str,
    payload: bytes,
    received_us: int,
    mark: int,
    registry: Registry,
    tolerance: Tolerance,
) -> None:
    """The long way: a reading or a reject with its reason."""
    result = decode(topic, payload)
    if isinstance(result, Reading):
        event_us = received_us if result.event_time_us is None else result.event_time_us
        objection = judge(result, event_us, received_us, registry, tolerance)
        if objection is None:
            origin = (result.post_id, *_name(result.payload), event_us, received_us, mark)
            _APPEND[result.stream](rows, origin, result.payload)
            return
        result = _refused(result, *objection)
    rows.setdefault("quarantine", []).append(_reject_row(topic, payload, mark, received_us, result))


def _name(payload: Payload) -> tuple[str, int, int]:
    if isinstance(payload, Will):
        return payload.boot_id, payload.connection, 0
    return payload.boot_id, payload.seq, payload.first_seq


def _refused(reading: Reading, reason: Reason, detail: str) -> Reject:
    payload = reading.payload
    if isinstance(payload, Will):
        return Reject(reason, detail, reading.post_id, reading.stream, payload.boot_id)
    return Reject(
        reason,
        detail,
        reading.post_id,
        reading.stream,
        payload.boot_id,
        payload.seq,
        payload.first_seq,
        reading.event_time_us,
    )


def _reject_row(topic: str, payload: bytes, mark: int, received_us: int, reject: Reject) -> Row:
    return (
        topic,
        payload,
        mark,
        received_us,
        reject.reason.value,
        reject.detail,
        DECODER_VERSION,
        reject.post_id,
        reject.stream,
        reject.boot_id,
        reject.seq,
        reject.first_seq,
        reject.event_time_us,
    )


def _append_values(stream: str) -> Callable[[dict[str, list[Row]], Row, Any], None]:
    def append(rows: dict[str, list[Row]], origin: Row, payload: Message) -> None:
        rows.setdefault(stream, []).append(origin + msgspec.structs.astuple(payload)[_HEAD_FIELDS:])

    return append


def _append_lanes(rows: dict[str, list[Row]], origin: Row, payload: Traffic) -> None:
    out = rows.setdefault("lane_flows", [])
    named: set[tuple[str, str]] = set()
    for index, lane in enumerate(payload.lanes):
        place = (lane.direction, lane.lane)
        out.append((*origin, index, *_lane(lane), place in named))
        named.add(place)


def _lane(lane: Lane) -> Row:
    counts = lane.class_counts
    classes: Row = _NO_CLASSES if counts is None else _class_counts(counts)
    return (
        lane.lane,
        lane.direction,
        lane.vehicle_count,
        *classes,
        lane.mean_speed_kmh,
        lane.speed_sd_kmh,
        lane.inverse_speed_sum_h_km,
        lane.occupancy_pct,
        lane.is_valid,
        lane.release_speed_sum,
    )


def _class_counts(counts: ClassCounts) -> Row:
    return tuple(msgspec.structs.astuple(counts))


def _append_footfall(rows: dict[str, list[Row]], origin: Row, payload: Pedestrian) -> None:
    rows.setdefault("footfall", []).append((*origin, payload.crossings_in_count, payload.crossings_out_count))


def _append_dumping(rows: dict[str, list[Row]], origin: Row, payload: Dumping) -> None:
    rows.setdefault("dumping_events", []).append((*origin, payload.kind, payload.confidence))


def _append_status(rows: dict[str, list[Row]], origin: Row, payload: Birth | Heartbeat | Will) -> None:
    if isinstance(payload, Will):
        tail: Row = ("will", None, None, None, None, None, payload.gateway_id)
    elif isinstance(payload, Heartbeat):
        tail = ("heartbeat", payload.firmware, payload.clock_offset_s, payload.dropped_count, None, None, None)
    else:
        previous = payload.previous
        highest = None if previous is None else msgspec.json.encode(previous.highest_seq, order="sorted").decode()
        boot = None if previous is None else previous.boot_id
        tail = ("birth", payload.firmware, payload.clock_offset_s, None, boot, highest, None)
    rows.setdefault("device_status", []).append(origin + tail)


_APPEND: dict[str, Callable[[dict[str, list[Row]], Row, Any], None]] = {
    "weather": _append_values("weather"),
    "air": _append_values("air"),
    "traffic": _append_lanes,
    "pedestrian": _append_footfall,
    "dumping": _append_dumping,
    "status": _append_status,
}


def _columns(names: Iterable[str], rows: list[Row]) -> dict[str, list[Any]]:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _frames(rows: dict[str, list[Row]]) -> Frames:
    frames: Frames = {}
    values = [_observations(stream, rows[stream]) for stream in ("weather", "air") if stream in rows]
    if values:
        frames[OBSERVATIONS.name] = conform(flag_observations(pl.concat(values)), OBSERVATIONS)
    if lanes := rows.get("lane_flows"):
        frame = pl.DataFrame(_columns(_LANE_COLUMNS, lanes), schema_overrides=_overrides(LANE_FLOWS, _LANE_COLUMNS))
        frame = frame.with_columns(period_s=pl.lit(HALF_MINUTE_S))
        frames[LANE_FLOWS.name] = conform(flag_lanes(frame), LANE_FLOWS)
    if crossings := rows.get("footfall"):
        names = (*_ORIGIN, "crossings_in_count", "crossings_out_count")
        frame = pl.DataFrame(_columns(names, crossings)).with_columns(period_s=pl.lit(HALF_MINUTE_S))
        frames[FOOTFALL.name] = conform(flag_footfall(frame), FOOTFALL)
    if events := rows.get("dumping_events"):
        frame = pl.DataFrame(_columns((*_ORIGIN, "kind", "confidence"), events)).with_columns(flag=pl.lit(2))
        frames[DUMPING_EVENTS.name] = conform(frame, DUMPING_EVENTS)
    if states := rows.get("device_status"):
        overrides = _overrides(DEVICE_STATUS, _STATUS_COLUMNS)
        frame = pl.DataFrame(_columns(_STATUS_COLUMNS, states), schema_overrides=overrides)
        frames[DEVICE_STATUS.name] = conform(frame.with_columns(flag=pl.lit(2)), DEVICE_STATUS)
    if rejects := rows.get("quarantine"):
        names = tuple(QUARANTINE.schema.names)
        frame = pl.DataFrame(_columns(names, rejects), schema_overrides=_overrides(QUARANTINE, names))
        frames[QUARANTINE.name] = conform(frame, QUARANTINE)
    return frames


def _overrides(table: Any, names: Iterable[str]) -> dict[str, Any]:
    """Types of nullable columns, which a frame of nulls only could not infer; times arrive as integers."""
    kinds = {pa.int64(): pl.Int64, pa.int32(): pl.Int64, pa.float64(): pl.Float64, pa.string(): pl.String}
    found = {}
    for name in names:
        column = table.schema.field(name) if name in table.schema.names else None
        if column is not None and column.nullable:
            found[name] = pl.Int64 if pa.types.is_timestamp(column.type) else kinds[column.type]
    return found


def _observations(stream: str, rows: list[Row]) -> pl.DataFrame:
    """Wide rows of one stream to one row per value; "////" becomes the numeric sentinel."""
    names = [quantity.name for quantity in of_stream(stream)]
    columns = _columns((*_ORIGIN, *names), rows)
    origin = pl.DataFrame({name: columns[name] for name in _ORIGIN})
    parts = []
    for name in names:
        values = pl.Series(
            "value", [SENTINEL if type(value) is str else value for value in columns[name]], dtype=pl.Float64
        )
        part = origin.with_columns(values, quantity=pl.lit(name), stream=pl.lit(stream))
        parts.append(part.filter(pl.col("value").is_not_null()))
    return pl.concat(parts)

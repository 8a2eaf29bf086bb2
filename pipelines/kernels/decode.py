"""Raw messages to readings and rejects.

What a message becomes depends on its topic, its bytes, its receipt, the registry and the tolerance only, so any
split of the raw log into segments gives the same rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from contracts.payloads import (
    DECODER_VERSION,
    DECODERS,
    LATEST_US,
    PERIODS_US,
    SCHEMA_VERSION,
    Payload,
    Reading,
    Reason,
    Reject,
    Traffic,
    Will,
    decode,
    digest,
    is_empty,
)
from contracts.registry import Registry
from contracts.times import US, to_us
from contracts.topics import parse_device_topic
from pipelines.kernels.rows import APPEND, Frames, Row, to_frames


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far an event time may lie from its receipt: `retention_s` behind it, `future_s` ahead of it."""

    retention_s: int = 30 * 86_400
    future_s: int = 60


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
    return to_frames(rows)


def _acceptor(
    rows: dict[str, list[Row]], registry: Registry, tolerance: Tolerance
) -> Callable[[str, bytes, int, int], bool]:
    """The short way for messages that nothing speaks against: the conditions of `contracts.payloads.decode` and of
    `judge` in one function, because a call more for each message costs the pipeline a tenth of its speed. Whatever
    fails one of them goes the long way, which finds the reason."""
    future_us, retention_us = tolerance.future_s * US, tolerance.retention_s * US
    appenders = [(stream, DECODERS[stream].decode, APPEND[stream], PERIODS_US.get(stream, 1)) for stream in APPEND]
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
            APPEND[result.stream](rows, origin, result.payload)
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

"""What devices send: one msgspec struct per stream, and a decoder that never raises.

`schema_version`, `boot_id`, `seq` and `first_seq` are the first fields of the JSON object, in this order, so that
a payload that is cut off or broken further on can still be named. A will has no seq: it is fixed at CONNECT.

No field for a single passage, a picture, a plate or a MAC address exists, and unknown fields are refused: a device
that sends more than the contract is found in quarantine, not in a table.
"""

import re
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Literal

import msgspec

from contracts.streams import STREAMS
from contracts.times import US, to_us
from contracts.topics import parse_device_topic

SCHEMA_VERSION = 1
DECODER_VERSION = 3

VEHICLE_CLASSES = ("motorcycle", "private_car", "taxi", "light_goods", "heavy_goods", "bus", "other")

Version = Annotated[int, msgspec.Meta(ge=0, le=32767)]
BootId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]
# A failed sensor sends a sentinel in place of its value: the Observatory's "////", or -999 (a number, see SENTINEL).
Value = float | Literal["////"] | None
SENTINEL = -999.0


class Message(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True, gc=False):
    """The fields that every message but a will begins with.

    `seq` counts per post, boot and stream from 0; `first_seq` is the lowest seq of this boot and stream that the
    device still holds; `time` is the phenomenon time: the moment of a sample, or the start of a period.
    """

    schema_version: Version
    boot_id: BootId
    seq: Seq
    first_seq: Seq
    time: Time


class ClassCounts(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Vehicles of one lane and half-minute by class; a passage is in exactly one class."""

    motorcycle: Count
    private_car: Count
    taxi: Count
    light_goods: Count
    heavy_goods: Count
    bus: Count
    other: Count


class Lane(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True, gc=False):
    """One lane's summary of a half-minute.

    `speed_count` is n, the passages with a speed; without it all of `vehicle_count` had one.
    `mean_speed_kmh` and `speed_sd_kmh` are arithmetic over the n passages (the sd divides by n, so that
    n (mean^2 + sd^2) is the sum of squares), `inverse_speed_sum_h_km` is the sum of 1/v over them (space-mean speed =
    n / sum), `release_speed_sum` is the integer sum of (clamp(round(v), lo, hi) - centre) with lo, hi and centre of
    the registry; a passage without a speed adds 0 to it. `is_valid` is the detector's own word (online).
    """

    lane: Name
    direction: Name
    vehicle_count: Count
    class_counts: ClassCounts | None = None
    speed_count: Count | None = None
    mean_speed_kmh: float | None = None
    speed_sd_kmh: float | None = None
    inverse_speed_sum_h_km: float | None = None
    occupancy_pct: float | None = None
    is_valid: bool = True
    release_speed_sum: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31)] | None = None


class Traffic(Message, kw_only=True, omit_defaults=True):
    lanes: Annotated[list[Lane], msgspec.Meta(max_length=64)]


class Pedestrian(Message, kw_only=True, omit_defaults=True):
    crossings_in_count: Count
    crossings_out_count: Count


class Weather(Message, kw_only=True, omit_defaults=True):
    temperature_c: Value = None
    humidity_pct: Value = None
    wind_speed_ms: Value = None
    wind_direction_deg: Value = None
    wind_gust_ms: Value = None
    rain_mm: Value = None
    uv_index: Value = None
    pressure_hpa: Value = None


class Air(Message, kw_only=True, omit_defaults=True):
    no2_ug_m3: Value = None
    o3_ug_m3: Value = None
    so2_ug_m3: Value = None
    co_ug_m3: Value = None
    pm2_5_ug_m3: Value = None
    pm10_ug_m3: Value = None
    noise_dba: Value = None


class Dumping(Message, kw_only=True, omit_defaults=True):
    kind: Literal["household", "construction", "bulky", "other"]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]


# names of contracts.streams, as a type that the decoder checks
StreamName = Literal["traffic", "pedestrian", "weather", "air", "dumping", "status"]


class PreviousBoot(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The boot before this one, as the device finds it on its disk."""

    boot_id: BootId
    highest_seq: dict[StreamName, Seq]


class SeqRange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The seqs first_seq to last_seq, both included, of one boot and stream of the post."""

    boot_id: BootId
    stream: StreamName
    first_seq: Seq
    last_seq: Seq


class OldestHeld(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The lowest seq of one boot and stream that the post still holds."""

    boot_id: BootId
    stream: StreamName
    seq: Seq


class Birth(Message, kw_only=True, omit_defaults=True, tag_field="kind", tag="birth"):
    """Retained; the first status message of a boot."""

    firmware: Name
    clock_offset_s: float | None = None
    previous: PreviousBoot | None = None


class Heartbeat(Message, kw_only=True, omit_defaults=True, tag_field="kind", tag="heartbeat"):
    """Each minute. `clock_offset_s` is the device's own estimate (device clock minus UTC).

    `dropped_count` is how many messages this post has dropped in this boot without a receipt, because its buffer was
    full or because the platform never gave one; `dropped` names them, of any boot, each range in one heartbeat (and
    again only when that heartbeat was itself dropped). `oldest_held` names boots and streams whose receipts wait for a
    seq that the post does not hold, so that they need not wait.
    """

    firmware: Name
    clock_offset_s: float | None = None
    dropped_count: Count = 0
    dropped: Annotated[list[SeqRange], msgspec.Meta(max_length=100)] = []
    oldest_held: Annotated[list[OldestHeld], msgspec.Meta(max_length=100)] = []


class Will(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="will"):
    """Published by the broker when a connection dies; its event time is its receipt.

    `connection` counts the connections of a boot. A gateway's will stands on the gateway's own status topic and
    names the gateway.
    """

    schema_version: Version
    boot_id: BootId
    connection: Count
    gateway_id: Name | None = None


Payload = Traffic | Pedestrian | Weather | Air | Dumping | Birth | Heartbeat | Will

DECODERS: dict[str, msgspec.json.Decoder[Payload]] = {
    "traffic": msgspec.json.Decoder(Traffic),
    "pedestrian": msgspec.json.Decoder(Pedestrian),
    "weather": msgspec.json.Decoder(Weather),
    "air": msgspec.json.Decoder(Air),
    "dumping": msgspec.json.Decoder(Dumping),
    "status": msgspec.json.Decoder(Birth | Heartbeat | Will),
}
_ENCODER = msgspec.json.Encoder()
_HEAD = re.compile(
    rb'\s*\{\s*"schema_version"\s*:\s*(\d{1,5})\s*,\s*"boot_id"\s*:\s*"([0-9a-f]{16})"\s*,'
    rb'\s*"seq"\s*:\s*(\d{1,15})\s*,\s*"first_seq"\s*:\s*(\d{1,15})\s*[,}]'
)
_TIME = re.compile(rb'\s*"time"\s*:\s*("[^"\\]{1,40}")')
_TIME_DECODER = msgspec.json.Decoder(Time)
LATEST_US = 253_402_300_799 * US  # 9999-12-31, the last moment that every format here can write


class Reason(StrEnum):
    """Why a message is in quarantine."""

    UNKNOWN_TOPIC = "unknown_topic"  # not in the topic grammar
    UNKNOWN_POST = "unknown_post"  # no such post in the registry at the message's time
    UNKNOWN_SENSOR = "unknown_sensor"  # the registry gives the post no such stream
    UNKNOWN_DIRECTION = "unknown_direction"  # the registry gives the post no such direction
    MALFORMED = "malformed"  # not JSON: cut off, or broken bytes
    UNSUPPORTED_VERSION = "unsupported_version"  # a schema version that this decoder does not know
    INVALID = "invalid"  # JSON that breaks the contract: a missing, mistyped or unknown field
    EMPTY = "empty"  # a message without a single value
    UNALIGNED = "unaligned"  # a period that does not start at a half-minute
    TOO_OLD = "too_old"  # event time before the readings' retention
    FUTURE = "future"  # event time too far ahead of its receipt


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A message that keeps the contract. `event_time_us` is None for a will: its receipt is its event time."""

    post_id: str
    stream: str
    payload: Payload
    event_time_us: int | None


class Reject(msgspec.Struct, frozen=True, gc=False):
    """A message that breaks the contract, with as much of its name as its bytes still tell."""

    reason: Reason
    detail: str
    post_id: str | None = None
    stream: str | None = None
    boot_id: str | None = None
    seq: int | None = None
    first_seq: int | None = None
    event_time_us: int | None = None


def head(payload: bytes) -> tuple[str, int, int] | None:
    """(boot_id, seq, first_seq) where a payload's first bytes still tell them, whatever follows; a will has none."""
    found = _HEAD.match(payload)
    return (found[2].decode(), int(found[3]), int(found[4])) if found else None


def digest(payload: bytes) -> int:
    """BLAKE2b with 8 bytes of a payload, as a signed integer: what tells copies of a message apart in the lake."""
    return int.from_bytes(blake2b(payload, digest_size=8).digest(), "big", signed=True)


def encode(message: Payload) -> bytes:
    """The JSON bytes of a message, contract fields first (msgspec writes a tag first, so it is moved to the end)."""
    text = _ENCODER.encode(message)
    tag = message.__struct_config__.tag
    if tag is None:
        return text
    member = f'"kind":"{tag}"'.encode()
    return b"{" + text[len(member) + 2 : -1] + b"," + member + b"}"


def decode(topic: str, payload: bytes) -> Reading | Reject:
    """Read one message. Total: any topic and any bytes give a reading or a reject, never an exception.

    What needs the registry or a clock (unknown post, too old, ahead of its receipt) is judged by the pipeline.
    """
    place = parse_device_topic(topic)
    if place is None:
        return _reject(Reason.UNKNOWN_TOPIC, "topic is not lamplight/v1/{post_id}/{stream}", None, payload)
    try:
        message = DECODERS[place[1]].decode(payload)
    except msgspec.ValidationError as error:
        reason = Reason.INVALID
        head = _HEAD.match(payload)
        if head and int(head[1]) != SCHEMA_VERSION:
            reason = Reason.UNSUPPORTED_VERSION
        return _reject(reason, str(error), place, payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _reject(Reason.MALFORMED, str(error), place, payload)
    if message.schema_version != SCHEMA_VERSION:
        return _reject(Reason.UNSUPPORTED_VERSION, f"schema_version {message.schema_version}", place, payload)
    post_id, stream = place
    if stream == "status" and isinstance(message, Will):
        return Reading(post_id, stream, message, None)
    assert not isinstance(message, Will)
    if message.seq < message.first_seq:
        return _reject(Reason.INVALID, "seq is below first_seq", place, payload)
    event_time = to_us(message.time)
    if not 0 <= event_time <= LATEST_US:
        return _reject(Reason.INVALID, "time is outside 1970..9999", place, payload)
    period_us = PERIODS_US.get(stream)
    if period_us is not None and event_time % period_us:
        return _reject(Reason.UNALIGNED, f"period does not start at a multiple of {period_us // US} s", place, payload)
    if is_empty(message):
        return _reject(Reason.EMPTY, "no value in the message", place, payload)
    return Reading(post_id, stream, message, event_time)


def is_empty(message: Payload) -> bool:
    """Whether a message carries no value at all."""
    # each message of the raw log is asked this: a union of types would be made anew each time
    if isinstance(message, Traffic):
        return not message.lanes
    if isinstance(message, (Weather, Air)):
        fields = msgspec.structs.astuple(message)
        return fields.count(None) == len(fields) - _HEAD_FIELDS
    return False


_HEAD_FIELDS = len(Message.__struct_fields__)
PERIODS_US = {row.name: row.cadence_s * US for row in STREAMS.values() if row.is_period and row.cadence_s}


def _reject(reason: Reason, detail: str, place: tuple[str, str] | None, payload: bytes) -> Reject:
    post_id, stream = place if place else (None, None)
    head = _HEAD.match(payload)
    if head is None:
        return Reject(reason, detail, post_id, stream)
    event_time = None
    if time := _TIME.match(payload, head.end()):
        try:
            event_time = to_us(_TIME_DECODER.decode(time[1]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            event_time = None
        if event_time is not None and not 0 <= event_time <= LATEST_US:
            event_time = None
    return Reject(reason, detail, post_id, stream, head[2].decode(), int(head[3]), int(head[4]), event_time)

"""Raw messages to readings and rejects.

What a message becomes depends on its topic, its bytes, its receipt, the registry and the tolerance only, so any
split of the raw log into segments gives the same rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import compress
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.payloads import (
    DECODER_VERSION,
    DECODERS,
    LATEST_US,
    PERIODS_US,
    SCHEMA_VERSION,
    Message,
    Payload,
    Reading,
    Reason,
    Reject,
    Traffic,
    Will,
    decode,
    is_empty,
)
from contracts.registry import Entry, Registry
from contracts.retention import defaults, readings_days
from contracts.schemas import QUARANTINE
from contracts.times import US
from contracts.topics import parse_device_topic
from pipelines.kernels.rows import FRAME_OF, Frames, Row, lanes_of, quarantine

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FAR_US = 2**62  # a tolerance beyond this would not fit beside a receipt
_HEAD = attrgetter("schema_version", "boot_id", "seq", "first_seq", "time")
# stands where no message is: a version that nobody has
_NOTHING = Message(schema_version=-1, boot_id="", seq=0, first_seq=0, time=datetime(1970, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far an event time may lie from its receipt: behind it the retention of the stream's readings (`retention_s`
    by stream; without one for ever), `future_s` ahead of it."""

    retention_s: Mapping[str, int] = field(default_factory=lambda: retention_s(defaults()), hash=False)
    future_s: int = 60

    def behind_s(self, stream: str) -> int:
        """How far behind its receipt a message of a stream may lie."""
        return min(self.retention_s.get(stream, _FAR_US // US), _FAR_US // US)


def retention_s(days: Mapping[str, float | None]) -> dict[str, int]:
    """Seconds that readings are kept, by stream, from days by rule of contracts.retention."""
    return {stream: int(kept * 86_400) for stream, kept in readings_days(days).items() if kept is not None}


def judge(
    reading: Reading, event_time_us: int, received_us: int, registry: Registry, tolerance: Tolerance
) -> tuple[Reason, str] | None:
    """What the registry and the clock have against a message; None when it is a reading."""
    if event_time_us > received_us + tolerance.future_s * US:
        return Reason.FUTURE, f"event time is more than {tolerance.future_s} s ahead of its receipt"
    behind_s = tolerance.behind_s(reading.stream)
    if event_time_us < received_us - behind_s * US:
        return Reason.TOO_OLD, f"event time is more than {behind_s} s behind its receipt"
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
    """Messages (topic, payload, received_time) to one frame per table, flagged, in the tables' schemas; empty tables
    are left out."""
    # a city has few topics and each message names one
    coded = pc.dictionary_encode(raw["topic"].combine_chunks())
    topics, topic_at = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    places = [parse_device_topic(topic) for topic in topics]
    payloads = raw["payload"].to_pylist()
    received_us = raw["received_time"].cast(pa.int64()).to_numpy()
    marks = digests(payloads)
    streams = ["", *FRAME_OF]
    stream_of = np.array([streams.index(place[1]) if place else 0 for place in places], np.int64)
    frames: dict[str, list[pl.DataFrame]] = {}
    rejects: dict[int, Row] = {}
    for number, stream in enumerate(streams):
        own = np.flatnonzero(stream_of == number)
        if not own.size:
            continue
        at = np.flatnonzero((stream_of == number)[topic_at])
        batch = Batch(
            stream=stream,
            posts=[place[0] if (place := places[index]) else "" for index in own.tolist()],
            post=np.searchsorted(own, topic_at[at]),
            payloads=[payloads[place] for place in at.tolist()],
            received_us=received_us[at],
        )
        heads = short_way(batch, registry, tolerance)
        for index in np.flatnonzero(~heads.is_reading).tolist():
            place = at[index].item()
            topic, received = topics[topic_at[place]], received_us[place].item()
            result = _long_way(topic, payloads[place], received, registry, tolerance)
            if isinstance(result, Reading):
                heads.accept(index, result, received)
            else:
                rejects[place] = _reject_row(topic, payloads[place], marks[place].item(), received, result)
        if heads.is_reading.any():
            table, rows = FRAME_OF[stream]
            frames.setdefault(table.name, []).append(rows(*_readings(batch, heads, marks[at])))
    if rejects:
        frames[QUARANTINE.name] = [quarantine([rejects[place] for place in sorted(rejects)])]
    return {name: pl.concat(parts) for name, parts in frames.items()}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Messages of one stream in columns. `post` is each one's place in `posts`; `stream` is "" for no stream."""

    stream: str
    posts: list[str]
    post: Ints
    payloads: list[bytes]
    received_us: Ints


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What a batch's payloads say of themselves, and whether each is a reading; if not, the rest means nothing."""

    messages: list[Any]
    boot_ids: list[str]
    seqs: Ints
    first_seqs: Ints
    event_us: Ints
    is_reading: Mask

    def accept(self, index: int, reading: Reading, received_us: int) -> None:
        """Put a reading in a place. A will's event time is its receipt."""
        self.messages[index] = reading.payload
        self.boot_ids[index], self.seqs[index], self.first_seqs[index] = _name(reading.payload)
        self.event_us[index] = received_us if reading.event_time_us is None else reading.event_time_us
        self.is_reading[index] = True


def short_way(batch: Batch, registry: Registry, tolerance: Tolerance) -> Heads:
    """The messages that nothing speaks against: the conditions of `contracts.payloads.decode` and of `judge`, over
    columns. Whatever fails one of them goes the long way, which finds the reason or decides otherwise."""
    messages = _read(batch.stream, batch.payloads)
    versions, boot_ids, seqs, first_seqs, times = zip(*map(_HEAD, messages), strict=True)
    heads = Heads(
        messages=messages,
        boot_ids=list(boot_ids),
        seqs=np.array(seqs, np.int64),
        first_seqs=np.array(first_seqs, np.int64),
        event_us=pa.array(times, pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy().copy(),
        is_reading=np.array(versions, np.int64) == SCHEMA_VERSION,
    )
    event_us, is_reading = heads.event_us, heads.is_reading
    is_reading &= heads.seqs >= heads.first_seqs
    is_reading &= (event_us >= 0) & (event_us <= LATEST_US)
    is_reading &= event_us % PERIODS_US.get(batch.stream, 1) == 0
    is_reading &= event_us >= batch.received_us - tolerance.behind_s(batch.stream) * US
    is_reading &= event_us <= batch.received_us + min(tolerance.future_s * US, _FAR_US)
    entries = _entries(batch, heads, registry)
    is_known = np.array([entry is not None and batch.stream in entry.streams for entry in entries], np.bool_)
    is_reading &= is_known[batch.post]
    if batch.stream == "traffic":
        _lanes_judged(batch, heads, entries)
    elif batch.stream in ("weather", "air"):
        is_reading &= np.array([not is_empty(message) for message in messages], np.bool_)
    return heads


def _read(stream: str, payloads: list[bytes]) -> list[Any]:
    """One message for each payload; _NOTHING for what is none, and for a will, which has no number and no time."""
    if not stream:
        return [_NOTHING] * len(payloads)
    found: list[Any] = []
    left = map(DECODERS[stream].decode, payloads)
    while len(found) < len(payloads):
        try:
            # what was decoded before the one that raises stays in the list
            found.extend(left)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found.append(_NOTHING)
    return [_NOTHING if type(message) is Will else message for message in found] if stream == "status" else found


def _entries(batch: Batch, heads: Heads, registry: Registry) -> list[Entry | None]:
    """The registry's entry of each post; None where the batch's messages of a post do not lie in one."""
    is_reading = heads.is_reading
    low, high = np.full(len(batch.posts), _FAR_US), np.full(len(batch.posts), -1)
    np.minimum.at(low, batch.post[is_reading], heads.event_us[is_reading])
    np.maximum.at(high, batch.post[is_reading], heads.event_us[is_reading])
    entries: list[Entry | None] = []
    for post_id, first_us, last_us in zip(batch.posts, low.tolist(), high.tolist(), strict=True):
        entry = registry.entry(post_id, first_us) if last_us >= 0 else None
        entries.append(entry if entry is not None and registry.entry(post_id, last_us) is entry else None)
    return entries


def _lanes_judged(batch: Batch, heads: Heads, entries: list[Entry | None]) -> None:
    """Messages without a lane, or with one whose direction the registry does not know, are no readings."""
    usable = np.flatnonzero(heads.is_reading)
    lanes, message = lanes_of([heads.messages[index] for index in usable.tolist()])
    heads.is_reading[usable] = False
    heads.is_reading[usable[message]] = True
    names = sorted({name for entry in entries if entry is not None for name in entry.directions})
    number = {name: index for index, name in enumerate(names)}
    is_known = np.zeros((len(entries), len(names) + 1), np.bool_)  # the last is every other name
    for index, entry in enumerate(entries):
        for name in entry.directions if entry is not None else ():
            is_known[index, number[name]] = True
    direction = np.array([number.get(lane.direction, len(names)) for lane in lanes], np.int64)
    is_wrong = ~is_known[batch.post[usable[message]], direction]
    heads.is_reading[usable[message[is_wrong]]] = False


def _readings(batch: Batch, heads: Heads, marks: Ints) -> tuple[pl.DataFrame, list[Any]]:
    """The origin of each reading, as FRAME_OF wants it, and the messages."""
    is_reading = pl.Series(heads.is_reading)
    origin = pl.DataFrame(
        {
            "post_id": pl.Series(batch.posts, dtype=pl.String).gather(batch.post),
            "boot_id": heads.boot_ids,
            "seq": heads.seqs,
            "first_seq": heads.first_seqs,
            "event_time": heads.event_us,
            "received_time": batch.received_us,
            "digest": marks,
        }
    )
    if is_reading.all():
        return origin, heads.messages
    return origin.filter(is_reading), list(compress(heads.messages, heads.is_reading))


def digests(payloads: Sequence[bytes]) -> Ints:
    """`contracts.payloads.digest` of each payload."""
    joined = b"".join([blake2b(payload, digest_size=8).digest() for payload in payloads])
    return np.frombuffer(joined, ">i8").astype(np.int64)


def _long_way(
    topic: str, payload: bytes, received_us: int, registry: Registry, tolerance: Tolerance
) -> Reading | Reject:
    """A reading, or a reject with its reason."""
    result = decode(topic, payload)
    if isinstance(result, Reject):
        return result
    event_us = received_us if result.event_time_us is None else result.event_time_us
    objection = judge(result, event_us, received_us, registry, tolerance)
    return result if objection is None else _refused(result, *objection)


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

"""What must hold of any topic and any bytes: nothing is raised, and each message is one reading or one reject."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest import mock

import polars as pl
import pyarrow as pa
from polars.testing import assert_frame_equal

from contracts.payloads import Reading, Will, decode, head
from contracts.registry import Registry
from contracts.schemas import TABLES
from contracts.segments import RAW_SCHEMA
from contracts.topics import parse_device_topic
from pipelines.kernels import decode as kernel
from pipelines.kernels.decode import Heads, Tolerance
from pipelines.kernels.rows import Frames
from pipelines.kernels.unite import message_key
from tests.fuzz.mutants import Mutant
from tests.pipelines import raw_log

_SHORT_WAY = kernel.short_way


@dataclass
class Found:
    """What was tried and what broke: a line that names the message for each."""

    mutants: int = 0
    readings: int = 0
    crashes: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        self.mutants += other.mutants
        self.readings += other.readings
        self.crashes += other.crashes
        self.unaccounted += other.unaccounted


@cache
def _registry() -> Registry:
    return raw_log.registry()


def raw(batch: Sequence[Mutant]) -> pa.Table:
    """Messages as ingest keeps them. Raises when a topic is no text, which ingest never hands on."""
    topics, payloads, received = zip(*batch, strict=True)
    columns = [
        pa.array(range(len(batch)), pa.int64()),
        pa.array(topics, pa.string()),
        pa.array(payloads, pa.binary()),
        pa.array(received, pa.int64()).cast(pa.timestamp("us", "UTC")),
        pa.array([False] * len(batch), pa.bool_()),
    ]
    return pa.table(columns, schema=RAW_SCHEMA)


def examine(batch: Sequence[Mutant]) -> Found:
    """Both decoders over a batch whose receipts differ from one another."""
    found = Found(mutants=len(batch))
    readings: set[int] = set()  # receipts
    for mutant in batch:
        topic, payload, received_us = mutant
        try:
            result, name = decode(topic, payload), head(payload)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            found.crashes.append(_line("decode", mutant, error))
            continue
        if isinstance(result, Reading):
            readings.add(received_us)
            if name is not None and not _is_named(result, payload, name):
                found.unaccounted.append(_line("head() tells another name than decode()", mutant))
    found.add(_kernels(batch, readings))
    return found


def _is_named(reading: Reading, payload: bytes, name: tuple[str, int, int]) -> bool:
    """Whether a payload's first bytes tell what its decoded fields do. A field that stands twice is nobody's fault
    but the sender's: JSON decoders take the last, and the first bytes tell the first."""
    message = reading.payload
    is_twice = b"\\u" in payload or any(payload.count(key) > 1 for key in (b'"boot_id"', b'"seq"', b'"first_seq"'))
    return is_twice or (not isinstance(message, Will) and name == (message.boot_id, message.seq, message.first_seq))


def _kernels(batch: Sequence[Mutant], may_read: set[int]) -> Found:
    """The pipeline's two ways over a batch; a batch that raises is halved until the message is found."""
    found = Found()
    table, tolerance = raw(batch), Tolerance()
    try:
        short = kernel.decode_messages(table, _registry(), tolerance)
        with mock.patch.object(kernel, "short_way", _deciding_nothing):
            long = kernel.decode_messages(table, _registry(), tolerance)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        if len(batch) == 1:
            found.crashes.append(_line("decode_messages", batch[0], error))
        else:
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                found.add(_kernels(half, may_read))
        return found
    if not _is_same(short, long):
        found.unaccounted.append(f"the short way decides otherwise than the long one near {batch[0]!r:.200}")
    places = _places(short)
    for mutant in batch:
        count = places[mutant[2]]
        if count != 1:
            found.unaccounted.append(_line(f"in {count} places", mutant))
    accepted = {
        received_us
        for name, frame in short.items()
        if TABLES[name].is_reading
        for received_us in frame["received_time"].dt.epoch("us").to_list()
    }
    found.readings += len(accepted)
    for mutant in batch:
        topic, _, received_us = mutant
        if received_us in accepted and (received_us not in may_read or parse_device_topic(topic) is None):
            found.unaccounted.append(_line("a reading that the contract refuses", mutant))
    return found


def _deciding_nothing(*given: Any) -> Heads:
    heads = _SHORT_WAY(*given)
    heads.is_reading[:] = False
    return heads


def _is_same(short: Frames, long: Frames) -> bool:
    if short.keys() != long.keys():
        return False
    try:
        for name, frame in short.items():
            assert_frame_equal(frame, long[name], check_exact=True)
    except AssertionError:
        return False
    return True


def _places(frames: Frames) -> Counter[int]:
    """How many messages stand for each receipt, over all tables: distinct names in readings, rows in quarantine."""
    places: Counter[int] = Counter()
    for name, frame in frames.items():
        received = pl.col("received_time").dt.epoch("us").alias("received_us")
        columns = [received, *message_key(TABLES[name])] if TABLES[name].is_reading else [received]
        rows = frame.select(columns)
        places.update((rows.unique() if TABLES[name].is_reading else rows)["received_us"].to_list())
    return places


def _line(what: str, mutant: Mutant, error: Exception | None = None) -> str:
    topic, payload, received_us = mutant
    cause = f": {type(error).__name__}: {error!s:.200}" if error else ""
    return f"{what}{cause}: {topic!r:.120} {payload!r:.400} ({len(payload)} bytes) received {received_us}"

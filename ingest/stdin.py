"""`python -m ingest stdin`: the same messages as NDJSON, one object per line, into the same raw log."""

import base64
import binascii
import os
import select
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import msgspec

from contracts.logs import say
from contracts.times import to_us
from ingest.arrival import Arrival
from ingest.landing import Landing
from ingest.stop import Stop

PIECE_BYTES = 1 << 18
MAX_LINE_BYTES = 16 << 20
BATCH_ROWS = 2_000


class Line(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One message. The payload is text, or any bytes as base64; `received_time` is now when absent."""

    topic: str
    payload: str | None = None
    payload_base64: str | None = None
    received_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


_DECODER = msgspec.json.Decoder(Line)


def parse(line: bytes) -> Arrival:
    """The message of a line. Raises ValueError that says what is wrong with it."""
    found = _DECODER.decode(line)
    if (found.payload is None) == (found.payload_base64 is None):
        raise ValueError("either payload or payload_base64 is needed")
    if found.payload is not None:
        payload = found.payload.encode()
    else:
        try:
            payload = base64.b64decode(found.payload_base64 or "", validate=True)
        except binascii.Error as error:
            raise ValueError(f"payload_base64 is not base64: {error}") from error
    received_us = time.time_ns() // 1000 if found.received_time is None else to_us(found.received_time)
    return Arrival(found.topic, payload, received_us)


def run(descriptor: int, landing: Landing, stop: Stop) -> int:
    """Land the lines of an open file until it ends, or until stopped; 1 when a line was refused.

    What one read brings is one commit, so a pipe that waits holds nothing back.
    """
    refused = 0
    for lines in _read(descriptor, landing, stop):
        arrivals = []
        for number, line in lines:
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
                arrivals.append(parse(line))
            except ValueError as error:
                refused += 1
                say("ingest stdin", f"line {number}: {error}", "error", line=number)
        for first in range(0, len(arrivals), BATCH_ROWS):
            landing.append(arrivals[first : first + BATCH_ROWS])
        landing.seal_if_due()
    landing.seal()
    print(f"{landing.durable} messages landed, {refused} lines refused", flush=True)
    return 1 if refused else 0


def _read(descriptor: int, landing: Landing, stop: Stop) -> Iterator[list[tuple[int, bytes]]]:
    """(line number, line) of each whole line that a read completes; blank ones are passed over.

    Of a line that is too long only enough is kept to tell that it is.
    """
    number, rest = 0, b""
    while not stop.is_set:
        pause_s = None if landing.seal_at is None else max(0.0, landing.seal_at - time.monotonic())
        readable, _, _ = select.select([descriptor, stop.fileno()], [], [], pause_s)
        if descriptor not in readable:
            yield []
            continue
        piece = os.read(descriptor, PIECE_BYTES)
        *whole, rest = (rest + piece).split(b"\n") if piece else [rest, b""]
        rest = rest[: MAX_LINE_BYTES + 1]
        yield [(number + index, line) for index, line in enumerate(whole, 1) if line.strip()]
        number += len(whole)
        if not piece:
            return

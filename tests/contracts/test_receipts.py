"""Receipts, the head of a payload, and events: they round-trip, and bytes that are none are none."""

from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from contracts.events import Event, append_event, events_path, read_events
from contracts.payloads import (
    SCHEMA_VERSION,
    Heartbeat,
    OldestHeld,
    Pedestrian,
    Reading,
    SeqRange,
    decode,
    encode,
    head,
)
from contracts.receipts import Receipt, decode_receipt, encode_receipt
from contracts.topics import device_topic

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
BOOT = "00112233aabbccdd"


@given(st.dictionaries(st.sampled_from(["air", "status"]), st.integers(0, 2**53)))
def test_a_receipt_round_trips(streams: dict[str, int]) -> None:
    receipt = Receipt(time=NOW, boots={BOOT: streams})  # type: ignore[dict-item]
    assert decode_receipt(encode_receipt(receipt)) == receipt


@given(st.binary())
def test_bytes_that_are_no_receipt_are_none(payload: bytes) -> None:
    assert decode_receipt(payload) is None


def test_a_heartbeat_names_what_was_dropped_and_what_is_held() -> None:
    heartbeat = Heartbeat(
        schema_version=SCHEMA_VERSION,
        boot_id=BOOT,
        seq=7,
        first_seq=3,
        time=NOW,
        firmware="1",
        dropped_count=4,
        dropped=[SeqRange(boot_id=BOOT, stream="air", first_seq=2, last_seq=5)],
        oldest_held=[OldestHeld(boot_id=BOOT, stream="weather", seq=9)],
    )
    found = decode(device_topic("KT1000", "status"), encode(heartbeat))
    assert isinstance(found, Reading)
    assert found.payload == heartbeat


def test_a_head_outlives_what_follows_it() -> None:
    message = Pedestrian(
        schema_version=1, boot_id=BOOT, seq=7, first_seq=3, time=NOW, crossings_in_count=1, crossings_out_count=2
    )
    payload = encode(message)
    cut = payload.index(b',"time"')
    assert head(payload) == head(payload[: cut + 1]) == (BOOT, 7, 3)
    assert head(payload[:cut]) is None
    assert head(b'{"kind":"will"}') is None


def test_events_outlive_a_torn_line(tmp_path: Path) -> None:
    path = events_path(tmp_path, "a")
    path.parent.mkdir()
    assert read_events(path) == []
    events = [Event(time=NOW, kind="session_lost", detail=f"number {number}") for number in range(2)]
    append_event(path, events[0])
    with path.open("ab") as handle:
        handle.write(b'{"time":"2026')
    append_event(path, events[1])
    assert read_events(path) == events

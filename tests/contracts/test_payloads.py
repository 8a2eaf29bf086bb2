"""Decoding is total, and what breaks the contract can still be named."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import payloads
from contracts.payloads import Reading, Reason, Reject, decode, encode

TIME = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
HEAD: dict[str, Any] = {"schema_version": 1, "boot_id": "00112233aabbccdd", "seq": 7, "first_seq": 3}
MESSAGES: list[tuple[str, payloads.Payload]] = [
    ("weather", payloads.Weather(**HEAD, time=TIME, temperature_c=21.5, wind_speed_ms="////")),
    ("air", payloads.Air(**HEAD, time=TIME, no2_ug_m3=40.0)),
    ("pedestrian", payloads.Pedestrian(**HEAD, time=TIME, crossings_in_count=1, crossings_out_count=0)),
    (
        "traffic",
        payloads.Traffic(**HEAD, time=TIME, lanes=[payloads.Lane(lane="Fast Lane", direction="N", vehicle_count=3)]),
    ),
    ("dumping", payloads.Dumping(**HEAD, time=TIME, kind="bulky", confidence=0.5)),
    ("status", payloads.Birth(**HEAD, time=TIME, firmware="1.0")),
    ("status", payloads.Heartbeat(**HEAD, time=TIME, firmware="1.0", clock_offset_s=0.1)),
    ("status", payloads.Will(schema_version=1, boot_id=HEAD["boot_id"], connection=2)),
]


@pytest.mark.parametrize(("stream", "message"), MESSAGES)
def test_round_trip(stream: str, message: payloads.Payload) -> None:
    reading = decode(f"lamplight/v1/KT1042/{stream}", encode(message))
    assert isinstance(reading, Reading)
    assert reading.payload == message


@pytest.mark.parametrize(("stream", "message"), MESSAGES[:-1])
def test_the_contract_fields_come_first_in_order(stream: str, message: payloads.Payload) -> None:
    members = list(msgspec.json.decode(encode(message)))
    assert members[:5] == ["schema_version", "boot_id", "seq", "first_seq", "time"]


@pytest.mark.parametrize(("stream", "message"), MESSAGES[:-1])
def test_a_cut_payload_is_still_named(stream: str, message: payloads.Payload) -> None:
    whole = encode(message)
    for cut in range(whole.index(b'"time"'), len(whole)):
        reject = decode(f"lamplight/v1/KT1042/{stream}", whole[:cut])
        assert isinstance(reject, Reject)
        assert reject.reason is Reason.MALFORMED
        assert (reject.post_id, reject.stream, reject.boot_id, reject.seq, reject.first_seq) == (
            "KT1042",
            stream,
            HEAD["boot_id"],
            7,
            3,
        )


@given(st.text(max_size=60), st.binary(max_size=200))
def test_any_bytes_on_any_topic_decode_without_an_exception(topic: str, payload: bytes) -> None:
    assert isinstance(decode(topic, payload), Reading | Reject)


@settings(max_examples=300)
@given(st.sampled_from(MESSAGES), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_mutated_payload_is_a_reading_or_a_reject(
    case: tuple[str, payloads.Payload], changes: list[tuple[int, int]]
) -> None:
    payload = bytearray(encode(case[1]))
    for place, byte in changes:
        payload[place % len(payload)] = byte
    assert isinstance(decode(f"lamplight/v1/KT1042/{case[0]}", bytes(payload)), Reading | Reject)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"schema_version":2,"boot_id":"00112233aabbccdd","seq":0,"first_seq":0}', Reason.UNSUPPORTED_VERSION),
        (b'{"schema_version":1,"boot_id":"00112233aabbccdd","seq":0,"first_seq":1,"time":"2026-11-21T00:00:00Z",'
         b'"uv_index":1}', Reason.INVALID),
        (b'{"schema_version":1,"boot_id":"00112233aabbccdd","seq":0,"first_seq":0,"time":"2026-11-21T00:00:00Z",'
         b'"plate":"AB1234"}', Reason.INVALID),
        (b'{"schema_version":1,"boot_id":"00112233aabbccdd","seq":0,"first_seq":0,"time":"2026-11-21T00:00:00Z"}',
         Reason.EMPTY),
        (b"\xff\xfe", Reason.MALFORMED),
        (b"[" * 100_000, Reason.INVALID),
        (b"", Reason.MALFORMED),
    ],
)  # fmt: skip
def test_reasons(payload: bytes, reason: Reason) -> None:
    reject = decode("lamplight/v1/KT1042/weather", payload)
    assert isinstance(reject, Reject)
    assert reject.reason is reason


def test_a_period_starts_at_a_half_minute() -> None:
    message = payloads.Pedestrian(**HEAD, time=TIME.replace(second=1), crossings_in_count=0, crossings_out_count=0)
    reject = decode("lamplight/v1/KT1042/pedestrian", encode(message))
    assert isinstance(reject, Reject)
    assert reject.reason is Reason.UNALIGNED


@pytest.mark.parametrize("topic", ["lamplight/v1/KT1042", "lamplight/v1/kt1042/air", "lamplight/receipt/v1/KT1042", ""])
def test_unknown_topics(topic: str) -> None:
    reject = decode(topic, b"{}")
    assert isinstance(reject, Reject)
    assert reject.reason is Reason.UNKNOWN_TOPIC

"""What is done in paho's place is what paho would have done."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest.client import PieceClient

# paho refuses a property with a null character, and with it the message; we do not read properties
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def parsed(header: int, packet: bytes) -> Any:
    """What PieceClient makes of a PUBLISH: its arguments to on_arrival, or the error code."""
    client = PieceClient(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    got: list[Any] = []
    client.on_arrival = lambda *arrival: got.append(arrival)
    client._in_packet["command"], client._in_packet["packet"] = header, bytearray(packet)
    code = client._handle_publish()
    return got[0] if code == MQTTErrorCode.MQTT_ERR_SUCCESS else code


def by_paho(header: int, packet: bytes) -> Any:
    result = _packet.decode_publish(header, bytearray(packet), MQTTProtocolVersion.MQTTv5)
    return bytes(result.topic), bytes(result.payload), result.mid, result.qos, result.retain


@given(
    header=st.sampled_from([0x30, 0x31, 0x32, 0x33, 0x3A, 0x3B]),
    topic=st.binary(max_size=300),
    mid=st.integers(1, 65_535),
    users=st.lists(st.tuples(TEXT, TEXT), max_size=4),
    payload=st.binary(max_size=300),
)
@settings(deadline=None, derandomize=True)
def test_a_publish_is_read_as_paho_reads_it_and_a_cut_one_is_refused(
    header: int, topic: bytes, mid: int, users: list[tuple[str, str]], payload: bytes
) -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for pair in users:
        properties.UserProperty = pair
    head = len(topic).to_bytes(2, "big") + topic + (mid.to_bytes(2, "big") if header & 6 else b"")
    head += properties.pack()  # type: ignore[no-untyped-call]
    assert parsed(header, head + payload) == by_paho(header, head + payload)
    assert parsed(header, head + payload)[:2] == (topic, payload)
    for end in range(0, len(head), 7):
        assert parsed(header, head[:end]) == MQTTErrorCode.MQTT_ERR_PROTOCOL


def test_qos_2_was_never_asked_for() -> None:
    assert parsed(0x34, b"\0\1t\0\1\0") == MQTTErrorCode.MQTT_ERR_PROTOCOL


@given(pieces=st.lists(st.integers(1, 400), min_size=1, max_size=60), size=st.integers(0, 700))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_packets_cut_anywhere_by_the_network_are_put_together(pieces: list[int], size: int) -> None:
    """The socket is read in large pieces; where they end must not matter."""
    content = b"".join(bytes([index % 256]) * (index * 7 % (size + 1)) for index in range(30))
    client = PieceClient(CallbackAPIVersion.VERSION2)
    given_pieces = _cut(content, pieces)

    def receive(_self: object, _size: int) -> bytes:
        if not given_pieces:
            raise BlockingIOError
        return given_pieces.pop(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paho.mqtt.client.Client._sock_recv", receive)
        got = b""
        for number in range(len(content) + len(pieces) + 1):
            try:
                piece = client._sock_recv(1 + number % 97)
            except BlockingIOError:
                assert not client.is_buffered
                break
            assert 0 < len(piece) <= 1 + number % 97
            got += piece
    assert got == content


def _cut(content: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(content[at : at + size])
        at += size
    return [piece for piece in [*pieces, content[at:]] if piece]

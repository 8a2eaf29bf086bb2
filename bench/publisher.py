"""Four hundred posts at full speed: pre-encoded valid messages at QoS 1 over raw sockets, one connection per post."""

import selectors
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import pack

from paho.mqtt.properties import VariableByteIntegers

from contracts import payloads
from contracts.topics import device_topic

CONNECTIONS = 400
WINDOW = 10  # messages of one connection that the broker has not acknowledged
PATIENCE_S = 30.0
START = datetime(2026, 11, 2, tzinfo=UTC)
_PUBACK = 0x40


@dataclass
class _Post:
    """One connection: its packets, how many were sent and acknowledged, and an unfinished packet of the broker's."""

    socket: socket.socket
    packets: list[bytes]
    sent: int = 0
    acknowledged: int = 0
    rest: bytes = b""

    def send(self) -> None:
        last = min(self.acknowledged + WINDOW, len(self.packets))
        if last > self.sent:
            self.socket.sendall(b"".join(self.packets[self.sent : last]))
            self.sent = last

    def receive(self) -> int:
        """How many PUBACKs came. Raises ConnectionError when the broker hangs up."""
        piece = self.socket.recv(65_536)
        if not piece:
            raise ConnectionError("the broker closed a publisher's connection")
        count = 0
        for kind in self._packets(piece):
            count += kind == _PUBACK
        self.acknowledged += count
        return count

    def _packets(self, piece: bytes) -> Iterator[int]:
        content, at = self.rest + piece, 0
        while at + 2 <= len(content) and at + 2 + content[at + 1] <= len(content):
            yield content[at]
            at += 2 + content[at + 1]
        self.rest = content[at:]


def publish(port: int, count: int) -> None:
    """Publish `count` messages (rounded down to whole posts) as fast as the broker acknowledges them."""
    posts = [_connect(port, f"KT{1000 + index}", count // CONNECTIONS) for index in range(CONNECTIONS)]
    selector = selectors.DefaultSelector()
    for post in posts:
        selector.register(post.socket, selectors.EVENT_READ, post)
    for post in posts:
        post.send()
    left = len(posts) * (count // CONNECTIONS)
    while left:
        ready = selector.select(PATIENCE_S)
        if not ready:
            raise TimeoutError(f"the broker acknowledged nothing for {PATIENCE_S:g} s; {left} messages are left")
        for key, _ in ready:
            left -= key.data.receive()
            key.data.send()
    for post in posts:
        post.socket.close()


def _connect(port: int, post_id: str, count: int) -> _Post:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    clean_start, keepalive_s = 2, 120
    body = _text(b"MQTT") + bytes([5, clean_start]) + pack("!H", keepalive_s) + b"\0" + _text(post_id.encode())
    connection.sendall(b"\x10" + variable_length(len(body)) + body)
    connection.recv(256)
    topic = _text(device_topic(post_id, "weather").encode())
    return _Post(connection, [_packet(topic, number) for number in range(count)])


def _packet(topic: bytes, seq: int) -> bytes:
    message = payloads.Weather(
        schema_version=payloads.SCHEMA_VERSION,
        boot_id="00000000000000b1",
        seq=seq,
        first_seq=seq,
        time=START + timedelta(minutes=seq),
        temperature_c=26.4,
        humidity_pct=71.0,
        wind_speed_ms=3.2,
        wind_direction_deg=112.0,
        wind_gust_ms=5.1,
        rain_mm=12.5,
        uv_index=4.0,
        pressure_hpa=1012.3,
    )
    no_properties = b"\0"
    body = topic + pack("!H", seq % 65_535 + 1) + no_properties + payloads.encode(message)
    return b"\x32" + variable_length(len(body)) + body


def _text(content: bytes) -> bytes:
    return pack("!H", len(content)) + content


def variable_length(number: int) -> bytes:
    """MQTT's variable byte integer, as paho writes it."""
    return bytes(VariableByteIntegers.encode(number))  # type: ignore[no-untyped-call]

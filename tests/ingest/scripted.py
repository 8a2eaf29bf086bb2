"""A broker that does what a test says, one step at a time: MQTT 5 on a real socket, with the memory of a session.

Real brokers refuse to send some of what ingest must survive (a topic that is no UTF-8), and do not die on command
between two packets. It checks each PUBACK as it comes.
"""

import socket
from collections import deque
from dataclasses import dataclass, field
from struct import pack

from bench.publisher import variable_length

CONNACK = b"\x20\x03%c\x00\x00"
SUBSCRIBE, UNSUBSCRIBE, PUBACK, CONNECT, DISCONNECT = 0x82, 0xA2, 0x40, 0x10, 0xE0


@dataclass
class Message:
    """One published message; `acknowledged` counts its PUBACKs. `is_forgotten`: the broker lost it with its session."""

    number: int
    topic: bytes
    payload: bytes
    acknowledged: int = 0
    is_forgotten: bool = False


@dataclass
class ScriptedBroker:
    """Keeps what is not acknowledged and sends it again, in order, over the next connection.

    `late` is sent when it is unsubscribed for the second time, before it says so. `farewell` is the DISCONNECT's body.
    """

    queue: deque[Message] = field(default_factory=deque)
    in_flight: dict[int, Message] = field(default_factory=dict)
    acknowledgements: list[Message] = field(default_factory=list)
    has_session: bool = False
    subscribed: int = 0
    unsubscribed: int = 0
    late: Message | None = None
    farewell: bytes | None = None
    _connection: socket.socket | None = None
    _content: bytes = b""
    _mid: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def accept(self) -> None:
        """Take the connection that waits; the answer to CONNECT and SUBSCRIBE comes with `hear`."""
        self.cut()
        self._connection, _ = self._listener.accept()
        self._connection.setblocking(False)
        # what is sent is there for the other side's next select
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def cut(self) -> None:
        """End the connection. What was in flight is to be delivered again, before what is new."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._content = b""
        self.queue.extendleft(reversed(self.in_flight.values()))
        self.in_flight.clear()

    def forget(self) -> None:
        """Lose the session, as a broker does that was killed: its messages, and that it ever was."""
        self.cut()
        for message in self.queue:
            message.is_forgotten = True
        self.queue.clear()
        self.has_session = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def deliver(self, count: int) -> None:
        """Send up to so many messages of the queue at QoS 1, in one piece."""
        assert self._connection is not None
        content = b""
        for _ in range(min(count, len(self.queue))):
            message = self.queue.popleft()
            self._mid = self._mid % 65_535 + 1
            self.in_flight[self._mid] = message
            body = pack("!H", len(message.topic)) + message.topic + pack("!H", self._mid) + b"\0" + message.payload
            content += b"\x32" + variable_length(len(body)) + body
        self._connection.sendall(content)

    def say(self, content: bytes) -> None:
        """Send these very bytes."""
        assert self._connection is not None
        self._connection.sendall(content)

    def hear(self) -> None:
        """Answer what ingest has sent. Each PUBACK must be for the oldest message in flight on this connection."""
        if self._connection is None:
            return
        try:
            while piece := self._connection.recv(65_536):
                self._content += piece
        except BlockingIOError:
            pass
        except ConnectionResetError:
            return
        while len(self._content) >= 2 and len(self._content) >= 2 + self._content[1]:
            kind, length = self._content[0], self._content[1]
            body, self._content = self._content[2 : 2 + length], self._content[2 + length :]
            self._answer(kind, body)

    def _answer(self, kind: int, body: bytes) -> None:
        assert self._connection is not None
        if kind == CONNECT:
            self._connection.sendall(CONNACK % self.has_session)
            self.has_session = True
        elif kind == SUBSCRIBE:
            self.subscribed += 1
            self._connection.sendall(b"\x90\x04" + body[:2] + b"\x00\x01")
        elif kind == UNSUBSCRIBE:
            self.unsubscribed += 1
            if self.unsubscribed == 2 and self.late is not None:
                self.queue.append(self.late)
                self.deliver(1)
            self._connection.sendall(b"\xb0\x04" + body[:2] + b"\x00\x11")
        elif kind == PUBACK:
            mid = int.from_bytes(body[:2], "big")
            assert mid == next(iter(self.in_flight)), "acknowledged out of order, twice, or over another connection"
            message = self.in_flight.pop(mid)
            message.acknowledged += 1
            self.acknowledgements.append(message)
        else:
            assert kind == DISCONNECT
            self.farewell = body

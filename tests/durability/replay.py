"""A trace played again: the disk after each event, and what the brokers' clients in it had said by then.

A message counts as acknowledged from the PUBACK that answers its packet, a receipt from its PUBLISH.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.receipts import Receipt, decode_receipt
from contracts.topics import receipt_topic
from tests.durability.disk import Disk, File
from tests.durability.events import Event, Received, Sent

Message = tuple[str, bytes]
"""Topic and payload."""

_CONNECT, _PUBLISH, _PUBACK = 1, 3, 4


def _number(data: bytes, at: int) -> tuple[int, int] | None:
    """MQTT's variable byte integer and where it ends; None when it is not whole."""
    value = 0
    for length in range(4):
        if at + length >= len(data):
            return None
        byte = data[at + length]
        value |= (byte & 127) << 7 * length
        if byte < 128:
            return value, at + length + 1
    raise ValueError("no variable byte integer")


@dataclass
class Packets:
    """Bytes of one direction of an MQTT connection, taken apart."""

    _left: bytes = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(type, flags, content) of each packet that is whole now."""
        self._left += data
        while self._left and (found := _number(self._left, 1)) is not None:
            length, at = found
            if len(self._left) < at + length:
                return
            head, body, self._left = self._left[0], self._left[at : at + length], self._left[at + length :]
            yield head >> 4, head & 15, body


def _publish(flags: int, body: bytes) -> tuple[int, Message]:
    """Packet id (0 without one) and message of an MQTT 5 PUBLISH."""
    at = 2 + int.from_bytes(body[:2], "big")
    topic = body[2:at].decode("utf-8", "backslashreplace")
    packet_id = 0
    if flags & 6:
        packet_id, at = int.from_bytes(body[at : at + 2], "big"), at + 2
    properties = _number(body, at)
    assert properties is not None
    return packet_id, (topic, body[sum(properties) :])


@dataclass
class Connection:
    """One client's connection; `client` as it named itself."""

    client: str = ""
    inbound: Packets = field(default_factory=Packets)
    outbound: Packets = field(default_factory=Packets)
    unanswered: dict[int, Message] = field(default_factory=dict)

    @property
    def is_ingest(self) -> bool:
        return self.client.startswith("lamplight-ingest")


@dataclass
class Replay:
    """Plays events one by one. `published` is what clients sent and `received` what brokers delivered to ingest, in
    order; `acknowledged` counts each message's PUBACKs; `receipts` holds the newest of each post."""

    disk: Disk
    acknowledged: Counter[Message] = field(default_factory=Counter)
    published: list[Message] = field(default_factory=list)
    received: list[Message] = field(default_factory=list)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    _connections: dict[str, Connection] = field(default_factory=dict)

    def step(self, event: Event) -> tuple[list[Message], list[tuple[str, Receipt]]]:
        """Apply an event; what it acknowledged, and what receipts it gave (post, receipt)."""
        acknowledged: list[Message] = []
        receipts: list[tuple[str, Receipt]] = []
        if isinstance(event, Sent):
            # other sockets are not ours to read (paho wakes its own thread over one)
            if event.connection not in self._connections and event.data[:1] != b"\x10":
                return acknowledged, receipts
            connection = self._connections.setdefault(event.connection, Connection())
            for kind, flags, body in connection.outbound.feed(event.data):
                if kind == _CONNECT:
                    start = _number(body, 10)
                    assert start is not None
                    at = sum(start)
                    connection.client = body[at + 2 : at + 2 + int.from_bytes(body[at : at + 2], "big")].decode()
                elif kind == _PUBACK:
                    message = connection.unanswered.pop(int.from_bytes(body[:2], "big"))
                    if connection.is_ingest:
                        acknowledged.append(message)
                elif kind == _PUBLISH:
                    _, (topic, payload) = _publish(flags, body)
                    self.published.append((topic, payload))
                    post = topic.rpartition("/")[2]
                    if topic == receipt_topic(post) and (receipt := decode_receipt(payload)) is not None:
                        receipts.append((post, receipt))
        elif isinstance(event, Received):
            known = self._connections.get(event.connection)
            for kind, flags, body in known.inbound.feed(event.data) if known else ():
                if known and kind == _PUBLISH:
                    packet_id, message = _publish(flags, body)
                    known.unanswered[packet_id] = message
                    if known.is_ingest:
                        self.received.append(message)
        else:
            self.disk.apply(event)
        self.acknowledged.update(acknowledged)
        self.receipts.update(receipts)
        return acknowledged, receipts


def rows(name: str, data: bytes) -> list[Message]:
    """Messages in a raw segment's bytes, up to the first torn batch."""
    if name.endswith(".parquet"):
        table = pq.read_table(BytesIO(data))
        return list(zip(table["topic"].to_pylist(), table["payload"].to_pylist(), strict=True))
    found: list[Message] = []
    try:
        reader = pa.ipc.open_stream(pa.BufferReader(data))
        for batch in reader:
            found += zip(batch["topic"].to_pylist(), batch["payload"].to_pylist(), strict=True)
    except (pa.ArrowException, OSError):
        pass
    return found


@dataclass
class RawLog:
    """How often each message is in those segments that a power cut would leave, kept up with a replay.

    Only files with these endings count. `added` are the rows that the last update found.
    """

    disk: Disk
    endings: tuple[str, ...] = (".open", ".arrow", ".parquet")
    counts: Counter[Message] = field(default_factory=Counter)
    added: list[Message] = field(default_factory=list)
    _known: dict[int, tuple[File, int, list[Message]]] = field(default_factory=dict)

    def update(self) -> Counter[Message]:
        """The counts as they are now."""
        self.added = []
        files = self.disk.kept_files("raw")
        present = {id(file): (path, file) for path, file in files if path.endswith(self.endings)}
        for key in [key for key in self._known if key not in present]:
            self.counts.subtract(self._known.pop(key)[2])
        for key, (path, file) in present.items():
            before = self._known.get(key)
            if before is None or before[1] != file.durable:
                if before is not None:
                    self.counts.subtract(before[2])
                held = rows(path, file.kept())
                self._known[key] = (file, file.durable, held)
                self.counts.update(held)
                self.added += held
        return self.counts

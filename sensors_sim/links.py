"""MQTT 5 connections of devices, all driven by one selector in one thread: paho without its own threads.

A link has at most `window` messages in flight (20 measured best for paho). Live messages go first; what is sent again,
and then stored ones, fill the spare room. A lost link connects again by itself; paho sends what was in flight once
more, the same bytes.
"""

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from contracts.credentials import HINT, Credentials
from contracts.settings import SettingError
from sensors_sim.devices import Message

_RETRY_S = (0.5, 15.0)  # first and longest wait before the next attempt
_CONNECT_S = 3.0
_RECONNECTS_AT_ONCE = 200


class _Client(mqtt.Client):
    """Reads the socket in large pieces; paho itself asks for each acknowledgement's bytes one by one."""

    _piece = b""
    _at = 0

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._at >= len(self._piece):
            self._piece, self._at = super()._sock_recv(65_536), 0
        taken = self._piece[self._at : self._at + bufsize]
        self._at += len(taken)
        return taken

    def forget(self) -> None:
        """Drop what was read from a connection that is gone."""
        self._piece, self._at = b"", 0

    @property
    def has_more(self) -> bool:
        return self._at < len(self._piece)


class Link:
    """One connection and its queues. `will` makes topic and payload of the n-th connection's last will; in the
    credentials `{name}` stands for the link's name. `read` fetches a payload that is not in memory; `subscriptions`
    are asked for at each connection."""

    def __init__(
        self,
        name: str,
        will: Callable[[int], tuple[str, bytes]] | None,
        window: int,
        credentials: Credentials,
        read: Callable[[Message], bytes] | None = None,
    ):
        self.name = name
        self.live: deque[Message] = deque()
        self.again: deque[Message] = deque()
        self.stored: deque[Message] = deque()
        self.stored_sent = 0
        self.gone = 0  # messages in `live` that are held no more
        self.subscriptions: list[str] = []
        self._read = read
        self.in_flight: dict[int, Message] = {}
        self.behind: Message | None = None  # waits for the next message, to be sent after it
        self.is_connected = False
        self.refusal: str | None = None
        self.connections = 0
        self.retry_at_s = 0.0
        self._wait_s = _RETRY_S[0]
        self._will = will
        self.window = window
        self.client = _Client(CallbackAPIVersion.VERSION2, client_id=f"lamplight-{name}", protocol=mqtt.MQTTv5)
        credentials.of(name).give(self.client)
        self.client.suppress_exceptions = False
        self.client.connect_timeout = _CONNECT_S
        self.client.max_inflight_messages_set(window)

    def open(self, host: str, port: int) -> None:
        """Start a connection; its outcome comes by callback. Raises OSError when the broker does not listen."""
        self.client.forget()
        self.refusal = None
        if self._will is not None:
            topic, payload = self._will(self.connections)
            self.client.will_set(topic, payload, qos=1)
        self.connections += 1
        if self.connections == 1:
            self.client.connect(host, port, keepalive=60)
        else:
            self.client.reconnect()

    def lost(self, now_s: float) -> None:
        """Note a failed or broken connection and when to try again."""
        self.is_connected = False
        self.retry_at_s = now_s + self._wait_s
        self._wait_s = min(_RETRY_S[1], self._wait_s * 2)

    def settled(self) -> None:
        """Note a connection that stands."""
        self.is_connected = True
        self._wait_s = _RETRY_S[0]

    @property
    def waiting(self) -> int:
        """Messages that are not acknowledged yet."""
        return len(self.live) + len(self.again) + len(self.stored) + len(self.in_flight) + (self.behind is not None)

    def pump(self, room: int) -> int:
        """Fill the window; returns how many messages were sent again or from store (at most `room`)."""
        sent = 0
        now_s = time.monotonic()
        while self.is_connected and len(self.in_flight) < self.window:
            if self.live:
                message = self.live.popleft()
                if message.is_gone:
                    self.gone -= 1
            elif self.again and sent < room:
                message = self.again.popleft()
            elif self.stored and sent < room:
                message = self.stored.popleft()
                self.stored_sent += 1
            else:
                break
            if message.is_gone:
                continue
            sent += message.is_stored or message.sends > 0
            payload = message.payload
            if not payload and self._read is not None:
                payload = self._read(message)
            info = self.client.publish(message.topic, payload, qos=1, retain=message.is_retained)
            if not message.sends:
                message.first_sent_s = now_s
            message.sent_s = now_s
            message.sends += 1
            self.in_flight[info.mid] = message
        return sent

    def sweep(self) -> None:
        """Take out of the live queue what is held no more, when that is most of it: a long outage has no end."""
        if self.gone > 1000 and self.gone > len(self.live) // 2:
            self.live = deque(message for message in self.live if not message.is_gone)
            self.gone = 0


class Exchange:
    """All links on one selector. `acknowledged` is called with every message that a broker has acknowledged, and
    whether it was refused (MQTT 5 reason code of 128 or more); `heard` with topic, payload and whether it was retained
    of what comes on subscriptions."""

    def __init__(
        self,
        host: str,
        port: int,
        links: Iterable[Link],
        acknowledged: Callable[[Message, bool], None],
        heard: Callable[[str, bytes, bool], None] | None = None,
    ):
        self._host, self._port = host, port
        self.links = list(links)
        self._acknowledged = acknowledged
        self._heard = heard
        self._selector = selectors.DefaultSelector()
        self._asked: dict[int, int] = {}  # events asked for, by file descriptor
        self.ready: dict[Link, None] = {}
        for link in self.links:
            self._wire(link)

    def start(self, now_s: Callable[[], float]) -> None:
        """Connect every link, the first one to its end. Raises SettingError when no broker answers or it refuses."""
        place = f"{self._host}:{self._port}"
        hint = f"start one or change LAMPLIGHT_MQTT_HOST, LAMPLIGHT_MQTT_PORT, {HINT}"
        first = self.links[0]
        try:
            first.open(self._host, self._port)
        except OSError as error:
            raise SettingError(f"no MQTT broker at {place} ({error.strerror or error}): {hint}") from None
        deadline = now_s() + _CONNECT_S
        while not first.is_connected:
            self.poll(0.05, now_s())
            if first.refusal or now_s() > deadline:
                raise SettingError(f"{place} refused: {first.refusal or 'no MQTT 5 answer'}; {hint}")
        for link in self.links[1:]:
            self._open(link, now_s())
            self.poll(0.0, now_s())

    def poll(self, timeout_s: float, now_s: float) -> None:
        """Read and write what the sockets allow, waiting at most so long."""
        for key, events in self._selector.select(timeout_s):
            link: Link = key.data
            if events & selectors.EVENT_READ:
                link.client.loop_read()
                while link.client.has_more and link.client.socket() is not None:
                    link.client.loop_read()
            if events & selectors.EVENT_WRITE:
                link.client.loop_write()
            self._ask(link)
            if link.client.socket() is None:
                link.lost(now_s)

    def pump(self, room: int) -> int:
        """Give every ready link what its window takes; returns how many messages took spare room."""
        sent = 0
        for link in list(self.ready):
            sent += link.pump(room - sent)
            if link.client.socket() is None and link.is_connected:
                link.lost(time.monotonic())
            if not link.is_connected or not ((link.stored or link.again) and len(link.in_flight) < link.window):
                self.ready.pop(link, None)
            self._ask(link)
        return sent

    def mend(self, now_s: float) -> None:
        """Keep-alives, and new attempts for lost links."""
        attempts = 0
        for link in self.links:
            if link.client.socket() is not None:
                link.client.loop_misc()
                self._ask(link)
                if link.client.socket() is None:
                    link.lost(now_s)
            elif attempts < _RECONNECTS_AT_ONCE and now_s >= link.retry_at_s:
                attempts += 1
                self._open(link, now_s)

    def break_off(self, link: Link) -> None:
        """Cut a connection without a goodbye, as a device that loses power: the broker publishes its will."""
        sock = link.client.socket()
        if isinstance(sock, socket.socket):
            sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say goodbye on every link."""
        for link in self.links:
            if link.is_connected:
                link.client.disconnect()
                link.client.loop_write()

    def _open(self, link: Link, now_s: float) -> None:
        try:
            link.open(self._host, self._port)
        except OSError:
            link.lost(now_s)

    def _wire(self, link: Link) -> None:
        def on_connect(client: mqtt.Client, userdata: object, flags: object, code: ReasonCode, more: object) -> None:
            if code.is_failure:
                link.refusal = str(code)
                return
            link.settled()
            self.ready[link] = None
            if link.subscriptions:
                client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in link.subscriptions])

        def on_message(client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
            if self._heard is not None:
                self._heard(message.topic, bytes(message.payload), message.retain)

        def on_publish(client: mqtt.Client, userdata: object, mid: int, code: ReasonCode, more: object) -> None:
            message = link.in_flight.pop(mid, None)
            if message is not None:
                self._acknowledged(message, code.is_failure)
                self.ready[link] = None

        def on_socket_open(client: mqtt.Client, userdata: object, sock: "socket.socket") -> None:
            self._selector.register(sock, selectors.EVENT_READ, link)
            self._asked[sock.fileno()] = selectors.EVENT_READ

        def on_socket_close(client: mqtt.Client, userdata: object, sock: "socket.socket") -> None:
            self._asked.pop(sock.fileno(), None)
            self._selector.unregister(sock)

        link.client.on_connect = on_connect
        link.client.on_message = on_message
        link.client.on_publish = on_publish
        link.client.on_socket_open = on_socket_open  # type: ignore[assignment]
        link.client.on_socket_close = on_socket_close  # type: ignore[assignment]

    def _ask(self, link: Link) -> None:
        """Ask for writability exactly while paho has something to write."""
        sock = link.client.socket()
        if sock is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.client.want_write() else 0)
        if self._asked.get(sock.fileno()) != events:
            self._selector.modify(sock, events, link)
            self._asked[sock.fileno()] = events

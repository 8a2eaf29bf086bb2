"""The MQTT 5 session of one ingest instance, and which connection of it an acknowledgement belongs to."""

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.client import ConnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from contracts.settings import SettingError
from contracts.topics import SHARED_SUBSCRIPTION, SUBSCRIPTION
from ingest import limits
from ingest.arrival import Arrival
from ingest.client import PieceClient
from ingest.config import Config
from ingest.limits import KEEPALIVE_S, RECEIVE_MAXIMUM, SESSION_EXPIRY_S

CONNECT_TIMEOUT_S = 5.0
_SESSION_TAKEN_OVER = 0x8E


class Link:
    """One session, driven by its owner's loop.

    Messages collect in `inbox`. `generation` counts the connections that have ended: an arrival of another generation
    can no longer be acknowledged, and the broker delivers it again. `is_ready` holds from the subscription's
    acknowledgement to the end of the connection; `failure` tells why the last connection ended or was refused.
    `on_session` hears of each connection, before anything comes over it, whether the broker still had the session and
    what it allows less of than we asked for ("": nothing). With `is_leaving` the session is unsubscribed instead, and
    brings only what it still holds. received_time is strictly increasing, and later than `last_received_us`.
    """

    on_session: Callable[[bool, str], None]

    def __init__(self, config: Config, is_leaving: bool = False):
        self.inbox: list[Arrival] = []
        self.inbox_bytes = 0
        self.generation = 0
        self.is_ready = False
        self.failure = ""
        self.answers = 0
        self.taken = 0
        self.last_received_us = 0
        self.on_session = lambda _is_kept, _limits: None
        self._refused = ""
        self._is_leaving = is_leaving
        self._is_shared = config.is_shared
        # an instance that once subscribed in the other way must not get everything twice
        self._topic, self._other = SUBSCRIPTION, SHARED_SUBSCRIPTION
        if config.is_shared:
            self._topic, self._other = self._other, self._topic
        self._address = (config.mqtt_host, config.mqtt_port)
        self._session = config.client_id
        client = PieceClient(
            CallbackAPIVersion.VERSION2,
            client_id=config.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        config.credentials.give(client)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_arrival = self._on_arrival
        client.on_disconnect = self._on_disconnect
        self._client = client

    @property
    def connection(self) -> Any:
        """The socket; None while there is no connection."""
        return self._client.socket()

    @property
    def is_buffered(self) -> bool:
        return self._client.is_buffered

    @property
    def wants_write(self) -> bool:
        return self._client.want_write()

    def connect(self) -> bool:
        """Begin a connection of the session; False, with `failure`, when nothing answers. `is_ready` comes later."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        self.failure = ""
        try:
            code = self._client.connect(*self._address, keepalive=KEEPALIVE_S, clean_start=False, properties=properties)
        except OSError as error:
            self.failure = error.strerror or str(error)
            return False
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.failure = mqtt.error_string(code)
        return code == MQTTErrorCode.MQTT_ERR_SUCCESS

    def read(self, rows: int, size: int) -> None:
        """Take what has come, until the inbox holds so many messages or bytes. Raises SettingError when the broker
        refuses what only a person can put right."""
        self._client.loop_read()
        while self._client.is_buffered and len(self.inbox) < rows and self.inbox_bytes < size:
            self._client.loop_read()
        if self._refused:
            raise SettingError(self._refused)

    def write(self) -> None:
        """Send what waits to be sent."""
        self._client.loop_write()

    def tend(self) -> None:
        """Keep-alive; to be called about once a second."""
        self._client.loop_misc()

    def take(self) -> list[Arrival]:
        """Everything in the inbox, which is empty then."""
        taken, self.inbox, self.inbox_bytes = self.inbox, [], 0
        self.taken = len(taken)
        return taken

    def clear(self) -> None:
        """Forget what was not settled; the broker delivers it again."""
        self.inbox, self.inbox_bytes, self.taken = [], 0, 0

    def settle(self, arrivals: Sequence[Arrival]) -> None:
        """Acknowledge, in order, those that this very connection delivered. The caller has made them durable."""
        self._client.ack_all([each.mid for each in arrivals if each.qos and each.generation == self.generation])
        self.taken = 0

    def leave(self) -> None:
        """Have the session unsubscribed (again); `answers` counts how often the broker has said that it is. What it
        had sent before it said so has come."""
        self._client.unsubscribe([self._topic, self._other])

    def drop(self, reason: str) -> None:
        """End the connection without a word, as a network does."""
        self.failure = reason
        self._client._sock_close()
        self._ended()

    def close(self, patience_s: float = 2.0, is_end: bool = False) -> None:
        """Send what is left and a DISCONNECT; the session stays at the broker, unless this is its end."""
        if self.connection is None:
            return
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
        if is_end:
            properties.SessionExpiryInterval = 0
        self._client.disconnect(properties=properties)
        until = time.monotonic() + patience_s
        while self.wants_write and self.connection is not None and time.monotonic() < until:
            self._client.loop_write()
            time.sleep(0.001)

    def _ended(self) -> None:
        self.generation += 1
        self.is_ready = False

    def _on_socket_open(self, _client: Any, _userdata: Any, connection: Any) -> None:
        # acknowledgements are already in large pieces; held back, they would stop a broker with a small window
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(self, _client: Any, _userdata: Any, flags: ConnectFlags, code: ReasonCode, properties: Any) -> None:
        if code.is_failure:
            self.failure = str(code)
            return
        self._refused = limits.refusal(properties, self._is_shared)
        if self._refused:
            return
        self.on_session(flags.session_present, limits.capped(properties))
        if self._is_leaving:
            self.leave()
            return
        # also where the session is kept: after a loss of the session only this brings the messages back. Nothing
        # retained: what no receipt covers comes from the device again
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        self._client.subscribe(self._topic, options=options)
        if flags.session_present:
            # after the subscription, so that there is no moment without one
            self._client.unsubscribe(self._other)

    def _on_subscribe(self, _client: Any, _userdata: Any, _mid: int, codes: list[ReasonCode], _properties: Any) -> None:
        refused = [str(code) for code in codes if code.is_failure or code.value < 1]
        if refused:
            self._refused = (
                f"the broker refuses the subscription to {self._topic} at QoS 1 ({refused[0]}): change its access rules"
            )
        self.is_ready = not refused

    def _on_unsubscribe(self, *_: Any) -> None:
        self.answers += 1
        self.is_ready = self.is_ready or self._is_leaving

    def _on_arrival(self, name: bytes, payload: bytes, mid: int, qos: int, is_retained: bool) -> None:
        # a topic that is no UTF-8 is kept, readable, and ends in quarantine
        topic = name.decode("utf-8", "backslashreplace")
        received_us = max(time.time_ns() // 1000, self.last_received_us + 1)
        self.last_received_us = received_us
        self.inbox.append(Arrival(topic, payload, received_us, is_retained, self.generation, mid, qos))
        self.inbox_bytes += len(payload)

    def _on_disconnect(self, _client: Any, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        if code.value == _SESSION_TAKEN_OVER:
            self._refused = (
                f"another process took over the MQTT session {self._session}: change LAMPLIGHT_INGEST_INSTANCE"
            )
        # a refusal has already said why, better than the disconnection that follows it
        self.failure = self.failure or str(code)
        self._ended()

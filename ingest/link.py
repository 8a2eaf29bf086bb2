"""The MQTT 5 session of one ingest instance, and which connection of it an acknowledgement belongs to."""

import socket
import time
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from contracts.settings import SettingError
from contracts.topics import SUBSCRIPTION
from ingest.arrival import Arrival
from ingest.client import PieceClient
from ingest.config import Config

SESSION_EXPIRY_S = 14 * 86_400  # as long as the production broker keeps a session without its client
RECEIVE_MAXIMUM = 65_535
KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 5.0
_SESSION_TAKEN_OVER = 0x8E


class Link:
    """One session, driven by its owner's loop.

    Messages collect in `inbox`. `generation` counts the connections that have ended: an arrival of another generation
    can no longer be acknowledged, and the broker delivers it again. `is_ready` holds from the subscription's
    acknowledgement to the end of the connection; `failure` tells why the last connection ended or was refused.
    """

    def __init__(self, config: Config):
        self.inbox: list[Arrival] = []
        self.inbox_bytes = 0
        self.generation = 0
        self.is_ready = False
        self.failure = ""
        self._refused = ""
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
        return taken

    def settle(self, arrivals: Sequence[Arrival]) -> None:
        """Acknowledge, in order, those that this very connection delivered. The caller has made them durable."""
        self._client.ack_all([each.mid for each in arrivals if each.qos and each.generation == self.generation])

    def drop(self, reason: str) -> None:
        """End the connection without a word, as a network does."""
        self.failure = reason
        self._client._sock_close()
        self._ended()

    def close(self, patience_s: float = 2.0) -> None:
        """Send what is left and a DISCONNECT; the session stays at the broker."""
        if self.connection is None:
            return
        self._client.disconnect()
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

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        if code.is_failure:
            self.failure = str(code)
            return
        # also where the session is kept: after a loss of the session only this brings the messages back.
        # Retained births come with a new subscription only, not with each connection.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        self._client.subscribe(SUBSCRIPTION, options=options)

    def _on_subscribe(self, _client: Any, _userdata: Any, _mid: int, codes: list[ReasonCode], _properties: Any) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            self._refused = (
                f"the broker refuses the subscription to {SUBSCRIPTION} ({refused[0]}): change its access rules"
            )
        self.is_ready = not refused

    def _on_arrival(self, name: bytes, payload: bytes, mid: int, qos: int, is_retained: bool) -> None:
        # a topic that is no UTF-8 is kept, readable, and ends in quarantine
        topic = name.decode("utf-8", "backslashreplace")
        self.inbox.append(Arrival(topic, payload, time.time_ns() // 1000, is_retained, self.generation, mid, qos))
        self.inbox_bytes += len(payload)

    def _on_disconnect(self, _client: Any, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        if code.value == _SESSION_TAKEN_OVER:
            self._refused = (
                f"another process took over the MQTT session {self._session}: change LAMPLIGHT_INGEST_INSTANCE"
            )
        # a refusal has already said why, better than the disconnection that follows it
        self.failure = self.failure or str(code)
        self._ended()

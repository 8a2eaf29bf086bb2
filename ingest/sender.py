"""The MQTT 5 connection that receipts leave by. It is tended by paho's thread; nothing here waits once it stands."""

import threading
import time
from collections import deque
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from contracts import credentials
from contracts.logs import say
from contracts.settings import SettingError
from ingest.config import Config

CLIENT_ID = "lamplight-receipts"
WINDOW = 1_000  # unanswered receipts; beyond it posts wait, and what they are told is the newest
KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 5.0
HANDSHAKE_S = 10.0
BACKOFF_S = (1, 8)


class Sender:
    """Publishes retained at QoS 1. What is unanswered when a connection ends is sent again over the next."""

    def __init__(self, config: Config):
        self.reconnects = 0
        self.is_connected = False
        self.window = WINDOW
        self._address = (config.mqtt_host, config.mqtt_port)
        self._topics: dict[int, str] = {}
        self._answers: deque[tuple[int, ReasonCode]] = deque()
        self._first = threading.Event()
        self._failure = ""
        self._lost_at = 0.0
        self._is_closing = False
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=CLIENT_ID, protocol=MQTTProtocolVersion.MQTTv5)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(0)
        client.reconnect_delay_set(*BACKOFF_S)
        config.credentials.give(client)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        self._client = client

    @property
    def room(self) -> int:
        """How many more receipts may be sent now; none without a connection."""
        return self.window - len(self._topics) if self.is_connected else 0

    def open(self) -> None:
        """Connect for the first time. Raises SettingError when the broker cannot be used."""
        try:
            self._client.connect(*self._address, keepalive=KEEPALIVE_S)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        self._client.loop_start()
        self._first.wait(HANDSHAKE_S)
        if not self.is_connected:
            self.close()
            raise self._unusable(self._failure or "it does not answer as an MQTT 5 broker")

    def send(self, topic: str, payload: bytes) -> None:
        """Hand over one message; `answers` tells when the broker has it."""
        self._topics[self._client.publish(topic, payload, qos=1, retain=True).mid] = topic

    def answers(self) -> list[tuple[str, str | None]]:
        """(topic, None or the reason of a refusal) for each message that was answered since the last call."""
        found: list[tuple[str, str | None]] = []
        while self._answers:
            mid, code = self._answers.popleft()
            topic = self._topics.pop(mid, None)
            if topic is not None:
                found.append((topic, str(code) if code.is_failure else None))
        return found

    def close(self, patience_s: float = 2.0) -> None:
        """Wait a little for the last answers, then disconnect."""
        until = time.monotonic() + patience_s
        while self.is_connected and self._topics and time.monotonic() < until:
            time.sleep(0.01)
            self.answers()
        self._is_closing = True
        self._client.disconnect()
        self._client.loop_stop()

    def _unusable(self, reason: str) -> SettingError:
        host, port = self._address
        return SettingError(
            f"the broker at {host}:{port} cannot be used ({reason}): start it, "
            f"or change LAMPLIGHT_MQTT_HOST, LAMPLIGHT_MQTT_PORT, {credentials.HINT}"
        )

    # the rest runs in paho's thread

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, code: ReasonCode, properties: Any) -> None:
        if code.is_failure:
            self._failure = str(code)
            self._first.set()
            return
        self.window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
        self.is_connected = True
        if self._first.is_set():
            self.reconnects += 1
            self._say(f"is back after {time.monotonic() - self._lost_at:.1f} s")
        self._first.set()

    def _on_disconnect(self, _client: Any, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        if self.is_connected and not self._is_closing:
            self._lost_at = time.monotonic()
            self._say(f"lost ({code}); connecting again", "warning")
        self.is_connected = False

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, code: ReasonCode, _properties: Any) -> None:
        self._answers.append((mid, code))

    def _say(self, what: str, level: Any = "info") -> None:
        host, port = self._address
        say("receipts", f"broker {host}:{port} {what}", level)

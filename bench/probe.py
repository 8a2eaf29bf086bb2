"""One post of its own that tells when the platform lives: its heartbeats are in the raw log, receipted, in the lake."""

import threading
import time
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from contracts import payloads
from contracts.layout import Layout, instances, read_progress, sealed_segments
from contracts.payloads import SCHEMA_VERSION, Heartbeat, encode
from contracts.receipts import decode_receipt
from contracts.segments import read_segment
from contracts.topics import device_topic, receipt_topic
from sensors_sim.boots import new_boot_id

PERIOD_S = 0.1
LOOK_S = 0.1


class Probe:
    """Publishes while it is connected. It holds nothing (first_seq is seq), so a receipt covers what has landed."""

    def __init__(self, layout: Layout, port: int, post_id: str):
        self.boot_id = new_boot_id()
        self._layout = layout
        self._address = "127.0.0.1", port
        self._topic, self._receipts = device_topic(post_id, "status"), receipt_topic(post_id)
        self._made_s: list[float] = []  # by seq, time.monotonic
        self._covered = -1
        self._landed: list[tuple[int, int]] = []  # (seq, when it was seen in a sealed segment), both growing
        self._offsets: dict[str, int] = {}
        self._is_closed = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=post_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.reconnect_delay_set(1, 1)
        client.on_connect = self._connected
        client.on_message = self._heard
        self._client = client
        self._thread = threading.Thread(target=self._run, daemon=True, name="probe")

    def start(self) -> "Probe":
        self._client.connect_async(*self._address, keepalive=10)
        self._client.loop_start()
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop publishing; safe to call twice."""
        if not self._is_closed.is_set():
            self._is_closed.set()
            self._thread.join()
            self._client.disconnect()
            self._client.loop_stop()

    def seen(self, since_s: float) -> dict[str, bool]:
        """Whether a heartbeat made after `since_s` (time.monotonic) is in the raw log, is receipted, is in the lake."""
        first = bisect_right(self._made_s, since_s)
        self._look()
        place = bisect_left(self._landed, (first, 0))
        # a lake that contains every segment sealed before that moment contains it
        landed_us = self._landed[place][1] if place < len(self._landed) else None
        covered_us = read_progress(self._layout.progress("pipelines")).get("covered_us", 0)
        return {
            "raw": landed_us is not None,
            "receipt": self._covered >= first,
            "lake": landed_us is not None and covered_us > landed_us,
        }

    def _look(self) -> None:
        raw = self._layout.raw
        for instance in instances(raw):
            for segment in sealed_segments(raw, instance, self._offsets.get(instance, 0)):
                table = read_segment(raw, segment)
                self._offsets[instance] = segment.last + 1
                for topic, payload in zip(table["topic"].to_pylist(), table["payload"].to_pylist(), strict=True):
                    name = payloads.head(payload) if topic == self._topic else None
                    if name is not None and name[0] == self.boot_id:
                        self._note(name[1])

    def _note(self, seq: int) -> None:
        if not self._landed or seq > self._landed[-1][0]:
            self._landed.append((seq, time.time_ns() // 1000))

    def _run(self) -> None:
        while not self._is_closed.wait(PERIOD_S):
            if self._client.is_connected():
                seq = len(self._made_s)
                self._made_s.append(time.monotonic())
                message = Heartbeat(
                    schema_version=SCHEMA_VERSION,
                    boot_id=self.boot_id,
                    seq=seq,
                    first_seq=seq,
                    time=datetime.now(UTC),
                    firmware="probe",
                )
                self._client.publish(self._topic, encode(message), 1)

    def _connected(self, *_: Any) -> None:
        self._client.subscribe(self._receipts, 1)

    def _heard(self, _client: Any, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        receipt = decode_receipt(bytes(message.payload))
        if receipt is not None:
            self._covered = max(self._covered, receipt.boots.get(self.boot_id, {}).get("status", -1))

"""What posts send, as it lands in a raw log, and what they are told."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from contracts import payloads
from contracts.layout import Layout
from contracts.receipts import Receipt, decode_receipt
from contracts.topics import device_topic
from ingest.arrival import Arrival
from ingest.landing import Landing
from tests.ingest.processes import until

POST, BOOT, OTHER_BOOT = "KT1001", "00000000000000b1", "00000000000000b2"
Landed = tuple[str, bytes]


def message(
    seq: int, first_seq: int = 0, *, post_id: str = POST, stream: Literal["air", "weather"] = "air", boot: str = BOOT
) -> Landed:
    """(topic, payload) of a valid message."""
    head: dict[str, Any] = {"schema_version": 1, "boot_id": boot, "seq": seq, "first_seq": first_seq}
    time_ = datetime.now(UTC).replace(microsecond=0)
    row = (
        payloads.Air(**head, time=time_, no2_ug_m3=21.5)
        if stream == "air"
        else payloads.Weather(**head, time=time_, temperature_c=21.5)
    )
    return device_topic(post_id, stream), payloads.encode(row)


def heartbeat(seq: int, first_seq: int = 0, **more: Any) -> Landed:
    """(topic, payload) of a heartbeat; `more` are its further fields."""
    row = payloads.Heartbeat(
        schema_version=1,
        boot_id=BOOT,
        seq=seq,
        first_seq=first_seq,
        time=datetime.now(UTC),
        firmware="1",
        **more,
    )
    return device_topic(POST, "status"), payloads.encode(row)


def land(root: Path, rows: list[Landed], instance: str = "a") -> None:
    """As ingest lands them: one more sealed segment."""
    with Landing(Layout(root), instance) as landing:
        landing.append([Arrival(topic, payload, time.time_ns() // 1000) for topic, payload in rows])


class Listener:
    """Hears all receipts, as a post hears its own. `heard`: (post, receipt, whether it was retained) in order."""

    def __init__(self, port: int):
        self.heard: list[tuple[str, Receipt, bool]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe("lamplight/receipt/v1/#", qos=1)
        subscribed: list[int] = []
        self._client.on_subscribe = lambda _c, _u, mid, *_: subscribed.append(mid)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        until(lambda: bool(subscribed))

    def _on_message(self, _client: Any, _userdata: Any, said: mqtt.MQTTMessage) -> None:
        receipt = decode_receipt(bytes(said.payload))
        assert receipt is not None, said.payload
        self.heard.append((said.topic.rpartition("/")[2], receipt, said.retain))

    def boots(self, post_id: str = POST) -> dict[str, dict[Any, int]]:
        """What the post was told last; empty before it was told anything."""
        return next((receipt.boots for post, receipt, _ in reversed(self.heard) if post == post_id), {})

    def until_told(self, boots: dict[str, dict[str, int]], post_id: str = POST) -> None:
        """Return when the post's last receipt says exactly this."""
        try:
            until(lambda: self.boots(post_id) == boots)
        except AssertionError:
            raise AssertionError(f"{self.boots(post_id)} is not {boots}") from None

    def never_went_down(self, post_id: str = POST) -> bool:
        highest: dict[tuple[str, str], int] = {}
        for post, receipt, _ in self.heard:
            for boot, streams in receipt.boots.items() if post == post_id else ():
                for stream, seq in streams.items():
                    if seq < highest.get((boot, stream), -1):
                        return False
                    highest[boot, stream] = seq
        return True

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: Any) -> None:
        self._client.disconnect()
        self._client.loop_stop()

"""The peer of the ingest benchmark: a paho subscriber at QoS 1 that does nothing, on `loop_forever`."""

import time
from multiprocessing.connection import Connection
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from contracts.topics import SUBSCRIPTION


def run(port: int, count: int, answer: Connection) -> None:
    """Say "ready" when subscribed, and after `count` messages the seconds from the first to the last."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="noop", protocol=MQTTProtocolVersion.MQTTv5)
    got = 0
    began = 0.0

    def connected(*_: Any) -> None:
        client.subscribe(SUBSCRIPTION, 1)

    def subscribed(*_: Any) -> None:
        answer.send("ready")

    def message(*_: Any) -> None:
        nonlocal got, began
        if not got:
            began = time.monotonic()
        got += 1
        if got == count:
            answer.send(time.monotonic() - began)
            client.disconnect()

    client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, message
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = 65_535
    client.connect("127.0.0.1", port, clean_start=True, properties=properties)
    client.loop_forever()

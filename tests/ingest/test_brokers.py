"""The fixtures themselves: a real client is answered by each broker, again after a restart."""

from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.broker import Embedded, Mosquitto


def round_trip(port: int, version: MQTTProtocolVersion) -> bytes:
    """Publish to ourselves at QoS 1 and return what comes back."""
    got: list[bytes] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"round-trip-{version}", protocol=version)

    def connected(*_: Any) -> None:
        client.subscribe("t", 1)

    def subscribed(*_: Any) -> None:
        client.publish("t", b"hello", 1)

    client.on_connect = connected
    client.on_subscribe = subscribed
    client.on_message = lambda _client, _userdata, message: got.append(bytes(message.payload))
    client.connect("127.0.0.1", port)
    while not got:
        assert client.loop(5) == mqtt.MQTT_ERR_SUCCESS
    client.disconnect()
    return got[0]


def test_mosquitto_answers_again_after_stop_and_kill(mosquitto: Mosquitto) -> None:
    for end in (mosquitto.stop, mosquitto.kill):
        assert round_trip(mosquitto.port, MQTTProtocolVersion.MQTTv5) == b"hello"
        end()
        with pytest.raises(ConnectionRefusedError):
            round_trip(mosquitto.port, MQTTProtocolVersion.MQTTv5)
        mosquitto.start()


def test_the_embedded_broker_speaks_both_versions(embedded_broker: Embedded) -> None:
    assert round_trip(embedded_broker.port, MQTTProtocolVersion.MQTTv5) == b"hello"
    assert round_trip(embedded_broker.mqtt311_port, MQTTProtocolVersion.MQTTv311) == b"hello"
    embedded_broker.stop()
    with pytest.raises(ConnectionRefusedError):
        round_trip(embedded_broker.port, MQTTProtocolVersion.MQTTv5)
